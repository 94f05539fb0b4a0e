"""PCK certificates as Intel writes them, and the certificates and names around them; all say EMULATED.

Source: Intel, "SGX PCK Certificate and Certificate Revocation List Profile Specification".
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

ORGANIZATION: Final = "EMULATED, not Intel Corporation"
_ARC: Final = bytes.fromhex("2a864886f84d010d01")
"""1.2.840.113741.1.13.1 in DER."""


def intel_name(common_name: str, *, organization: str = ORGANIZATION) -> x509.Name:
    """Give a name as Intel writes it."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        ]
    )


def tlv(tag: int, *contents: bytes) -> bytes:
    """Give one element of DER."""
    value = b"".join(contents)
    size = len(value)
    if size < 0x80:
        return bytes([tag, size]) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + value


def der_integer(value: int) -> bytes:
    """Give an INTEGER that is not negative."""
    return tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def item(suffix: bytes, value: bytes) -> bytes:
    """Give one pair of the SGX extension: an OID under 1.2.840.113741.1.13.1, and a value."""
    return tlv(0x30, tlv(6, _ARC + suffix), value)


def tcb_items(components: bytes, pce_svn: int, cpu_svn: bytes) -> list[bytes]:
    """Give the eighteen parts of the TCB."""
    parts = [item(bytes([2, at]), der_integer(svn)) for at, svn in enumerate(components, 1)]
    return [*parts, item(b"\x02\x11", der_integer(pce_svn)), item(b"\x02\x12", tlv(4, cpu_svn))]


def sgx_items(
    *,
    fmspc: bytes,
    pce_id: bytes,
    ppid: bytes,
    sgx_type: int,
    tcb: Sequence[bytes],
    instance: bytes | None,
    bits: Mapping[int, bool],
) -> list[bytes]:
    """Give the parts of the SGX extension; without ``instance`` those of a single-package platform.

    ``bits``: 1 dynamic platform, 2 cached keys, 3 SMT.
    """
    made = [
        item(b"\x01", tlv(4, ppid)),
        item(b"\x02", tlv(0x30, *tcb)),
        item(b"\x03", tlv(4, pce_id)),
        item(b"\x04", tlv(4, fmspc)),
        item(b"\x05", tlv(0x0A, bytes([sgx_type]))),
    ]
    if instance is not None:
        values = [item(bytes([7, at]), tlv(1, b"\xff" if bit else b"\x00")) for at, bit in bits.items()]
        made += [item(b"\x06", tlv(4, instance)), item(b"\x07", tlv(0x30, *values))]
    return made


def usual_extensions(
    key: ec.EllipticCurvePrivateKey, issuer: ec.EllipticCurvePrivateKey, crl: str
) -> list[tuple[str, bool, bytes]]:
    """Give what all of Intel's certificates have: both key identifiers, and where the revocation list is."""
    location = tlv(0x30, tlv(0x30, tlv(0xA0, tlv(0xA0, tlv(0x86, crl.encode())))))
    return [
        authority_key(issuer),
        ("2.5.29.31", False, location),
        ("2.5.29.14", False, tlv(4, _key_id(key))),
    ]


def authority_key(issuer: ec.EllipticCurvePrivateKey) -> tuple[str, bool, bytes]:
    """Give the authority key identifier, which revocation lists have too."""
    return ("2.5.29.35", False, tlv(0x30, tlv(0x80, _key_id(issuer))))


def _key_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    """RFC 5280, section 4.2.1.2, method 1."""
    raw = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return hashlib.sha1(raw, usedforsecurity=False).digest()


def pem(*ders: bytes, label: str = "CERTIFICATE") -> bytes:
    """Give certificates in PEM, as the quoting enclave is given them."""
    blocks = []
    for der in ders:
        text = base64.b64encode(der)
        lines = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
        name = label.encode()
        blocks.append(b"-----BEGIN " + name + b"-----\n" + lines + b"\n-----END " + name + b"-----\n")
    return b"".join(blocks)


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Give x and y of the public key, 32 bytes each."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
