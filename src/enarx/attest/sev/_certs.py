"""Certificates of legacy SEV platforms: AMD's own two formats, little endian.

Source: AMD 55766 (SEV API), appendix B (ASK, ARK) and C (PDH, PEK, OCA, CEK).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enarx.attest.errors import MalformedEvidence
from enarx.tcb.wire import Layout

CERTIFICATE_BYTES: Final = 2084
SIGNED_BYTES: Final = 0x414
ROOT_HEAD_BYTES: Final = 0x40
_CERTIFICATE: Final = Layout(
    name="sev certificate",
    size=CERTIFICATE_BYTES,
    fields={
        "version": range(0x004),
        "api": range(0x004, 0x006),
        "usage": range(0x008, 0x00C),
        "algorithm": range(0x00C, 0x010),
        "curve": range(0x010, 0x014),
        "qx": range(0x014, 0x05C),
        "qy": range(0x05C, 0x0A4),
        "signature_1": range(0x414, 0x61C),
        "signature_2": range(0x61C, CERTIFICATE_BYTES),
    },
    reserved=(range(0x006, 0x008), range(0x0A4, 0x414)),
)
_CURVES: Final[dict[int, ec.EllipticCurve]] = {1: ec.SECP256R1(), 2: ec.SECP384R1()}
_SIZES: Final = {2048: SHA256, 4096: SHA384}


class Usage(IntEnum):
    """What a key is for; a signature names the usage of its signer."""

    ARK = 0
    ASK = 0x13
    EMPTY = 0x1000
    OCA = 0x1001
    PEK = 0x1002
    PDH = 0x1003
    CEK = 0x1004


class Algorithm(IntEnum):
    """Of a key or a signature."""

    NONE = 0
    RSA_SHA256 = 1
    ECDSA_SHA256 = 2
    ECDH_SHA256 = 3
    RSA_SHA384 = 0x101
    ECDSA_SHA384 = 0x102
    ECDH_SHA384 = 0x103


_RSA: Final[dict[Algorithm, HashAlgorithm]] = {
    Algorithm.RSA_SHA256: SHA256(),
    Algorithm.RSA_SHA384: SHA384(),
}
_ECDSA: Final[dict[Algorithm, HashAlgorithm]] = {
    Algorithm.ECDSA_SHA256: SHA256(),
    Algorithm.ECDSA_SHA384: SHA384(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One of the two places for a signature; ``value`` has 512 bytes."""

    usage: Usage
    algorithm: Algorithm
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SevCertificate:
    """PDH, PEK, OCA or CEK."""

    api: tuple[int, int]
    usage: Usage
    algorithm: Algorithm
    key: ec.EllipticCurvePublicKey
    signatures: tuple[Signature, Signature]
    signed: bytes = field(repr=False)

    def signatures_of(self, signer: Usage) -> tuple[Signature, ...]:
        """Those that say they are by ``signer``, wherever they stand."""
        return tuple(one for one in self.signatures if one.usage is signer)


@dataclass(frozen=True, slots=True, kw_only=True)
class AmdCertificate:
    """ARK or ASK."""

    key_id: bytes
    certifying_id: bytes
    usage: Usage
    key: rsa.RSAPublicKey
    signed: bytes = field(repr=False)
    signature: bytes | None
    """Big endian. ``None``: the ARK of Naples as AMD published it, which has none."""

    @property
    def raw(self) -> bytes:
        """The bytes that were read."""
        return self.signed + (self.signature or b"")[::-1]

    @property
    def spki(self) -> bytes:
        """The key as DER SubjectPublicKeyInfo, by which roots are pinned."""
        return self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def parse_certificate(data: bytes) -> SevCertificate:
    """Read 2084 bytes. Raises ``Malformed``."""
    fields = _CERTIFICATE.split(data)
    if _number(fields["version"]) != 1:
        raise MalformedEvidence(f"sev certificate: version is {_number(fields['version'])}, expected 1")
    curve = _CURVES.get(_number(fields["curve"]))
    if curve is None:
        raise MalformedEvidence(f"sev certificate: curve is {_number(fields['curve'])}, expected 1 or 2")
    try:
        numbers = ec.EllipticCurvePublicNumbers(_number(fields["qx"]), _number(fields["qy"]), curve)
        key = numbers.public_key()
    except ValueError:
        raise MalformedEvidence("sev certificate: the point is not on its curve") from None
    return SevCertificate(
        api=(fields["api"][0], fields["api"][1]),
        usage=_usage(fields["usage"]),
        algorithm=_algorithm(fields["algorithm"]),
        key=key,
        signatures=(_signature(fields["signature_1"]), _signature(fields["signature_2"])),
        signed=data[:SIGNED_BYTES],
    )


