"""The envelope of a DCAP quote, versions 3 to 5: header, body, signature, certification data.

Source: Intel, "SGX ECDSA Quote Library API", appendix A (version 3), and "TDX DCAP Quoting Library API", appendix A
(versions 4 and 5). What stands in the body is read by ``enarx.attest.sgx`` and ``enarx.attest.tdx``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from enarx.attest.dcap._enclave import EnclaveReport, parse_enclave_report
from enarx.attest.errors import MalformedEvidence
from enarx.tcb.wire import Layout, Reader

INTEL_QE_VENDOR_ID: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")

# The numbers at 8 and 10 are the SVNs of QE and PCE in version 3; later versions reserve them, and they are 0.
HEADER: Final = Layout(
    name="quote header",
    size=48,
    fields={
        "version": range(2),
        "key_type": range(2, 4),
        "tee_type": range(4, 8),
        "qe_svn": range(8, 10),
        "pce_svn": range(10, 12),
        "vendor_id": range(12, 28),
        "user_data": range(28, 48),
    },
)

MAX_CERTIFICATION_BYTES: Final = 32 * 1024
"""Three certificates in PEM have 3.6 KiB."""


class TeeType(IntEnum):
    """Whose report the body is."""

    SGX = 0x00
    TDX = 0x81


class BodyType(IntEnum):
    """What a version 5 quote says of its body; earlier versions follow from the TEE type."""

    SGX = 1
    TD_1_0 = 2
    TD_1_5 = 3


class CertificationType(IntEnum):
    """How the key of the platform is certified."""

    PPID_PLAIN = 1
    PPID_RSA_2048 = 2
    PPID_RSA_3072 = 3
    PCK_CERTIFICATE = 4
    PCK_CHAIN = 5
    QE_REPORT = 6
    PLATFORM_MANIFEST = 7


_BODY_BYTES: Final = {BodyType.SGX: 384, BodyType.TD_1_0: 584, BodyType.TD_1_5: 648}
_ECDSA_P256: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """One quote as it was received. Nothing here was verified."""

    version: int
    tee_type: TeeType
    qe_svn: int
    pce_svn: int
    vendor_id: bytes
    user_data: bytes
    body_type: BodyType
    body: bytes
    signed: bytes
    """Header and body as they were signed; in version 5 with the body's type and size between them."""
    signature: bytes
    """r and s, 32 bytes each, big endian; so are all signatures and keys here."""
    attestation_key: bytes
    qe_report: EnclaveReport
    qe_signature: bytes
    qe_auth_data: bytes
    certification_type: CertificationType
    certification_data: bytes
    trailing: bytes
    """What follows the quote in its buffer: quoting services hand out buffers of fixed size, filled with zeros."""

    def fields(self) -> Mapping[str, object]:
        """What the envelope says, without the body and without signatures."""
        return {
            "header.version": self.version,
            "header.tee_type": self.tee_type,
            "header.qe_svn": self.qe_svn,
            "header.pce_svn": self.pce_svn,
            "header.vendor_id": self.vendor_id,
            "header.user_data": self.user_data,
            "header.body_type": self.body_type,
            "attestation_key": self.attestation_key,
            **{f"qe.{name}": value for name, value in self.qe_report.fields().items()},
            "qe.auth_data": self.qe_auth_data,
            "certification.type": self.certification_type,
            "certification.data": self.certification_data,
            "trailing": self.trailing,
        }


def looks_like_quote(data: bytes, tee: TeeType) -> bool:
    """Say whether ``data`` begins like a quote of ``tee``. The type of the attestation key is never zero."""
    version, tee_type = int.from_bytes(data[:2], "little"), int.from_bytes(data[4:8], "little")
    return len(data) > HEADER.size and 3 <= version <= 5 and any(data[2:4]) and tee_type == tee


