"""Writing and signing an ATTESTATION_REPORT (AMD 56860, table "ATTESTATION_REPORT")."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from enarx.attest.snp._report import LAYOUTS, REPORT_BYTES, SIGNED_BYTES
from enarx_emulator.errors import EmulatorError

_SIGNATURE = ec.ECDSA(hashes.SHA384(), deterministic_signing=True)


def pack_report(fields: Mapping[str, int | bytes], key: ec.EllipticCurvePrivateKey | None) -> bytes:
    """Make a report of the version that ``fields`` names; numbers are little endian, absent fields are zero.

    Without ``key``, or with ``signature_r`` or ``signature_s`` among the fields, that part is not signed.
    """
    version = fields["version"]
    layout = LAYOUTS.get(version if isinstance(version, int) else -1)
    if layout is None:
        raise EmulatorError(f"report version is {version!r}, expected one of {', '.join(map(str, LAYOUTS))}")
    raw = bytearray(REPORT_BYTES)

    def put(name: str, value: int | bytes) -> None:
        at = layout.fields[name]
        whole = value.to_bytes(len(at), "little") if isinstance(value, int) else value.ljust(len(at), b"\0")
        if len(whole) != len(at):
            raise EmulatorError(f"report: {name} has {len(whole)} bytes, expected {len(at)}")
        raw[at.start : at.stop] = whole

    for name, value in fields.items():
        put(name, value)
    if key is not None:
        r, s = decode_dss_signature(key.sign(bytes(raw[:SIGNED_BYTES]), _SIGNATURE))
        put("signature_r", fields.get("signature_r", r))
        put("signature_s", fields.get("signature_s", s))
    return bytes(raw)


def pack_certificate_table(entries: Mapping[bytes, bytes]) -> bytes:
    """Make the table of an extended report from GUIDs (16 bytes, little-endian form) and certificates in DER."""
    head, body = b"", b""
    first = 24 * (len(entries) + 1)
    for guid, certificate in entries.items():
        head += guid + (first + len(body)).to_bytes(4, "little") + len(certificate).to_bytes(4, "little")
        body += certificate
    return head + bytes(24) + body