def parse_amd_certificate(data: bytes) -> AmdCertificate:
    """Read an ASK or ARK of 832 or 1600 bytes, or an ARK of 576 without its signature. Raises ``Malformed``."""
    bits = _number(data[0x3C:0x40])
    if (
        bits not in _SIZES
        or _number(data[0x38:0x3C]) != bits
        or _number(data[:4]) != 1
        or any(data[0x28:0x38])
    ):
        raise MalformedEvidence("amd certificate: version, key size or reserved bytes are not those known")
    size, body = bits // 8, ROOT_HEAD_BYTES + bits // 4
    usage = _usage(data[0x24:0x28])
    if len(data) != body + size and not (len(data) == body and usage is Usage.ARK and bits == 2048):
        raise MalformedEvidence(f"amd certificate: expected {body + size} bytes, got {len(data)}")
    exponent, modulus = _number(data[0x40 : 0x40 + size]), _number(data[0x40 + size : body])
    if exponent != 65537 or modulus.bit_length() != bits or modulus % 2 == 0:
        raise MalformedEvidence("amd certificate: exponent is not 65537, or the modulus has another size")
    return AmdCertificate(
        key_id=data[0x04:0x14],
        certifying_id=data[0x14:0x24],
        usage=usage,
        key=rsa.RSAPublicNumbers(exponent, modulus).public_key(),
        signed=data[:body],
        signature=data[body:][::-1] or None,
    )


def signed_by_amd(key: rsa.RSAPublicKey, signature: bytes, signed: bytes, digest: HashAlgorithm) -> bool:
    """Tell whether RSASSA-PSS (MGF1 of the same hash, salt as long as it) of ``key`` holds."""
    scheme = padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
    try:
        key.verify(signature, signed, scheme, digest)
    except InvalidSignature:
        return False
    return True


def amd_digest(key: rsa.RSAPublicKey) -> HashAlgorithm:
    """Give the hash that AMD uses with keys of this size."""
    return _SIZES[key.key_size]()


def signed_by_ask(ask: AmdCertificate, signature: Signature, signed: bytes) -> bool:
    """Tell whether an ASK made ``signature``; another algorithm than that of its key size does not hold."""
    size, digest = ask.key.key_size // 8, _RSA.get(signature.algorithm)
    if digest is None or digest.name != amd_digest(ask.key).name or any(signature.value[size:]):
        return False
    return signed_by_amd(ask.key, signature.value[:size][::-1], signed, digest)


def signed_by_platform(key: ec.EllipticCurvePublicKey, signature: Signature, signed: bytes) -> bool:
    """Tell whether ECDSA of ``key`` holds."""
    digest = _ECDSA.get(signature.algorithm)
    if digest is None or any(signature.value[144:]):
        return False
    r, s = _number(signature.value[:72]), _number(signature.value[72:144])
    try:
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))
    except InvalidSignature:
        return False
    return True


def _signature(data: bytes) -> Signature:
    usage, algorithm = _usage(data[:4]), _algorithm(data[4:8])
    if usage is Usage.EMPTY and any(data[4:]):
        raise MalformedEvidence("sev certificate: the place of an absent signature is not zero")
    return Signature(usage=usage, algorithm=algorithm, value=data[8:])


def _usage(data: bytes) -> Usage:
    try:
        return Usage(_number(data))
    except ValueError:
        raise MalformedEvidence(f"sev certificate: usage {_number(data):#x} is unknown") from None


def _algorithm(data: bytes) -> Algorithm:
    try:
        return Algorithm(_number(data))
    except ValueError:
        raise MalformedEvidence(f"sev certificate: algorithm {_number(data):#x} is unknown") from None


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
