"""ESM blobs: what a tenant gives to a machine with IBM's ultravisor, and only that machine can open.

A blob is a device tree ``ibm,esm``. A key of its own encrypts the digests that the virtual machine must have, and the
files that are its secrets; a lockbox holds that key for each machine that may run it. The format is that of IBM's
``svm-tool`` and of the OpenPOWER ultravisor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256, sha512
from typing import Final, Self

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from enarx.attest.errors import MalformedEvidence
from enarx.attest.pef._fdt import Node, build_fdt, parse_fdt

OWNER: Final = "origin-lockbox"
KEY_BYTES: Final = 32
IV_BYTES: Final = 16
MAC_BYTES: Final = 16
DIGEST_BYTES: Final = 64
MIN_KEY_BITS: Final = 2048
RTAS: Final = bytes.fromhex("7c641b783c6000006063f000440000224e800020")
"""What QEMU puts into the guest as its RTAS: five instructions that hand over to the hypervisor."""
OAEP: Final = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
Random = Callable[[int], bytes]
"""Gives so many random bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """What the ultravisor compares before a virtual machine becomes secure: SHA-512 of its parts."""

    rtas: bytes
    kernel: bytes
    kernel_size: int
    initrd: bytes
    bootargs: bytes

    @classmethod
    def of(cls, *, kernel: bytes, initrd: bytes = b"", bootargs: str = "", rtas: bytes = RTAS) -> Self:
        """Measure a virtual machine; ``kernel`` is the flat image as it lies in memory."""
        return cls(
            rtas=sha512(rtas).digest(),
            kernel=sha512(kernel).digest(),
            kernel_size=len(kernel),
            initrd=sha512(initrd).digest(),
            bootargs=sha512(bootargs.encode()).digest(),
        )

    @property
    def measurement(self) -> bytes:
        """One value for all of it (48 bytes, a definition of ours: PEF has none)."""
        size = self.kernel_size.to_bytes(8, "big")
        return sha512(self.rtas + self.kernel + size + self.initrd + self.bootargs).digest()[:48]

    def pack(self) -> bytes:
        """Write them as the device tree that is encrypted in a blob."""
        properties = {
            "algorithm": b"SHA512\0",
            "rtas": self.rtas,
            "kernel": self.kernel,
            "kernel-size": self.kernel_size.to_bytes(4, "big"),
            "initrd": self.initrd,
            "bootargs": self.bootargs,
        }
        return build_fdt(Node(children={"digests": Node(properties=properties)}))


