"""The envelope of DCAP quotes, versions 3 to 5, from its parts; every part may be as wrong as the caller makes it.

Source: Intel, "SGX ECDSA Quote Library API" and "TDX DCAP Quoting Library API", appendix A of each.
"""

from __future__ import annotations

from typing import Final

from enarx.attest.dcap import BodyType, CertificationType, TeeType
from enarx.attest.dcap._quote import HEADER, INTEL_QE_VENDOR_ID
from enarx_emulator.intel._structures import fill

ECDSA_P256: Final = 2
"""The type of attestation keys."""


def header(
    version: int,
    tee_type: int,
    *,
    key_type: int = ECDSA_P256,
    vendor_id: bytes = INTEL_QE_VENDOR_ID,
    user_data: bytes = bytes(20),
    qe_svn: int = 0,
    pce_svn: int = 0,
) -> bytes:
    """Give the header (48 bytes). Only version 3 has the versions of QE and PCE in it."""
    return fill(
        HEADER,
        {
            "version": version,
            "key_type": key_type,
            "tee_type": tee_type,
            "qe_svn": qe_svn,
            "pce_svn": pce_svn,
            "vendor_id": vendor_id,
            "user_data": user_data,
        },
    )


def signed_part(
    head: bytes, body: bytes, *, body_type: int = BodyType.SGX, body_size: int | None = None
) -> bytes:
    """Give what the attestation key signs; from version 5 on the body's type and size stand before it."""
    if int.from_bytes(head[:2], "little") < 5:
        return head + body
    size = len(body) if body_size is None else body_size
    return head + body_type.to_bytes(2, "little") + size.to_bytes(4, "little") + body


def certified(
    qe_report: bytes,
    qe_signature: bytes,
    auth_data: bytes,
    certification: bytes,
    *,
    kind: int = CertificationType.PCK_CHAIN,
) -> bytes:
    """Give who made the attestation key: the quoting enclave's report, signed by the platform's key."""
    return b"".join(
        [
            qe_report,
            qe_signature,
            len(auth_data).to_bytes(2, "little"),
            auth_data,
            kind.to_bytes(2, "little"),
            len(certification).to_bytes(4, "little"),
            certification,
        ]
    )


def quote(
    signed: bytes,
    signature: bytes,
    attestation_key: bytes,
    by: bytes,
    *,
    outer_kind: int = CertificationType.QE_REPORT,
) -> bytes:
    """Give the whole quote; from version 4 on ``by`` (``certified``) is wrapped once more."""
    if int.from_bytes(signed[:2], "little") > 3:
        by = outer_kind.to_bytes(2, "little") + len(by).to_bytes(4, "little") + by
    data = signature + attestation_key + by
    return signed + len(data).to_bytes(4, "little") + data


def tee_type_of(body_type: BodyType) -> TeeType:
    """Give the TEE whose reports have this form."""
    return TeeType.SGX if body_type is BodyType.SGX else TeeType.TDX
