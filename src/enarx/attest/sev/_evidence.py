"""Launch evidence: what the host of a SEV guest hands to the guest's owner, as one document.

SEV attests before the guest runs, by commands whose answers the host collects; AMD defines no envelope for them.
Ours is one CBOR array, deterministically encoded (docs/spec/sev-evidence.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import cbor2
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enarx.attest._cose import decode
from enarx.attest.errors import MalformedEvidence
from enarx.attest.launch_proof import LaunchProof
from enarx.attest.sev._certs import (
    CERTIFICATE_BYTES,
    AmdCertificate,
    SevCertificate,
    parse_amd_certificate,
    parse_certificate,
)
from enarx.attest.sev._session import GuestPolicy, LaunchMeasure, parse_launch_measure

PROFILE: Final = "enarx.sev.launch/1"
"""The first item: name and version of the form."""
MEDIA_TYPE: Final = "application/vnd.enarx.sev-launch+cbor"
"""Of the document as a CMW record."""
HEAD: Final = b"\x86" + cbor2.dumps(PROFILE)
POLICY_BITS: Final = 6
_AMD_SIZES: Final = {2048: 832, 4096: 1600}
_SHORT_ARK_BYTES: Final = 576
_NAMES: Final = ("pdh", "pek", "oca", "cek")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBits:
    """The bits of POLICY by name."""

    nodbg: bool
    noks: bool
    es: bool
    nosend: bool
    domain: bool
    sev: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchEvidence:
    """The answers of the platform as the host gave them: nothing of it is true yet."""

    platform: tuple[SevCertificate, SevCertificate, SevCertificate, SevCertificate]
    """PDH, PEK, OCA, CEK."""
    vendor: tuple[AmdCertificate, ...]
    """ASK and ARK, if the host knew them."""
    policy: bytes
    """POLICY, 4 bytes little endian, as the guest was launched."""
    measure: LaunchMeasure
    proof: LaunchProof | None = None
    """Of the secret that the guest was given afterwards, where one came along."""

    @property
    def flags(self) -> PolicyBits:
        """The bits of the policy."""
        flags = GuestPolicy(self.policy[0])
        return PolicyBits(**{bit.name.lower(): bit in flags for bit in GuestPolicy if bit.name})

    @property
    def policy_api(self) -> tuple[int, int]:
        """The least API version that the policy asks of any platform of this guest."""
        return self.policy[2], self.policy[3]

    def fields(self) -> Mapping[str, object]:
        """Every field."""
        found: dict[str, object] = {}
        for name, certificate in zip(_NAMES, self.platform, strict=True):
            found |= {
                f"{name}.api": _dotted(certificate.api),
                f"{name}.usage": certificate.usage.name,
                f"{name}.algorithm": certificate.algorithm.name,
                f"{name}.key": spki_of(certificate),
                f"{name}.signatures": tuple(one.usage.name for one in certificate.signatures),
            }
        return {
            **found,
            "api": _dotted(self.measure.api),
            "build": self.measure.build,
            **{f"policy.{name}": value for name, value in dataclasses.asdict(self.flags).items()},
            "policy.api": _dotted(self.policy_api),
            "measure": self.measure.measure,
            "mnonce": self.measure.nonce,
            **(self.proof.fields() if self.proof else {}),
        }


def pack_evidence(
    certificates: bytes, *, api: tuple[int, int], build: int, policy: bytes, measure: bytes
) -> bytes:
    """Write what ``parse_evidence`` reads.

    ``certificates``: PDH, PEK, OCA and CEK as the platform exports them, and ASK and ARK behind them or not.
    ``measure``: the 48 bytes of LAUNCH_MEASURE. Raises ``Malformed``.
    """
    body = [PROFILE, certificates, list(api), build, int.from_bytes(policy, "little"), measure]
    document = cbor2.dumps(body, canonical=True)
    parse_evidence(document)
    return document


def parse_evidence(data: bytes) -> LaunchEvidence:
    """Read a document. Raises ``MalformedEvidence``, ``Malformed``."""
    value = decode(data, "sev evidence")
    match value:
        case [str() as profile, bytes() as chain, [int() as major, int() as minor], int() as build, int() as policy,
              bytes() as blob] if profile == PROFILE:  # fmt: skip
            numbers = (major, minor, build, policy)
        case _:
            raise MalformedEvidence(f"sev evidence: expected an array of six that begins with {PROFILE}")
    if any(isinstance(number, bool) for number in numbers) or cbor2.dumps(value, canonical=True) != data:
        raise MalformedEvidence("sev evidence: not in deterministic encoding")
    if not 0 <= policy < 1 << 32 or (policy & 0xFFFF) >> POLICY_BITS:
        raise MalformedEvidence(f"sev evidence: policy {policy:#x} has bits that are reserved")
    pdh, pek, oca, cek = (
        parse_certificate(chain[at : at + CERTIFICATE_BYTES])
        for at in range(0, 4 * CERTIFICATE_BYTES, CERTIFICATE_BYTES)
    )
    return LaunchEvidence(
        platform=(pdh, pek, oca, cek),
        vendor=tuple(amd_certificates(chain[4 * CERTIFICATE_BYTES :])),
        policy=policy.to_bytes(4, "little"),
        measure=parse_launch_measure(blob, api=(major, minor), build=build),
    )


def amd_certificates(data: bytes) -> Iterable[AmdCertificate]:
    """Read certificates of AMD that stand one behind the other. Raises ``Malformed``."""
    while data:
        size = _AMD_SIZES.get(int.from_bytes(data[0x3C:0x40], "little"))
        if size is None:
            raise MalformedEvidence("amd certificate: expected a key of 2048 or 4096 bits")
        size = _SHORT_ARK_BYTES if len(data) == _SHORT_ARK_BYTES else size
        yield parse_amd_certificate(data[:size])
        data = data[size:]


def spki_of(certificate: SevCertificate) -> bytes:
    """Give the key of a certificate as DER SubjectPublicKeyInfo."""
    return certificate.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
