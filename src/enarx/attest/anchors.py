"""Where trust begins: the vendors' keys, pinned by the SHA-256 of their SubjectPublicKeyInfo.

A root that comes with the evidence is never trusted, whatever its name. Other roots (an emulator's, a private
one) count only when the caller passes them in, and then every verdict names them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib.resources import files
from typing import Final, Self

from enarx.attest.errors import MalformedCollateral
from enarx.attest.x509 import Certificate, PublicKey, load_public_key, parse_certificate


class Vendor(Enum):
    """Whose evidence a root may vouch for. A root of one vendor never ends a chain of another."""

    AMD = "amd"
    INTEL = "intel"
    AWS_NITRO = "aws-nitro"
    AZURE_VTPM = "azure-vtpm"
    GOOGLE_TPM = "google-tpm"
    ARM_CCA = "arm-cca"
    IBM = "ibm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """One key that is trusted without further proof."""

    name: str
    spki: bytes
    certificate: Certificate | None
    vendor: Vendor | None
    """``None``: named by the caller, who answers for what it vouches for."""
    is_vendor: bool
    """Pinned here, as opposed to passed in by the caller."""
    key: PublicKey = field(repr=False, compare=False)
    """What ``spki`` says, loaded."""

    @property
    def spki_sha256(self) -> bytes:
        """The fingerprint by which verdicts name this root."""
        return hashlib.sha256(self.spki).digest()

    def __str__(self) -> str:
        return (
            f"{self.name} ({'vendor' if self.is_vendor else 'NOT a vendor root'}, {self.spki_sha256.hex()})"
        )


# Name, file in _roots (its README says where each is from), vendor, SHA-256 of the SubjectPublicKeyInfo.
_PINS: Final = (
    (
        "AMD ARK-Naples",
        "amd-ark-naples",
        Vendor.AMD,
        "3a04f8f1347de206c9206a81148ba4ef0a233b245d43a15dd82de043bb3e4f69",
    ),
    (
        "AMD ARK-Rome",
        "amd-ark-rome",
        Vendor.AMD,
        "7447ffa21e2b938bfade89f5e9066c00a328813bfc43685605cceabd18da6fde",
    ),
    (
        "AMD ARK-Milan",
        "amd-ark-milan",
        Vendor.AMD,
        "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
    ),
    (
        "AMD ARK-Genoa",
        "amd-ark-genoa",
        Vendor.AMD,
        "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
    ),
    (
        "AMD ARK-Turin",
        "amd-ark-turin",
        Vendor.AMD,
        "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
    ),
    (
        "Intel SGX Root CA",
        "intel-sgx-root-ca",
        Vendor.INTEL,
        "a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e",
    ),
    (
        "AWS Nitro Enclaves Root G1",
        "aws-nitro-root-g1",
        Vendor.AWS_NITRO,
        "f2caf5ecc6190b4a8399b78bc58a2bbcd0382375db8a1bfd78a82743874fd225",
    ),
    (
        "Azure Virtual TPM Root 2023",
        "azure-vtpm-root-2023",
        Vendor.AZURE_VTPM,
        "5cbc52672ae101263c2976736044a964c1182ce9412c39937183baddcccb8cdf",
    ),
    (
        "Google TPM EK Root 1",
        "google-tpm-ek-root-1",
        Vendor.GOOGLE_TPM,
        "f23057f4f97d1d90e4cae0ce91d5a0fc99069f0a1bc147021dca33b1e9c4d0d9",
    ),
    (
        "Google EK/AK CA Root",
        "google-ek-ak-ca-root",
        Vendor.GOOGLE_TPM,
        "56a613f57126a385dd6949294e93b0b566f96ab0573be0c2368e6f5ca779831f",
    ),
)


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """The roots that one verification may end in. An empty set verifies nothing."""

    anchors: tuple[Anchor, ...]
    keys: Mapping[bytes, PublicKey] = field(init=False, repr=False, compare=False)
    """The roots' keys by SubjectPublicKeyInfo."""
    certificates: Mapping[bytes, Certificate] = field(init=False, repr=False, compare=False)
    """The roots' certificates by their DER."""
    _of: Mapping[Vendor, tuple[Anchor, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_vendor = {
            vendor: tuple(anchor for anchor in self.anchors if anchor.vendor in (vendor, None))
            for vendor in Vendor
        }
        object.__setattr__(self, "keys", {anchor.spki: anchor.key for anchor in self.anchors})
        certificates = {one.certificate.der: one.certificate for one in self.anchors if one.certificate}
        object.__setattr__(self, "certificates", certificates)
        object.__setattr__(self, "_of", by_vendor)

    @classmethod
    def none(cls) -> Self:
        """No root at all: a base for ``adding``."""
        return cls(())

    @classmethod
    def vendor(cls) -> Self:
        """The roots of the vendors, from files in this package checked against the pins in this module."""
        return cls(tuple(_pinned(*pin) for pin in _PINS))

    def adding(self, root: bytes, *, name: str, vendor: Vendor | None = None) -> Self:
        """Trust one more root: a certificate or public key, in PEM or DER. Raises ``MalformedCollateral``."""
        return type(self)((*self.anchors, _anchor(root, name=name, vendor=vendor, is_vendor=False)))

    def of(self, vendor: Vendor) -> tuple[Anchor, ...]:
        """The roots that may vouch for evidence of ``vendor``."""
        return self._of[vendor]

    def find(self, vendor: Vendor, spki: bytes) -> Anchor | None:
        """The root of ``vendor`` with exactly this key, or nothing."""
        return next((anchor for anchor in self.of(vendor) if anchor.spki == spki), None)


def pem_blocks(data: bytes) -> Iterable[tuple[str, bytes]]:
    """Give label and DER of each PEM block; text around them is ignored. Raises ``MalformedCollateral``."""
    for label, body in re.findall(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----([^-]*)-----END \1-----", data):
        try:
            yield label.decode(), base64.b64decode(b"".join(body.split()), validate=True)
        except ValueError:
            raise MalformedCollateral(f"PEM block {label.decode()} is not base64") from None


def _pinned(name: str, file: str, vendor: Vendor, fingerprint: str) -> Anchor:
    anchor = _anchor(
        files(__package__).joinpath(f"_roots/{file}.pem").read_bytes(),
        name=name,
        vendor=vendor,
        is_vendor=True,
    )
    if anchor.spki_sha256.hex() != fingerprint:
        raise MalformedCollateral(f"root {file} has key {anchor.spki_sha256.hex()}, expected {fingerprint}")
    return anchor


def _anchor(root: bytes, *, name: str, vendor: Vendor | None, is_vendor: bool) -> Anchor:
    blocks = list(pem_blocks(root)) or [("CERTIFICATE", root)]
    if len(blocks) != 1:
        raise MalformedCollateral(f"root {name} holds {len(blocks)} PEM blocks, expected one")
    label, der = blocks[0]
    try:
        certificate = parse_certificate(der) if label == "CERTIFICATE" else None
    except MalformedCollateral:
        if label != "CERTIFICATE" or root is not der:
            raise
        certificate = None  # DER without a label may also be a bare public key
    spki = certificate.spki if certificate else der
    key = load_public_key(spki)
    return Anchor(name=name, spki=spki, certificate=certificate, vendor=vendor, is_vendor=is_vendor, key=key)
