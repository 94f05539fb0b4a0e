"""Attestation results as tokens: EAR (draft-ietf-rats-ear) with the AR4SI trust vector, as JWT and as CWT.

The vector is computed from the claims and the checks, never given. Numbers are those of AR4SI
(draft-ietf-rats-ar4si), as Trustee and Veraison use them.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from enarx import __version__
from enarx.attest._json import read_object
from enarx.attest.checks import Check, Outcome
from enarx.attest.claims import Claims
from enarx.attest.errors import EvidenceRejected, MalformedEvidence, PolicyDenied
from enarx.attest.results import claims_document
from enarx.attest.rules import Anything
from enarx.tcb.errors import EnarxError

PROFILE: Final = "tag:github.com,2023:veraison/ear"
"""The profile that the deployed implementations of the draft write and read."""

MAX_TOKEN_BYTES: Final = 256 * 1024

SigningKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
VerifyingKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class TokenRejected(EnarxError):
    """The token is not signed by the key, not of this time, or not about this challenge."""


class Status(Enum):
    """The tier of an appraisal; the numbers are those of CBOR and the lower ends of the tiers."""

    NONE = 0
    AFFIRMING = 2
    WARNING = 32
    CONTRAINDICATED = 96

    @classmethod
    def of(cls, claim: int) -> Status:
        """The tier of one number of the vector (AR4SI, section 2.3.2)."""
        if -2 < claim < 2:
            return cls.NONE
        size = abs(claim)
        return cls.CONTRAINDICATED if size >= 96 else cls.WARNING if size >= 32 else cls.AFFIRMING


VECTOR: Final = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
"""The eight claims; their places are their labels in CBOR."""

_CRYPTO_FAILED: Final = 99
_LABELS: Final = {
    "iat": 6,
    "eat_nonce": 10,
    "eat_profile": 265,
    "submods": 266,
    "ear.status": 1000,
    "ear.trustworthiness-vector": 1001,
    "ear.appraisal-policy-id": 1003,
    "ear.verifier-id": 1004,
    "developer": 0,
    "build": 1,
}
"""Names in JSON and labels in CBOR (draft-ietf-rats-ear, appendix on claims)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """What is said about one attester."""

    name: str
    vector: Mapping[str, int]
    policy_digest: bytes | None
    claims: Mapping[str, object] | None = None

    @property
    def status(self) -> Status:
        """The worst tier in the vector."""
        return max((Status.of(claim) for claim in self.vector.values()), key=lambda tier: tier.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ear:
    """One result: who says what about which attester, when, to whom."""

    issued: datetime
    appraisal: Appraisal
    nonce: bytes | None
    developer: str = "https://enarx.dev"
    build: str = f"enarx {__version__}"


def ear_of(claims: Claims, *, now: datetime) -> Ear:
    """Say what the claims prove. Only a verdict by a policy, bound to a challenge, on a vendor's root is
    affirming.
    """
    appraised = claims.policy_digest is not None
    hardware = 97 if not claims.root.is_vendor else 2 if claims.tcb_status in (None, "UpToDate") else 32
    vector = {
        "instance-identity": 2 if claims.chip_id is not None and claims.bound else 0,
        "configuration": 96 if claims.debug else 2 if appraised and claims.bound else 36,
        "executables": 3 if appraised and _measurement_was_judged(claims.checks) else 33,
        "hardware": hardware,
        "runtime-opaque": 96 if claims.debug else 2 if claims.memory_protected else 32,
    }
    appraisal = Appraisal(
        name=claims.tee.value,
        vector=vector,
        policy_digest=claims.policy_digest,
        claims=claims_document(claims),
    )
    return Ear(issued=now, appraisal=appraisal, nonce=claims.report_data if claims.bound else None)


def ear_of_refusal(error: EvidenceRejected, name: str, *, now: datetime) -> Ear:
    """Say that evidence was refused: by the policy (contraindicated), or because its cryptography does not
    hold.
    """
    if isinstance(error, PolicyDenied):
        vector = {"configuration": 96, "hardware": 0}
        if any(check.name.endswith(".measurement") for check in error.failures):
            vector["executables"] = 33
    else:
        vector = dict.fromkeys(VECTOR, _CRYPTO_FAILED)
    return Ear(issued=now, appraisal=Appraisal(name=name, vector=vector, policy_digest=None), nonce=None)


def to_jwt(ear: Ear, key: SigningKey) -> str:
    """Sign as a JSON web token: ES256, ES384 or EdDSA by the kind of key."""
    name, _ = _algorithm(key.public_key())
    head = _base64url(json.dumps({"alg": name, "typ": "JWT"}, separators=(",", ":")).encode())
    body = _base64url(json.dumps(_document(ear, _base64url), separators=(",", ":")).encode())
    return f"{head}.{body}.{_base64url(_sign(key, f'{head}.{body}'.encode()))}"


def to_cwt(ear: Ear, key: SigningKey) -> bytes:
    """Sign as a CBOR web token: COSE_Sign1, tagged."""
    protected = cbor2.dumps({1: _algorithm(key.public_key())[1]}, canonical=True)
    payload = cbor2.dumps(_labelled(_document(ear, bytes)), canonical=True)
    signature = _sign(key, cbor2.dumps(["Signature1", protected, b"", payload], canonical=True))
    return cbor2.dumps(cbor2.CBORTag(18, [protected, {}, payload, signature]), canonical=True)


def verify_jwt(
    token: str, key: VerifyingKey, *, now: datetime, max_age: timedelta, nonce: bytes | None
) -> Ear:
    """Read a token that ``key`` must have signed. The key says which algorithm, not the token.

    ``nonce=None`` leaves the challenge uncompared. Raises ``MalformedEvidence``, ``TokenRejected``.
    """
    parts = token.split(".")
    if len(token) > MAX_TOKEN_BYTES or len(parts) != 3:
        raise MalformedEvidence("token: expected three parts of at most 256 KiB")
    head = read_object(_unbase64url(parts[0]), "token")
    name, _ = _algorithm(key)
    if head.get("alg") != name or "crit" in head:
        raise TokenRejected(f"token: algorithm is {head.get('alg')!r}, expected {name} and nothing critical")
    _verify(key, _unbase64url(parts[2]), f"{parts[0]}.{parts[1]}".encode())
    return _checked(read_object(_unbase64url(parts[1]), "token"), _unbase64url, now, max_age, nonce)


def verify_cwt(
    token: bytes, key: VerifyingKey, *, now: datetime, max_age: timedelta, nonce: bytes | None
) -> Ear:
    """Read a token that ``key`` must have signed; as ``verify_jwt``."""
    if len(token) > MAX_TOKEN_BYTES:
        raise MalformedEvidence("token: expected at most 256 KiB")
    match _cbor(token):
        case cbor2.CBORTag(
            tag=18, value=[bytes() as protected, {}, bytes() as payload, bytes() as signature]
        ):
            pass
        case _:
            raise MalformedEvidence("token: expected a tagged COSE_Sign1")
    number = _algorithm(key)[1]
    if _cbor(protected) != {1: number}:
        raise TokenRejected(
            f"token: protected header is {protected.hex()}, expected algorithm {number} alone"
        )
    _verify(key, signature, cbor2.dumps(["Signature1", protected, b"", payload], canonical=True))
    named = _named(_cbor(payload))
    if not isinstance(named, dict):
        raise MalformedEvidence("token: claims are no map")
    return _checked(named, bytes, now, max_age, nonce)


def _measurement_was_judged(checks: tuple[Check, ...]) -> bool:
    """That of the section itself; and where a virtual TPM quotes what runs above it, that too."""
    asked = {
        check.name.split(".", 2)[2]: check.outcome is Outcome.PASSED
        and not isinstance(check.expected, Anything)
        for check in checks
        if check.name.startswith("policy.") and check.name.count(".") > 1
    }
    above = [asked[name] for name in asked if name == "vtpm.measurement" or name.startswith("vtpm.pcrs.")]
    return asked.get("measurement", False) and (not above or any(above))


def _document(ear: Ear, octets: Any) -> dict[str, Any]:
    appraisal = ear.appraisal
    about: dict[str, Any] = {
        "ear.status": appraisal.status,
        "ear.trustworthiness-vector": dict(appraisal.vector),
    }
    if appraisal.policy_digest is not None:
        about["ear.appraisal-policy-id"] = f"ni:///sha-256;{_base64url(appraisal.policy_digest)}"
    if appraisal.claims is not None:
        about["enarx.claims"] = dict(appraisal.claims)
    document: dict[str, Any] = {
        "eat_profile": PROFILE,
        "iat": int(ear.issued.timestamp()),
        "ear.verifier-id": {"developer": ear.developer, "build": ear.build},
        "submods": {appraisal.name: about},
    }
    if ear.nonce is not None and 8 <= len(ear.nonce) <= 64:  # what EAT allows
        document["eat_nonce"] = octets(ear.nonce)
    if octets is _base64url:
        about["ear.status"] = appraisal.status.name.lower()
    return document


def _labelled(value: dict[str, Any]) -> dict[Any, Any]:
    """Put CBOR labels in place of names; the attester's name and our own claims keep theirs."""
    made: dict[Any, Any] = {}
    for name, item in value.items():
        if name == "enarx.claims":
            made[name] = item
        elif name == "ear.trustworthiness-vector":
            made[_LABELS[name]] = {VECTOR.index(claim): number for claim, number in item.items()}
        elif name == "ear.status":
            made[_LABELS[name]] = item.value
        else:
            made[_LABELS.get(name, name)] = _labelled(item) if isinstance(item, dict) else item
    return made


def _named(value: object, *, inner: bool = False) -> object:
    """Put names in place of CBOR labels."""
    if not isinstance(value, dict):
        return value
    names = {label: name for name, label in _LABELS.items() if (label < 2) == inner}
    made: dict[str, object] = {}
    for label, item in value.items():
        name = label if isinstance(label, str) else names.get(label, str(label))
        if name == "ear.trustworthiness-vector" and isinstance(item, dict):
            made[name] = {VECTOR[at] if at in range(8) else str(at): number for at, number in item.items()}
        elif name == "ear.status" and item in [tier.value for tier in Status]:
            made[name] = Status(item).name.lower()
        elif name == "enarx.claims":
            made[name] = item
        else:
            made[name] = _named(item, inner=name == "ear.verifier-id")
    return made


def _checked(
    document: Mapping[str, Any], octets: Any, now: datetime, max_age: timedelta, nonce: bytes | None
) -> Ear:
    try:
        ear = _read(document, octets)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise MalformedEvidence(f"token: not an attestation result: {type(error).__name__}") from None
    if not ear.issued <= now <= ear.issued + max_age:
        raise TokenRejected(
            f"token: issued {ear.issued:%Y-%m-%dT%H:%M:%SZ}, which is not within {max_age} before now"
        )
    if nonce is not None and ear.nonce != nonce:
        raise TokenRejected("token: it answers another challenge")
    return ear


def _read(document: Mapping[str, Any], octets: Any) -> Ear:
    if document["eat_profile"] != PROFILE:
        raise ValueError("profile")
    ((attester, about),) = document["submods"].items()
    vector = dict(about.get("ear.trustworthiness-vector", {}))
    known = all(
        name in VECTOR and type(number) is int and -129 < number < 128 for name, number in vector.items()
    )
    if not vector or not known:
        raise ValueError("vector")
    policy = about.get("ear.appraisal-policy-id", "").removeprefix("ni:///sha-256;")
    appraisal = Appraisal(
        name=str(attester),
        vector=vector,
        policy_digest=_unbase64url(policy) if policy and "ni:" in about["ear.appraisal-policy-id"] else None,
        claims=about.get("enarx.claims"),
    )
    if about["ear.status"] != appraisal.status.name.lower():
        raise ValueError("status is not the worst of the vector")
    issued = document["iat"]
    if type(issued) is not int:
        raise TypeError("iat")
    who = document["ear.verifier-id"]
    return Ear(
        issued=datetime.fromtimestamp(issued, UTC),
        appraisal=appraisal,
        nonce=octets(document["eat_nonce"]) if "eat_nonce" in document else None,
        developer=str(who["developer"]),
        build=str(who["build"]),
    )


def _algorithm(key: VerifyingKey) -> tuple[str, int]:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "EdDSA", -8
    if isinstance(key.curve, ec.SECP256R1):
        return "ES256", -7
    if isinstance(key.curve, ec.SECP384R1):
        return "ES384", -35
    raise TokenRejected(f"token: keys of {key.curve.name} are not used", hint="use P-256, P-384 or Ed25519")


def _sign(key: SigningKey, data: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(_hash(key.curve))))
    size = key.curve.key_size // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def _verify(key: VerifyingKey, signature: bytes, data: bytes) -> None:
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
            return
        size = key.curve.key_size // 8
        if len(signature) != 2 * size:
            raise TokenRejected(f"token: signature has {len(signature)} bytes, expected {2 * size}")
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(_hash(key.curve)))
    except InvalidSignature:
        raise TokenRejected("token: the signature is not of this key") from None


def _hash(curve: ec.EllipticCurve) -> hashes.HashAlgorithm:
    return hashes.SHA256() if isinstance(curve, ec.SECP256R1) else hashes.SHA384()


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unbase64url(text: str) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise MalformedEvidence("token: not base64url") from None
    if _base64url(raw) != text:
        raise MalformedEvidence("token: not base64url without padding")
    return raw


def _cbor(raw: bytes) -> object:
    stream = io.BytesIO(raw)
    try:
        found = cbor2.CBORDecoder(
            stream, max_depth=12, allow_indefinite=False, allow_duplicate_keys=False
        ).decode()
    except Exception as error:  # foreign decoder on hostile bytes: whatever it raises is a refusal
        raise MalformedEvidence(f"token: not CBOR: {type(error).__name__}") from None
    if stream.read(1):
        raise MalformedEvidence("token: bytes trail")
    return found
