"""What AMD writes into its certificates: names, and the extensions of a VCEK or VLEK (AMD 57230)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

_Key = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
AMD_ARC: Final = "1.3.6.1.4.1.3704.1."
COMMENT: Final = "2.16.840.1.113730.1.13"
"""A comment for people, since a verifier demands that names are exactly AMD's."""
_IA5_STRING: Final = 0x16
_SPL: Final = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
_SPARE: Final = {0: ("3.4", "3.5", "3.6", "3.7"), 1: ("3.5", "3.6", "3.7")}


def amd_name(common_name: str) -> x509.Name:
    """A name as AMD writes it."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def comment(text: str) -> tuple[str, bool, bytes]:
    """An extension that only people read."""
    return COMMENT, False, _text(text)


def key_identifier(key: _Key) -> tuple[str, bool, bytes]:
    """Which key a certificate is for (RFC 5280, 4.2.1.2)."""
    made = x509.SubjectKeyIdentifier.from_public_key(key)
    return x509.SubjectKeyIdentifier.oid.dotted_string, False, made.public_bytes()


def issuer_identifier(key: _Key) -> tuple[str, bool, bytes]:
    """Which key signed (RFC 5280, 4.2.1.1)."""
    made = x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return x509.AuthorityKeyIdentifier.oid.dotted_string, False, made.public_bytes()


def list_location(path: str) -> tuple[str, bool, bytes]:
    """Where the issuer's revocation list is, below a host name that leads nowhere (RFC 2606)."""
    name = x509.UniformResourceIdentifier(f"https://emulated.invalid{path}")
    point = x509.DistributionPoint(full_name=[name], relative_name=None, reasons=None, crl_issuer=None)
    made = x509.CRLDistributionPoints([point])
    return x509.CRLDistributionPoints.oid.dotted_string, False, made.public_bytes()


def endorsement_extensions(
    *,
    product: str,
    tcb: Mapping[str, int],
    hwid: bytes | None = None,
    csp_id: str | None = None,
    structure: int = 0,
) -> dict[str, bytes]:
    """The extensions of a VCEK (``hwid``) or VLEK (``csp_id``) by their arcs below ``AMD_ARC``.

    ``structure``: 0 before Turin, 1 from Turin on. The hardware id is not wrapped in DER, as in real certificates.
    """
    made = {"1": _number(structure), "2": _text(product)}
    made |= {_SPL[name]: _number(value) for name, value in tcb.items()}
    made |= dict.fromkeys(_SPARE[structure], _number(0))
    if hwid is not None:
        made["4"] = hwid
    if csp_id is not None:
        made["5"] = _text(csp_id)
    return made


def _number(value: int) -> bytes:
    return bytes((2, 1, value)) if value < 0x80 else bytes((2, 2, 0, value))


def _text(text: str) -> bytes:
    return bytes((_IA5_STRING, len(text))) + text.encode("ascii")
