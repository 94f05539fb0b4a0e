"""CBOR and COSE as evidence uses them (RFC 8949, RFC 9052): one item, no key twice, nothing behind it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from enarx.attest.errors import MalformedEvidence

MAX_DEPTH: Final = 8
"""Arrays, maps and tags in each other; the deepest claims have four."""
SIGN1_TAG: Final = 18
ES256: Final = -7
ES384: Final = -35
_ALGORITHM: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign1:
    """COSE_Sign1 (RFC 9052, section 4.2) whose whole header is protected; nothing here was verified."""

    protected: bytes
    algorithm: int
    payload: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """The Sig_structure without external data (section 4.4)."""
        return cbor2.dumps(["Signature1", self.protected, b"", self.payload])


def decode(data: bytes, name: str, *, indefinite: bool = False) -> object:
    """Read one item. Raises ``MalformedEvidence`` that begins with ``name``.

    ``indefinite`` allows lengths that are left open, which some genuine signers write inside what they sign.
    """
    stream = io.BytesIO(data)
    try:
        value: object = cbor2.CBORDecoder(
            stream, max_depth=MAX_DEPTH, allow_indefinite=indefinite, allow_duplicate_keys=False
        ).decode()
    except Exception as error:  # a foreign decoder on hostile bytes: whatever it raises is a refusal
        raise MalformedEvidence(f"{name}: not the CBOR that is expected: {type(error).__name__}") from None
    if stream.read(1):  # the decoder itself does not mind
        raise MalformedEvidence(f"{name}: bytes trail")
    return value


def parse_sign1(value: object, name: str) -> Sign1:
    """Take a decoded COSE_Sign1, tagged or not. Raises ``MalformedEvidence``."""
    if isinstance(value, cbor2.CBORTag) and value.tag == SIGN1_TAG:
        value = value.value
    match value:
        case [bytes() as protected, {**unprotected}, bytes() as payload, bytes() as signature]:
            pass
        case _:
            raise MalformedEvidence(f"{name}: expected COSE_Sign1, an array of four")
    if unprotected:
        raise MalformedEvidence(f"{name}: unprotected header is not an empty map")
    header = decode(protected, f"{name}: protected header")
    if not isinstance(header, dict) or set(header) != {_ALGORITHM} or type(header[_ALGORITHM]) is not int:
        raise MalformedEvidence(f"{name}: protected header is not a map of one algorithm")
    return Sign1(protected=protected, algorithm=header[_ALGORITHM], payload=payload, signature=signature)


def algorithm_of(key: ec.EllipticCurvePublicKey) -> int | None:
    """Give the one algorithm that a key of this curve signs with, so that no message can choose another."""
    return {"secp256r1": ES256, "secp384r1": ES384}.get(key.curve.name)


def signed_ecdsa(message: Sign1, key: ec.EllipticCurvePublicKey) -> bool:
    """Say whether ``key`` signed by the algorithm of its curve: r and s of the curve's size (RFC 9053, section 2.1)."""
    size = (key.curve.key_size + 7) // 8
    r, s = (int.from_bytes(half, "big") for half in (message.signature[:size], message.signature[size:]))
    if len(message.signature) != 2 * size or algorithm_of(key) != message.algorithm:
        return False
    digest = hashes.SHA256() if message.algorithm == ES256 else hashes.SHA384()
    try:
        key.verify(encode_dss_signature(r, s), message.signed, ec.ECDSA(digest))
    except InvalidSignature:
        return False
    return True
