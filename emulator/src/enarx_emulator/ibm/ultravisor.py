"""The ultravisor of one machine: it opens ESM blobs with the machine's key and makes virtual machines secure.

A virtual machine begins as a normal one that the hypervisor loaded, and asks with ``UV_ESM`` to become secure. The
ultravisor takes its memory from the hypervisor, measures it, and compares it with the digests in the owner's blob.
Source: Linux, Documentation/arch/powerpc/ultravisor.rst; the status codes are those of
arch/powerpc/include/asm/ultravisor-api.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enarx.attest.pef import OAEP, RTAS, Digests, EsmBlob, parse_digests, parse_esm_blob
from enarx.tcb.errors import Malformed
from enarx_emulator.errors import FirmwareError

KEY_BITS: Final = 2048
MAX_FILE_BYTES: Final = 0xFFFF
"""The real ultravisor counts the bytes of a file in 16 bits and cuts longer ones; this one refuses them."""


class Status(IntEnum):
    """What an ultracall returns."""

    U_SUCCESS = 0
    U_BUSY = 1
    U_NOT_AVAILABLE = 3
    U_FUNCTION = -2
    U_PARAMETER = -4
    U_PERMISSION = -11
    U_P2 = -55


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a hypervisor put into the memory of a virtual machine."""

    kernel: bytes
    initrd: bytes = b""
    bootargs: str = ""
    rtas: bytes = RTAS

    def digests(self) -> Digests:
        """Measure it."""
        return Digests.of(kernel=self.kernel, initrd=self.initrd, bootargs=self.bootargs, rtas=self.rtas)


class Ultravisor:
    """The firmware of one machine; ``key`` never leaves it."""

    def __init__(self, key: rsa.RSAPrivateKey, *, faults: frozenset[str] = frozenset()) -> None:
        self._key = key
        self._faults = faults
        self.public_key = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        """What owners seal their blobs for, in PEM."""
        self.fingerprint = sha256(self.public_key).digest()

    def esm(self, loaded: Loaded, blob: bytes) -> Mapping[str, bytes]:
        """UV_ESM: make it secure and give the files of the blob, which only the secure virtual machine may have.

        Raises ``FirmwareError``: U_PARAMETER when the blob is none, U_PERMISSION when it is not for this machine,
        was changed, or is not for what was loaded.
        """
        loaded, blob = self._handed_over(loaded, blob)
        try:
            parsed = parse_esm_blob(blob)
        except Malformed as error:
            raise FirmwareError(Status.U_PARAMETER, str(error)) from None
        key = self._unlock(parsed)
        try:
            expected = parse_digests(parsed.digests.open(key))
            files = {name: sealed.open(key) for name, sealed in parsed.files.items()}
        except Malformed as error:
            raise FirmwareError(Status.U_PERMISSION, str(error)) from None
        _compare(expected, loaded.digests())
        if long := [name for name, data in files.items() if len(data) > MAX_FILE_BYTES]:
            raise FirmwareError(Status.U_PARAMETER, f"file {long[0]} is longer than {MAX_FILE_BYTES} bytes")
        return files

    def _unlock(self, blob: EsmBlob) -> bytes:
        """Open the one lockbox of this machine."""
        mine = [box for box in blob.lockboxes if box.fingerprint == self.fingerprint]
        if len(mine) != 1:
            raise FirmwareError(
                Status.U_PERMISSION,
                f"{len(mine)} of {len(blob.lockboxes)} lockboxes are for this machine, expected 1",
                hint="seal the blob for the public key that the machine's owner published",
            )
        try:
            key = self._key.decrypt(mine[0].encrypted_key, OAEP)
        except ValueError:
            key = b""
        if len(key) != 32:
            raise FirmwareError(Status.U_PERMISSION, f"{mine[0].name} does not open")
        return key

    def _handed_over(self, loaded: Loaded, blob: bytes) -> tuple[Loaded, bytes]:
        """What the ultravisor finds in memory, when the hypervisor is not honest."""
        if "pef-kernel-replaced" in self._faults:
            loaded = replace(loaded, kernel=loaded.kernel[:-1] + bytes([loaded.kernel[-1] ^ 1]))
        if "pef-kernel-appended" in self._faults:
            loaded = replace(loaded, kernel=loaded.kernel + b"\0")
        if "pef-initrd-appended" in self._faults:
            loaded = replace(loaded, initrd=loaded.initrd + b"more")
        if "pef-bootargs-changed" in self._faults:
            loaded = replace(loaded, bootargs=loaded.bootargs + " init=/bin/sh")
        if "pef-rtas-replaced" in self._faults:
            loaded = replace(loaded, rtas=bytes(len(loaded.rtas)))
        if "pef-blob-flipped" in self._faults:
            mac = parse_esm_blob(blob).digests.mac
            blob = blob.replace(mac, bytes([mac[0] ^ 1]) + mac[1:])
        if "pef-blob-truncated" in self._faults:
            blob = blob[:-1]
        return loaded, blob


def _compare(expected: Digests, found: Digests) -> None:
    """Every part must be what the owner sealed; the first that is not is named."""
    for name in ("rtas", "kernel_size", "kernel", "initrd", "bootargs"):
        if getattr(expected, name) != getattr(found, name):
            raise FirmwareError(
                Status.U_PERMISSION,
                f"{name} is not what the owner sealed",
                hint="measure what the host loads",
            )
