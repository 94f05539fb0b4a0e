"""Arm CCA attestation tokens (Arm DEN0137, "Realm Management Monitor", A7.2; draft-ffm-rats-cca-token-03).

A token is CBOR tag 399 on a map of two COSE_Sign1: the platform's, by the platform attestation key (CPAK), and the
realm's, by the realm attestation key (RAK), whose hash is the platform's challenge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec

from enarx.attest._cose import ES256, ES384, SIGN1_TAG, Sign1, decode, parse_sign1
from enarx.attest.errors import MalformedEvidence

COLLECTION_TAG: Final = 399
_PLATFORM: Final = 44234
_REALM: Final = 44241
CHALLENGE_BYTES: Final = 64
PERSONALIZATION_BYTES: Final = 64
IMPLEMENTATION_ID_BYTES: Final = 32
INSTANCE_ID_BYTES: Final = 33
DIGEST_BYTES: Final = (32, 48, 64)
_REGISTERS: Final = ("rim", "rem0", "rem1", "rem2", "rem3")
MAX_COMPONENTS: Final = 64
"""Software components of a platform; genuine tokens have 4 to 13."""
MAX_CONFIG_BYTES: Final = 1024
MAX_TEXT: Final = 1024

PLATFORM_PROFILES: Final = frozenset({"http://arm.com/CCA-SSD/1.0.0", "tag:arm.com,2023:cca_platform#1.0.0"})
REALM_PROFILES: Final = frozenset({"tag:arm.com,2023:realm#1.0.0"})
"""Realm tokens of before the profile have no name for what they follow."""
_UEID_RANDOM: Final = 0x01
_KEY_ALGORITHM: Final = 3


class HashAlgorithm(Enum):
    """Hashes by their names in the IANA registry of named information."""

    SHA256 = "sha-256"
    SHA384 = "sha-384"
    SHA512 = "sha-512"


class Lifecycle(Enum):
    """States of the platform; the number in a token has the state in its high byte (Arm DEN0137, A7.2.3)."""

    UNKNOWN = "unknown"
    ASSEMBLY_AND_TEST = "assembly-and-test"
    PLATFORM_ROT_PROVISIONING = "cca-platform-rot-provisioning"
    SECURED = "secured"
    NON_CCA_PLATFORM_DEBUG = "non-cca-platform-rot-debug"
    RECOVERABLE_PLATFORM_DEBUG = "recoverable-cca-platform-rot-debug"
    DECOMMISSIONED = "decommissioned"


_LIFECYCLES: Final = {at << 4: state for at, state in enumerate(Lifecycle)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareComponent:
    """One piece of the platform's firmware."""

    component_type: str | None
    measurement_value: bytes
    version: str | None
    signer_id: bytes
    hash_algorithm: HashAlgorithm | None

    def fields(self) -> dict[str, object]:
        """Every field by name."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformToken:
    """What the platform says of itself; nothing of it is true yet."""

    message: Sign1
    profile: str
    challenge: bytes
    implementation_id: bytes
    instance_id: bytes
    config: bytes
    security_lifecycle: int
    hash_algorithm: HashAlgorithm
    software_components: tuple[SoftwareComponent, ...]
    verification_service: str | None
    unknown: Mapping[str, object]
    """Claims that this release does not know, by their keys: a profile may be extended by them."""

    @property
    def lifecycle(self) -> Lifecycle:
        """The state that the number stands for."""
        return _LIFECYCLES[self.security_lifecycle >> 8]

    @property
    def measurements(self) -> frozenset[bytes]:
        """The values of all software components."""
        return frozenset(one.measurement_value for one in self.software_components)

    @property
    def signers(self) -> frozenset[bytes]:
        """The signers of all software components."""
        return frozenset(one.signer_id for one in self.software_components)

    def fields(self) -> dict[str, object]:
        """Every field by name."""
        components = {
            f"software_components.{at}.{name}": value
            for at, one in enumerate(self.software_components)
            for name, value in one.fields().items()
        }
        return {
            **_plain(self, without=("message", "software_components", "unknown")),
            **components,
            **self.unknown,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RealmToken:
    """What the Realm Management Monitor says of a realm; nothing of it is true yet."""

    message: Sign1
    profile: str | None
    challenge: bytes
    personalization_value: bytes
    hash_algorithm: HashAlgorithm
    public_key: bytes
    """The RAK as the token has it, which is what the platform hashes: a point, or a COSE_Key."""
    public_key_hash_algorithm: HashAlgorithm
    rim: bytes
    rem0: bytes
    rem1: bytes
    rem2: bytes
    rem3: bytes
    key: ec.EllipticCurvePublicKey
    """The same key, read: on its curve."""
    unknown: Mapping[str, object]

    @property
    def measurements(self) -> dict[str, bytes]:
        """The registers by name."""
        return {name: getattr(self, name) for name in _REGISTERS}

    def fields(self) -> dict[str, object]:
        """Every field by name, but for the challenge."""
        return {**_plain(self, without=("message", "challenge", "key", "unknown")), **self.unknown}


@dataclass(frozen=True, slots=True, kw_only=True)
class CcaToken:
    """Both tokens; nothing here was verified."""

    platform: PlatformToken
    realm: RealmToken

    def fields(self) -> Mapping[str, object]:
        """Every field. The realm's challenge is called ``report_data``, the name under which binding judges it."""
        return {
            "report_data": self.realm.challenge,
            **{f"realm.{name}": value for name, value in self.realm.fields().items()},
            **{f"platform.{name}": value for name, value in self.platform.fields().items()},
        }