def parse_quote(data: bytes) -> Quote:
    """Read one quote. Raises ``Malformed`` for other versions, key types, lengths that disagree, reserved bytes."""
    at = Reader(data, name="quote")
    header = HEADER.split(at.take(HEADER.size, "header"))
    number = {
        name: int.from_bytes(header[name], "little")
        for name in ("version", "key_type", "tee_type", "qe_svn", "pce_svn")
    }
    version = number["version"]
    if not 3 <= version <= 5:
        raise MalformedEvidence(f"quote has version {version}, expected 3 to 5")
    if number["key_type"] != _ECDSA_P256:
        raise MalformedEvidence(
            f"attestation key is of type {number['key_type']}, expected {_ECDSA_P256} (ECDSA P-256)"
        )
    try:
        tee_type = TeeType(number["tee_type"])
    except ValueError:
        raise MalformedEvidence(f"quote is of TEE type {number['tee_type']:#x}, expected 0 or 0x81") from None
    if version == 3 and tee_type is not TeeType.SGX:
        raise MalformedEvidence(f"quote of version 3 has TEE type {tee_type:#x}, expected 0")
    body_type, body = _body(at, version, tee_type)
    signed = data[: at.offset]
    signature_data = at.block(4, "signature data")
    return Quote(
        version=version,
        tee_type=tee_type,
        qe_svn=number["qe_svn"],
        pce_svn=number["pce_svn"],
        vendor_id=header["vendor_id"],
        user_data=header["user_data"],
        body_type=body_type,
        body=body,
        signed=signed,
        trailing=at.rest(),
        **_signature_data(signature_data, version),
    )


def _body(at: Reader, version: int, tee_type: TeeType) -> tuple[BodyType, bytes]:
    if version < 5:
        body_type = BodyType.SGX if tee_type is TeeType.SGX else BodyType.TD_1_0
        return body_type, at.take(_BODY_BYTES[body_type], "body")
    number, size = at.number(2, "body type"), at.number(4, "body size")
    try:
        body_type = BodyType(number)
    except ValueError:
        raise MalformedEvidence(f"quote has a body of type {number}, expected 1 to 3") from None
    if (body_type is BodyType.SGX) is not (tee_type is TeeType.SGX):
        raise MalformedEvidence(f"body of type {number} in a quote of TEE type {tee_type:#x}")
    if size != _BODY_BYTES[body_type]:
        raise MalformedEvidence(f"body of type {number} has {size} bytes, expected {_BODY_BYTES[body_type]}")
    return body_type, at.take(size, "body")


def _signature_data(data: bytes, version: int) -> dict[str, Any]:
    at = Reader(data, name="quote signature data")
    signature, key = at.take(64, "signature"), at.take(64, "attestation key")
    if version > 3:  # later versions wrap what follows once more
        kind, wrapped = at.number(2, "certification type"), at.block(4, "certification data")
        if kind != CertificationType.QE_REPORT:
            raise MalformedEvidence(f"certification data is of type {kind}, expected 6 (QE report)")
        at.end()
        at = Reader(wrapped, name="QE report certification data")
    qe_report = parse_enclave_report(at.take(384, "QE report"))
    qe_signature, auth_data = at.take(64, "QE report signature"), at.block(2, "QE authentication data")
    number, certification = at.number(2, "certification type"), at.block(4, "certification data")
    at.end()
    try:
        kind = CertificationType(number)
    except ValueError:
        raise MalformedEvidence(f"certification data is of type {number}, expected 1 to 7") from None
    if len(certification) > MAX_CERTIFICATION_BYTES:
        raise MalformedEvidence(
            f"certification data has {len(certification)} bytes, at most {MAX_CERTIFICATION_BYTES} are allowed"
        )
    return {
        "signature": signature,
        "attestation_key": key,
        "qe_report": qe_report,
        "qe_signature": qe_signature,
        "qe_auth_data": auth_data,
        "certification_type": kind,
        "certification_data": certification,
    }
