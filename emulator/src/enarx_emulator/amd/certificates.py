"""Certificates of legacy SEV in AMD's own two formats, as the firmware, the vendor and owners sign them.

Source: AMD 55766 (SEV API), appendix B and C.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from enarx.attest.sev._certs import Algorithm, Usage, amd_digest

SIGNATURE_BYTES: Final = 520
KEY_ID_BYTES: Final = 16


def amd_certificate(
    usage: int, key: rsa.RSAPublicKey, signer: rsa.RSAPrivateKey, *, key_id: bytes, certifying_id: bytes
) -> bytes:
    """Make an ARK or ASK (832 bytes with 2048 bits, 1600 with 4096); both ids have at most 16 bytes."""
    public, size = key.public_numbers(), key.key_size // 8
    ids = key_id.ljust(KEY_ID_BYTES, b"\0") + certifying_id.ljust(KEY_ID_BYTES, b"\0")
    head = (1).to_bytes(4, "little") + ids + usage.to_bytes(4, "little") + bytes(16)
    numbers = public.e.to_bytes(size, "little") + public.n.to_bytes(size, "little")
    signed = head + key.key_size.to_bytes(4, "little") * 2 + numbers
    return signed + _rsa(signer, signed)[::-1]


def by_platform(signed: bytes, usage: int, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Sign as OCA, PEK or CEK (520 bytes): ECDSA with SHA-256, deterministic."""
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(SHA256(), deterministic_signing=True)))
    value = r.to_bytes(72, "little") + s.to_bytes(72, "little")
    return (_role(usage, Algorithm.ECDSA_SHA256) + value).ljust(SIGNATURE_BYTES, b"\0")


def by_ask(signed: bytes, key: rsa.RSAPrivateKey) -> bytes:
    """Sign as ASK (520 bytes)."""
    algorithm = Algorithm.RSA_SHA384 if key.key_size == 4096 else Algorithm.RSA_SHA256
    return (_role(Usage.ASK, algorithm) + _rsa(key, signed)[::-1]).ljust(SIGNATURE_BYTES, b"\0")


def _role(usage: int, algorithm: Algorithm) -> bytes:
    return usage.to_bytes(4, "little") + algorithm.to_bytes(4, "little")


def _rsa(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    digest = amd_digest(key.public_key())
    scheme = padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
    return key.sign(data, scheme, digest)