def parse_token(data: bytes) -> CcaToken:
    """Read a token. Raises ``MalformedEvidence``."""
    match decode(data, "cca token"):
        case cbor2.CBORTag(tag=399, value={44234: bytes() as platform, 44241: bytes() as realm, **rest}) if (
            not rest
        ):
            pass
        case _:
            raise MalformedEvidence(
                f"cca token: expected tag {COLLECTION_TAG} on a map of {_PLATFORM} and {_REALM}, both byte strings"
            )
    return CcaToken(platform=parse_platform(platform), realm=parse_realm(realm))


def parse_platform(data: bytes) -> PlatformToken:
    """Read the platform's token. Raises ``MalformedEvidence``."""
    message = _message(data, "platform token")
    claims = _Claims(message.payload, "platform claims")
    profile = claims.text(265)
    if profile not in PLATFORM_PROFILES:
        raise MalformedEvidence(
            f"platform profile is {profile!r}, expected one of {sorted(PLATFORM_PROFILES)}"
        )
    instance_id = claims.octets(256, INSTANCE_ID_BYTES)
    if instance_id[0] != _UEID_RANDOM:
        raise MalformedEvidence(f"platform instance id begins with {instance_id[0]:#04x}, expected 0x01")
    lifecycle = claims.take(2395)
    if type(lifecycle) is not int or lifecycle >> 8 not in _LIFECYCLES:
        raise MalformedEvidence(f"platform lifecycle is {_cut(lifecycle)}, expected a state that is known")
    return PlatformToken(
        message=message,
        profile=profile,
        challenge=claims.octets(10, *DIGEST_BYTES),
        implementation_id=claims.octets(2396, IMPLEMENTATION_ID_BYTES),
        instance_id=instance_id,
        config=claims.octets(2401, *range(MAX_CONFIG_BYTES + 1)),
        security_lifecycle=lifecycle,
        hash_algorithm=claims.hash_algorithm(2402),
        software_components=_components(claims.take(2399)),
        verification_service=claims.text(2400) if claims.has(2400) else None,
        unknown=claims.rest(),
    )


def parse_realm(data: bytes) -> RealmToken:
    """Read the realm's token. Raises ``MalformedEvidence``."""
    message = _message(data, "realm token")
    claims = _Claims(message.payload, "realm claims")
    profile = claims.text(265) if claims.has(265) else None
    if profile is not None and profile not in REALM_PROFILES:
        raise MalformedEvidence(f"realm profile is {profile!r}, expected one of {sorted(REALM_PROFILES)}")
    rim, rems, public_key = (
        claims.octets(44238, *DIGEST_BYTES),
        claims.take(44239),
        claims.octets(44237, *range(1, 257)),
    )
    if not isinstance(rems, list | tuple) or len(rems) != len(_REGISTERS) - 1:
        raise MalformedEvidence(f"realm claims: expected {len(_REGISTERS) - 1} extensible measurements")
    if not all(isinstance(one, bytes) and len(one) == len(rim) for one in rems):
        raise MalformedEvidence(
            f"realm claims: an extensible measurement is not of {len(rim)} bytes as the initial one"
        )
    return RealmToken(
        message=message,
        profile=profile,
        challenge=claims.octets(10, CHALLENGE_BYTES),
        personalization_value=claims.octets(44235, PERSONALIZATION_BYTES),
        hash_algorithm=claims.hash_algorithm(44236),
        public_key=public_key,
        public_key_hash_algorithm=claims.hash_algorithm(44240),
        **dict(zip(_REGISTERS, (rim, *rems), strict=True)),
        key=_realm_key(public_key),
        unknown=claims.rest(),
    )


