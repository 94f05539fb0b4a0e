"""Signatures of COSE messages count only by the algorithm that belongs to the curve of the key."""

from __future__ import annotations

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from tests.forge.pki import ec_key

from enarx.attest._cose import ES256, ES384, Sign1, algorithm_of, signed_ecdsa

P256, P384, P521 = (
    ec_key(f"cose-{curve.name}", curve) for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
)
SHA256, SHA384 = hashes.SHA256(), hashes.SHA384()


def message(
    key: ec.EllipticCurvePrivateKey, algorithm: int, digest: hashes.HashAlgorithm, *, size: int | None = None
) -> Sign1:
    protected = cbor2.dumps({1: algorithm})
    unsigned = Sign1(protected=protected, algorithm=algorithm, payload=b"claims", signature=b"")
    r, s = decode_dss_signature(key.sign(unsigned.signed, ec.ECDSA(digest)))
    wide = size or (key.curve.key_size + 7) // 8
    plain = r.to_bytes(wide, "big") + s.to_bytes(wide, "big")
    return Sign1(protected=protected, algorithm=algorithm, payload=b"claims", signature=plain)


def test_each_curve_has_one_algorithm() -> None:
    assert [algorithm_of(key.public_key()) for key in (P256, P384, P521)] == [ES256, ES384, None]


def test_what_the_key_signed_by_its_algorithm_is_signed() -> None:
    assert signed_ecdsa(message(P256, ES256, SHA256), P256.public_key())
    assert signed_ecdsa(message(P384, ES384, SHA384), P384.public_key())


@pytest.mark.parametrize(
    ("signed", "key"),
    [
        (message(P384, ES256, SHA256), P384),
        (message(P256, ES384, SHA384), P256),
        (message(P521, ES384, SHA384), P521),
        (message(P521, -36, hashes.SHA512()), P521),
        (message(P256, ES256, SHA384), P256),
        (message(P256, ES256, SHA256, size=33), P256),
        (message(P256, ES256, SHA256, size=48), P256),
        (message(P256, ES256, SHA256), ec_key("cose-another", ec.SECP256R1)),
    ],
)
def test_nothing_else_is(signed: Sign1, key: ec.EllipticCurvePrivateKey) -> None:
    """A18: not by another algorithm that the message chose, another length, another key."""
    assert not signed_ecdsa(signed, key.public_key())


@pytest.mark.parametrize("plain", [b"", bytes(64), bytes(32) + b"\xff" * 32, b"\xff" * 64, b"\x01" * 63])
def test_numbers_out_of_range_are_no_signature(plain: bytes) -> None:
    """A21."""
    made = message(P256, ES256, SHA256)
    changed = Sign1(protected=made.protected, algorithm=ES256, payload=made.payload, signature=plain)
    assert not signed_ecdsa(changed, P256.public_key())