def parse_digests(data: bytes) -> Digests:
    """Read what ``Digests.pack`` writes. Raises ``MalformedEvidence``."""
    node = parse_fdt(data).child("digests")
    if (algorithm := node.text("algorithm")) != "SHA512":
        raise MalformedEvidence(f"ESM digests: algorithm is {algorithm!r}, expected 'SHA512'")
    names = ("rtas", "kernel", "initrd", "bootargs")
    size = int.from_bytes(node.data("kernel-size", 4), "big")
    return Digests(kernel_size=size, **{name: node.data(name, DIGEST_BYTES) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """Something under a blob's key: AES-256-GCM with an IV of 16 bytes and no further data."""

    iv: bytes
    mac: bytes
    ciphertext: bytes

    def open(self, key: bytes) -> bytes:
        """Decrypt it. Raises ``MalformedEvidence`` when it is not what was sealed under this key."""
        try:
            return AESGCM(key).decrypt(self.iv, self.ciphertext + self.mac, None)
        except InvalidTag:
            raise MalformedEvidence("ESM blob: a part is not what was sealed under its key") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lockbox:
    """A blob's key for one machine; ``fingerprint`` is the SHA-256 of the PEM file of its public key."""

    name: str
    fingerprint: bytes
    encrypted_key: bytes
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EsmBlob:
    """A parsed blob: nothing in it is verified before it is opened."""

    lockboxes: tuple[Lockbox, ...]
    digests: Sealed
    files: Mapping[str, Sealed] = field(default_factory=dict)


def parse_esm_blob(data: bytes) -> EsmBlob:
    """Read a blob. Raises ``MalformedEvidence``."""
    root = parse_fdt(data)
    _compatible(root, "ibm,esm")
    lockboxes = tuple(_lockbox(name, node) for name, node in root.child("lockboxes").children.items())
    files: dict[str, Sealed] = {}
    if "file" in root.children:
        nested = parse_fdt(root.child("file").data("files-fdt"))
        _compatible(nested, "ibm,esm-file")
        files = {name: _sealed(node) for name, node in nested.child("files").children.items()}
    return EsmBlob(
        lockboxes=lockboxes, digests=_sealed(root.child("digest").child("digests-fdt")), files=files
    )


def _compatible(node: Node, expected: str) -> None:
    if (found := node.text("compatible")) != expected:
        raise MalformedEvidence(f"ESM blob: compatible is {found!r}, expected {expected!r}")


def _lockbox(name: str, node: Node) -> Lockbox:
    fingerprint = node.child("pubkey-fingerprint")
    if (algorithm := fingerprint.text("algorithm")) != "SHA256":
        raise MalformedEvidence(f"ESM lockbox {name}: fingerprint is by {algorithm!r}, expected 'SHA256'")
    return Lockbox(
        name=name,
        fingerprint=fingerprint.data("hash", 32),
        encrypted_key=node.data("encrypted-symkey"),
        comment=node.text("untrusted-comment"),
    )


def _sealed(node: Node) -> Sealed:
    if (algorithm := node.text("algorithm")) != "AES256-GCM":
        raise MalformedEvidence(f"ESM blob: a part is encrypted by {algorithm!r}, expected 'AES256-GCM'")
    return Sealed(
        iv=node.data("iv", IV_BYTES), mac=node.data("mac", MAC_BYTES), ciphertext=node.data("ciphertext")
    )


def build_esm_blob(
    digests: Digests,
    *,
    machines: Mapping[str, bytes],
    files: Mapping[str, bytes],
    random: Random,
    owner: bytes | None = None,
) -> bytes:
    """Seal ``digests`` and ``files`` for every one of ``machines``, whose public keys (PEM) have comments as names.

    ``owner`` is the tenant's own public key, who can then open the blob again. Raises ``MalformedEvidence`` for a key
    that is not RSA of at least 2048 bits.
    """
    key = random(KEY_BYTES)
    boxes = {
        f"lockbox-{number}": _boxed(key, comment, pem)
        for number, (comment, pem) in enumerate(machines.items(), 1)
    }
    if owner is not None:
        boxes[OWNER] = _boxed(key, "", owner)
    sealed = {name: _seal(key, data, random) for name, data in files.items()}
    nested = Node(properties={"compatible": b"ibm,esm-file\0"}, children={"files": Node(children=sealed)})
    parts = {
        "lockboxes": Node(children=boxes),
        "digest": Node(children={"digests-fdt": _seal(key, digests.pack(), random)}),
        "file": Node(properties={"files-fdt": build_fdt(nested)}),
    }
    return build_fdt(Node(properties={"compatible": b"ibm,esm\0"}, children=parts))


def load_machine_key(pem: bytes) -> rsa.RSAPublicKey:
    """Read a machine's public key. Raises ``MalformedEvidence``."""
    try:
        public = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise MalformedEvidence("machine key is not a public key in PEM") from None
    if not isinstance(public, rsa.RSAPublicKey) or public.key_size < MIN_KEY_BITS:
        raise MalformedEvidence(f"machine key is not RSA of at least {MIN_KEY_BITS} bits")
    return public


def _boxed(key: bytes, comment: str, pem: bytes) -> Node:
    public = load_machine_key(pem)
    fingerprint = Node(properties={"hash": sha256(pem).digest(), "algorithm": b"SHA256\0"})
    properties = {
        "encrypted-symkey": public.encrypt(key, OAEP),
        "untrusted-comment": comment.encode("ascii", "replace") + b"\0",
    }
    return Node(properties=properties, children={"pubkey-fingerprint": fingerprint})


def _seal(key: bytes, data: bytes, random: Random) -> Node:
    iv = random(IV_BYTES)
    sealed = AESGCM(key).encrypt(iv, data, None)
    properties = {
        "mac": sealed[-MAC_BYTES:],
        "iv": iv,
        "ciphertext": sealed[:-MAC_BYTES],
        "untrusted-comment": b"\0",
        "algorithm": b"AES256-GCM\0",
    }
    return Node(properties=properties)