class _Claims:
    """A map of claims from which each is taken once."""

    def __init__(self, payload: bytes, name: str) -> None:
        found = decode(payload, name)
        if not isinstance(found, dict):
            raise MalformedEvidence(f"{name}: expected a map")
        self._left: dict[Any, Any] = dict(found)
        self._name = name

    def has(self, claim: int) -> bool:
        return claim in self._left

    def take(self, claim: int) -> object:
        if claim not in self._left:
            raise MalformedEvidence(f"{self._name}: claim {claim} is missing")
        value: object = self._left.pop(claim)
        return value

    def octets(self, claim: int, *sizes: int) -> bytes:
        value = self.take(claim)
        if not isinstance(value, bytes) or len(value) not in sizes:
            wanted = " or ".join(map(str, sizes)) if len(sizes) < 4 else f"{sizes[0]} to {sizes[-1]}"
            raise MalformedEvidence(f"{self._name}: claim {claim} is {_cut(value)}, expected {wanted} bytes")
        return value

    def text(self, claim: int) -> str:
        return _text(self.take(claim), f"{self._name}: claim {claim}")

    def hash_algorithm(self, claim: int) -> HashAlgorithm:
        return _hash_algorithm(self.take(claim), f"{self._name}: claim {claim}")

    def rest(self) -> dict[str, object]:
        """What is left, for the coverage report."""
        return {f"claim.{_cut(claim)}": _leaf(value) for claim, value in self._left.items()}


def _message(data: bytes, name: str) -> Sign1:
    value = decode(data, name)
    if not isinstance(value, cbor2.CBORTag) or value.tag != SIGN1_TAG:
        raise MalformedEvidence(f"{name}: expected tag {SIGN1_TAG}")
    return parse_sign1(value, name)


def _components(value: object) -> tuple[SoftwareComponent, ...]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_COMPONENTS:
        raise MalformedEvidence(f"software components: expected a list of 1 to {MAX_COMPONENTS}")
    return tuple(_component(one) for one in value)


def _component(value: object) -> SoftwareComponent:
    name = "software component"
    if not isinstance(value, dict) or not {2, 5} <= set(value) <= {1, 2, 4, 5, 6}:
        raise MalformedEvidence(
            f"{name}: expected a map of value and signer, and maybe type, version and hash"
        )
    for key in (2, 5):
        if not isinstance(value[key], bytes) or len(value[key]) not in DIGEST_BYTES:
            raise MalformedEvidence(f"{name}: entry {key} is {_cut(value[key])}, expected a digest")
    return SoftwareComponent(
        component_type=_text(value[1], f"{name}: type") if 1 in value else None,
        measurement_value=value[2],
        version=_text(value[4], f"{name}: version") if 4 in value else None,
        signer_id=value[5],
        hash_algorithm=_hash_algorithm(value[6], f"{name}: hash") if 6 in value else None,
    )


def _realm_key(public_key: bytes) -> ec.EllipticCurvePublicKey:
    """A bare point of P-384 (before the profile), or a COSE_Key of two coordinates (RFC 9053, section 7.1)."""
    curve: ec.EllipticCurve = ec.SECP384R1()
    point = public_key
    if public_key[:1] != b"\x04":
        match decode(public_key, "realm key"):
            case {1: 2, -1: 1 | 2 as number, -2: bytes() as x, -3: bytes() as y, **rest}:
                curve, algorithm = (ec.SECP256R1(), ES256) if number == 1 else (ec.SECP384R1(), ES384)
                point = b"\x04" + x + y
            case _:
                raise MalformedEvidence("realm key: expected a COSE_Key of P-256 or P-384 with x and y")
        if rest not in ({}, {_KEY_ALGORITHM: algorithm}):
            raise MalformedEvidence(
                "realm key: expected no more than the algorithm of its curve beside the point"
            )
        if len(x) != len(y):
            raise MalformedEvidence("realm key: x and y differ in length")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    except ValueError:
        raise MalformedEvidence(f"realm key: no point of {curve.name}") from None


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise MalformedEvidence(
            f"{name} is {_cut(value)}, expected a text of 1 to {MAX_TEXT} printable characters"
        )
    return value


def _hash_algorithm(value: object, name: str) -> HashAlgorithm:
    try:
        return HashAlgorithm(_text(value, name))
    except ValueError:
        raise MalformedEvidence(f"{name} is {_cut(value)}, expected sha-256, sha-384 or sha-512") from None


def _plain(token: PlatformToken | RealmToken, without: tuple[str, ...]) -> dict[str, object]:
    return {name: getattr(token, name) for name in token.__slots__ if name not in without}


def _leaf(value: object) -> object:
    """A value of an unknown claim, unless it has parts (which may be within themselves) or no limit."""
    return value if isinstance(value, bytes | str | bool | None) else _cut(value)


def _cut(value: object) -> str:
    """A hostile value in a few words."""
    match value:
        case bytes():
            return f"{len(value)} bytes"
        case bool() | None | str():
            return ascii(value)[:80]
        case int():
            return str(value) if -(2**64) < value < 2**64 else "an integer of more than 64 bits"
        case _:
            return type(value).__name__
