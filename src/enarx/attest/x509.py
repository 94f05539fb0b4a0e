"""Certificates as values: read strictly, kept with the bytes that were signed. Chains are in ``chain``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from enarx.attest.der import Der, Tag, only
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


_HASH: Final[Mapping[SignatureAlgorithm, hashes.HashAlgorithm]] = {
    algorithm: {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[
        algorithm.name.partition("_SHA")[2][:3]
    ]
    for algorithm in SignatureAlgorithm
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """One extension of a certificate: whether it is critical, and its value as it was encoded."""

    critical: bool
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """An X.509 v3 certificate (RFC 5280). Names are the DER that is compared; nothing here was verified."""

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
    found: list[tuple[str, str]] = []
    sets = only(name, Tag.SEQUENCE, name="name")
    while sets.more():
        members = sets.inside(Tag.SET, "relative name")
        while members.more():
            pair = members.inside(Tag.SEQUENCE, "attribute")
            found.append((pair.oid("type"), pair.text("value")))
            pair.end()
    return found


@lru_cache(maxsize=256)
def _common_name(name: bytes) -> str:
    return dict(name_attributes(name)).get("2.5.4.3", "")


@lru_cache(maxsize=256)
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
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(
        key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1
    ):
        return key
    raise MalformedCollateral(f"public key is of a kind that no vendor uses: {type(key).__name__}")


def signed_by(spki: bytes, algorithm: SignatureAlgorithm, signature: bytes, signed: bytes) -> bool:
    """Say whether the key made the signature: a pure fact, fit for ``Cache.remember`` inside a check that
    raises.
    """
    key = load_public_key(spki)
    digest = _HASH[algorithm]
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            if algorithm.name.startswith("ECDSA"):
                key.verify(signature, signed, ec.ECDSA(digest))
                return True
        elif algorithm.name.startswith("RSA_PSS"):
            pss = padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
            key.verify(signature, signed, pss, digest)
            return True
        elif algorithm.name.startswith("RSA_PKCS1"):
            key.verify(signature, signed, padding.PKCS1v15(), digest)
            return True
    except InvalidSignature:
        return False
    return False


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
    whole = at.any()[2]
    try:
        return SignatureAlgorithm(whole)
    except ValueError:
        raise at.bad("a signature algorithm that no vendor uses") from None


def _name(at: Der, field: str) -> bytes:
    if at.peek() != Tag.SEQUENCE:
        raise at.bad(f"{field} is no name")
    return at.any()[2]


def read_extensions(explicit: Der) -> dict[str, Extension]:
    listed = explicit.inside(Tag.SEQUENCE, "list")
    explicit.end()
    found: dict[str, Extension] = {}
    while listed.more():
        one = listed.inside(Tag.SEQUENCE, "extension")
        oid = one.oid("oid")
        critical = one.peek() == Tag.BOOLEAN and one.boolean("critical")
        if oid in found:
            raise listed.bad(f"extension {oid} occurs twice")
        found[oid] = Extension(critical=critical, value=one.take(Tag.OCTET_STRING, "value"))
        one.end()
    return found
