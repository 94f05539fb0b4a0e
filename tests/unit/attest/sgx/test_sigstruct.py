"""SIGSTRUCT: real ones verify, made ones verify, and each way to spoil one is refused."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.evidence import Evidence

from enarx.attest.measure import (
    Sigstruct,
    SigstructRejected,
    Unmeasurable,
    build_sigstruct,
    parse_sigstruct,
    verify_sigstruct,
)
from enarx.tcb.errors import Malformed

CONTENT = Sigstruct(
    date=0x20260131,
    attributes=bytes([4]) + bytes(15),
    attributes_mask=b"\xff" * 16,
    enclave_hash=bytes(range(32)),
    isv_prod_id=7,
    isv_svn=9,
    isv_family_id=b"f" * 16,
)


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """An author's key."""
    return rsa.generate_private_key(public_exponent=3, key_size=3072)


@pytest.fixture(scope="module")
def made(key: rsa.RSAPrivateKey) -> bytes:
    """A signature structure of ours."""
    return build_sigstruct(CONTENT, key)


@pytest.mark.evidence
@pytest.mark.parametrize("name", ["sgx-enarx-encl", "sgx-sigstruct-fortanix"])
def test_a_real_one(name: str) -> None:
    sample = Evidence().sample(f"measurement/{name}")
    data, expected = sample.read("sigstruct"), sample.expected
    signed = verify_sigstruct(data)
    assert signed.enclave_hash.hex() == expected["mrenclave"]
    assert signed.mrsigner.hex() == expected["mrsigner"]
    assert (signed.isv_prod_id, signed.isv_svn) == (expected["isvprodid"], expected["isvsvn"])
    assert signed.attributes.hex() == expected.get("attributes", signed.attributes.hex())
    for at in (*range(128), *range(900, 1028)):
        with pytest.raises((SigstructRejected, Malformed)):
            verify_sigstruct(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_one_of_ours_has_what_was_signed(made: bytes) -> None:
    signed = verify_sigstruct(made)
    for name in (
        "date",
        "attributes",
        "attributes_mask",
        "enclave_hash",
        "isv_prod_id",
        "isv_svn",
        "isv_family_id",
    ):
        assert getattr(signed, name) == getattr(CONTENT, name)
    assert signed.miscmask == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("at", "error", "message"),
    [
        (0, Malformed, "header is"),
        (16, Malformed, "vendor is 0x1"),
        (20, SigstructRejected, "does not hold"),
        (24, Malformed, "header2 is"),
        (44, Malformed, "reserved bytes"),
        (511, Malformed, "modulus has"),
        (300, SigstructRejected, "does not hold"),
        (512, Malformed, "exponent is 2"),
        (520, SigstructRejected, "does not hold"),
        (908, SigstructRejected, "does not hold"),
        (910, Malformed, "reserved bytes"),
        (960, SigstructRejected, "does not hold"),
        (992, Malformed, "reserved bytes"),
        (1026, SigstructRejected, "does not hold"),
        (1028, Malformed, "reserved bytes"),
        (1040, SigstructRejected, "q1 or q2"),
        (1424, SigstructRejected, "q1 or q2"),
    ],
)
def test_one_wrong_byte(made: bytes, at: int, error: type[Exception], message: str) -> None:
    spoiled = bytearray(made)
    spoiled[at] ^= 0x80 if at == 511 else 1
    with pytest.raises(error, match=message):
        verify_sigstruct(bytes(spoiled))


def test_a_signature_that_is_not_smaller_than_the_modulus(made: bytes) -> None:
    n, s = (int.from_bytes(made[at : at + 384], "little") for at in (128, 516))
    for value in (0, n, min(s + n, (1 << 3072) - 1)):
        spoiled = made[:516] + value.to_bytes(384, "little") + made[900:]
        with pytest.raises(SigstructRejected, match="not smaller than the modulus"):
            verify_sigstruct(spoiled)


def test_other_sizes(made: bytes) -> None:
    for data in (b"", made[:-1], made + b"\0"):
        with pytest.raises(Malformed, match="expected 0x710 bytes"):
            parse_sigstruct(data)


def test_what_cannot_be_signed(key: rsa.RSAPrivateKey) -> None:
    with pytest.raises(Unmeasurable, match="exponent 65537"):
        build_sigstruct(CONTENT, rsa.generate_private_key(public_exponent=65537, key_size=2048))
    fields = {"date": 0, "attributes": bytes(16), "attributes_mask": bytes(16), "enclave_hash": bytes(32)}
    for wrong in ({"isv_svn": 1 << 16}, {"attributes": bytes(15)}, {"miscselect": -1}):
        with pytest.raises(Unmeasurable, match=next(iter(wrong))):
            build_sigstruct(Sigstruct(**fields | wrong), key)  # type: ignore[arg-type]
