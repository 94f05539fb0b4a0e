"""Certificates as values: read strictly, kept with the bytes that were signed. Chains are in ``chain``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.serialization import load_der_public_key

from enarx.attest.der import BOOLEANS, Der, Tag, dotted_oid, elements, only, read_text
from enarx.attest.errors import MalformedCollateral

MAX_CERTIFICATE_BYTES: Final = 16 * 1024
"""Vendor certificates have 0.6 to 3 KiB."""

BASIC_CONSTRAINTS: Final = "2.5.29.19"
KEY_USAGE: Final = "2.5.29.15"

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
"""The kinds of key that vendors use."""


class SignatureAlgorithm(Enum):
    """The closed list of signatures on certificates and revocation lists; the value is the DER of the
    identifier.
    """

    __hash__ = object.__hash__  # one object a member; it stands in many keys of the cache

    RSA_PSS_SHA384 = bytes.fromhex(
        "304106092a864886f70d01010a3034a00f300d06096086480165030402020500"
        "a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130"
    )
    RSA_PSS_SHA384_TRAILER = bytes.fromhex(
        "304606092a864886f70d01010a3039a00f300d06096086480165030402020500"
        "a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130a303020101"
    )
    ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
    ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
    RSA_PKCS1_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")
    RSA_PKCS1_SHA384 = bytes.fromhex("300d06092a864886f70d01010c0500")
    RSA_PKCS1_SHA512 = bytes.fromhex("300d06092a864886f70d01010d0500")


_ALGORITHMS: Final[Mapping[bytes, SignatureAlgorithm]] = {one.value: one for one in SignatureAlgorithm}
_SHA256, _SHA384, _SHA512 = hashes.SHA256(), hashes.SHA384(), hashes.SHA512()
_PSS_SHA384 = padding.PSS(mgf=padding.MGF1(_SHA384), salt_length=_SHA384.digest_size)

_ECDSA: Final[Mapping[SignatureAlgorithm, ec.ECDSA]] = {
    SignatureAlgorithm.ECDSA_SHA256: ec.ECDSA(_SHA256),
    SignatureAlgorithm.ECDSA_SHA384: ec.ECDSA(_SHA384),
}
_RSA: Final[Mapping[SignatureAlgorithm, tuple[AsymmetricPadding, hashes.HashAlgorithm]]] = {
    SignatureAlgorithm.RSA_PSS_SHA384: (_PSS_SHA384, _SHA384),
    SignatureAlgorithm.RSA_PSS_SHA384_TRAILER: (_PSS_SHA384, _SHA384),
    SignatureAlgorithm.RSA_PKCS1_SHA256: (padding.PKCS1v15(), _SHA256),
    SignatureAlgorithm.RSA_PKCS1_SHA384: (padding.PKCS1v15(), _SHA384),
    SignatureAlgorithm.RSA_PKCS1_SHA512: (padding.PKCS1v15(), _SHA512),
}
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")


class Extension(NamedTuple):
    """One extension of a certificate: whether it is critical, and its value as it was encoded."""

    critical: bool
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Certificate:
    """An X.509 v3 certificate (RFC 5280). Names are the DER that is compared; nothing here was verified.

    Two are equal if their DER is: all else follows from it.
    """

    der: bytes
    tbs: bytes
    serial: int
    issuer: bytes
    subject: bytes
    not_before: datetime
    not_after: datetime
    spki: bytes
    algorithm: SignatureAlgorithm
    signature: bytes
    extensions: Mapping[str, Extension]
    is_ca: bool
    path_length: int | None
    key_usage: int | None
    """The first byte of the bit string: digitalSignature 0x80, …, keyCertSign 0x04, cRLSign 0x02."""

    @property
    def spki_sha256(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo: how trust anchors are pinned."""
        return hashlib.sha256(self.spki).digest()

    @property
    def common_name(self) -> str:
        """The CN of the subject, or empty."""
        return _common_name(self.subject)

    @property
    def issuer_common_name(self) -> str:
        """The CN of the issuer, or empty."""
        return _common_name(self.issuer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Certificate) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.der)

    def __str__(self) -> str:
        return self.common_name


def parse_certificate(der: bytes) -> Certificate:
    """Read one certificate. Raises ``MalformedCollateral``."""
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise MalformedCollateral(
            f"certificate has {len(der)} bytes, at most {MAX_CERTIFICATE_BYTES} are allowed"
        )
    outer = only(der, Tag.SEQUENCE, name="certificate")
    if outer.peek() != Tag.SEQUENCE:
        raise outer.bad("no body")
    body, tbs = outer.any()[1:]
    algorithm = read_algorithm(outer)
    signature = outer.bits("signature")
    outer.end()

    at = Der(body, name="certificate")
    version = at.inside(0xA0, "version")
    if version.integer("version") != 2:
        raise version.bad("only X.509 version 3 is known")
    version.end()
    serial = at.integer("serial")
    if read_algorithm(at) is not algorithm:
        raise at.bad("the two signature algorithms differ")
    issuer = _name(at, "issuer")
    validity = at.inside(Tag.SEQUENCE, "validity")
    not_before, not_after = validity.time("not before"), validity.time("not after")
    validity.end()
    subject = _name(at, "subject")
    if at.peek() != Tag.SEQUENCE:
        raise at.bad("no public key")
    spki = at.any()[2]
    for unique_id in (0x81, 0x82):
        if at.peek() == unique_id:
            raise at.bad("unique identifiers are obsolete")
    extensions = read_extensions(at.inside(0xA3, "extensions")) if at.more() else {}
    at.end()
    is_ca, path_length = _basic_constraints(extensions)
    return Certificate(
        der=der,
        tbs=tbs,
        serial=serial,
        issuer=issuer,
        subject=subject,
        not_before=not_before,
        not_after=not_after,
        spki=spki,
        algorithm=algorithm,
        signature=signature,
        extensions=MappingProxyType(extensions),
        is_ca=is_ca,
        path_length=path_length,
        key_usage=_key_usage(extensions),
    )


def name_attributes(name: bytes) -> list[tuple[str, str]]:
    """List the attributes of a distinguished name in order: dotted OID and text. Raises
    ``MalformedCollateral``.
    """
    at = Der(name, name="name")
    sets = elements(at.take(Tag.SEQUENCE, "outer"), name="name")
    at.end()
    return [attribute for tag, one in sets for attribute in _relative_name(tag, one)]


@lru_cache(maxsize=256)
def _relative_name(tag: int, value: bytes) -> tuple[tuple[str, str], ...]:
    """Read what one authority says alike in all its names: its country, its town, itself."""
    if tag != Tag.SET:
        raise MalformedCollateral("name: a relative name that is no set")
    found: list[tuple[str, str]] = []
    for kind, member in elements(value, name="relative name"):
        pair = elements(member, name="attribute")
        if kind != Tag.SEQUENCE or len(pair) != 2 or pair[0][0] != Tag.OID:
            raise MalformedCollateral("name: an attribute that is not type and value")
        oid, text = dotted_oid(pair[0][1]), read_text(*pair[1])
        if oid is None or text is None:
            raise MalformedCollateral("name: an attribute that is no text, or of no object identifier")
        found.append((oid, text))
    return tuple(found)


@lru_cache(maxsize=256)
def _common_name(name: bytes) -> str:
    return dict(name_attributes(name)).get("2.5.4.3", "")


def load_public_key(spki: bytes) -> PublicKey:
    """Make a key from a SubjectPublicKeyInfo. Raises ``MalformedCollateral`` for a kind that vendors do not
    use.
    """
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        raise MalformedCollateral(
            "public key is not one that can be used, or not a point of its curve"
        ) from None
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192:
        return key
    raise MalformedCollateral(f"public key is of a kind that no vendor uses: {type(key).__name__}")


def signed_by(
    spki: bytes,
    algorithm: SignatureAlgorithm,
    signature: bytes,
    signed: bytes,
    *,
    load: Callable[[bytes], PublicKey] = load_public_key,
) -> bool:
    """Say whether the key made the signature: a pure fact, which ``Context.is_signed`` remembers."""
    key = load(spki)
    try:
        if (ecdsa := _ECDSA.get(algorithm)) is not None:
            if not isinstance(key, ec.EllipticCurvePublicKey):
                return False
            key.verify(signature, signed, ecdsa)
        else:
            if not isinstance(key, rsa.RSAPublicKey):
                return False
            key.verify(signature, signed, *_RSA[algorithm])
    except InvalidSignature:
        return False
    return True


def _basic_constraints(extensions: Mapping[str, Extension]) -> tuple[bool, int | None]:
    extension = extensions.get(BASIC_CONSTRAINTS)
    if extension is None:
        return False, None
    at = only(extension.value, Tag.SEQUENCE, name="basicConstraints")
    is_ca = at.peek() == Tag.BOOLEAN and at.boolean("cA")
    path_length = at.small("pathLen", most=255) if at.more() else None
    at.end()
    return is_ca, path_length


def _key_usage(extensions: Mapping[str, Extension]) -> int | None:
    extension = extensions.get(KEY_USAGE)
    if extension is None:
        return None
    at = Der(extension.value, name="keyUsage")
    value = at.take(Tag.BIT_STRING, "bits")
    at.end()
    if len(value) < 2 or value[0] > 7:
        raise at.bad("no bits")
    return value[1]


def read_algorithm(at: Der) -> SignatureAlgorithm:
    algorithm = _ALGORITHMS.get(at.any()[2])
    if algorithm is None:
        raise at.bad("a signature algorithm that no vendor uses")
    return algorithm


def _name(at: Der, field: str) -> bytes:
    if at.peek() != Tag.SEQUENCE:
        raise at.bad(f"{field} is no name")
    return at.any()[2]


def read_extensions(explicit: Der) -> dict[str, Extension]:
    listed = elements(explicit.take(Tag.SEQUENCE, "list"), name="extensions")
    explicit.end()
    found: dict[str, Extension] = {}
    for tag, one in listed:
        parts = elements(one, name="extension")
        critical = False
        if len(parts) == 3 and parts[1] in BOOLEANS:
            critical = parts.pop(1) == BOOLEANS[1]
        if (
            tag != Tag.SEQUENCE
            or len(parts) != 2
            or parts[0][0] != Tag.OID
            or parts[1][0] != Tag.OCTET_STRING
        ):
            raise explicit.bad("an extension that is not identifier, perhaps criticality, and value")
        oid = dotted_oid(parts[0][1])
        if oid is None or oid in found:
            raise explicit.bad(f"extension {oid} is no object identifier or occurs twice")
        found[oid] = Extension(critical, parts[1][1])
    return found
