"""ID blocks: recorded ones verify, made ones verify, and what the firmware would refuse is refused."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sevsnpmeasure import id_block as peer  # type: ignore[import-untyped]
from tests.evidence import Evidence

from enarx.attest.measure import (
    IdBlock,
    IdBlockRejected,
    Unmeasurable,
    build_id_auth,
    key_digest,
    load_private_key,
    pack_key,
    parse_id_block,
    verify_id_auth,
)
from enarx.tcb.errors import Malformed

ID_KEY = ec.derive_private_key(7, ec.SECP384R1())
AUTHOR_KEY = ec.derive_private_key(11, ec.SECP384R1())
BLOCK = IdBlock(
    launch_digest=bytes(range(48)), family_id=b"f" * 16, image_id=b"i" * 16, guest_svn=3, policy=0x30000
)
ID_KEY_AT, ID_KEY_SIG_AT, AUTHOR_KEY_AT = 0x240, 0x680, 0x880


@pytest.mark.evidence
def test_a_recorded_block() -> None:
    sample = Evidence().sample("measurement/snp-id-block")
    block, auth = sample.read("id_block"), sample.read("id_auth")
    keys, parsed = verify_id_auth(block, auth), parse_id_block(block)
    assert keys.id_key_digest.hex() == sample.expected["id_key_digest"]
    assert keys.author_key_digest.hex() == sample.expected["author_key_digest"]
    assert parsed.launch_digest.hex() == sample.expected["launch_digest"]
    assert parsed.policy == int(sample.expected["policy"], 0)
    assert parsed.pack() == block
    for at in range(len(block)):
        with pytest.raises((IdBlockRejected, Malformed)):
            verify_id_auth(block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :], auth)


@pytest.mark.evidence
def test_swapped_keys_of_a_recorded_block() -> None:
    sample = Evidence().sample("measurement/snp-id-block")
    block, auth = sample.read("id_block"), sample.read("id_auth")
    id_key, author = (auth[at : at + 1028] for at in (ID_KEY_AT, AUTHOR_KEY_AT))
    swapped = (
        auth[:ID_KEY_AT]
        + author
        + auth[ID_KEY_AT + 1028 : AUTHOR_KEY_AT]
        + id_key
        + auth[AUTHOR_KEY_AT + 1028 :]
    )
    with pytest.raises(IdBlockRejected, match="by the id key"):
        verify_id_auth(block, swapped)


def test_made_blocks_verify_and_show_the_digests_of_their_keys() -> None:
    keys = verify_id_auth(BLOCK.pack(), build_id_auth(BLOCK, ID_KEY, AUTHOR_KEY))
    assert keys.id_key_digest == key_digest(pack_key(ID_KEY.public_key())) == peer.pub_to_digest(ID_KEY)
    assert keys.author_key_digest == peer.pub_to_digest(AUTHOR_KEY)
    alone = verify_id_auth(BLOCK.pack(), build_id_auth(BLOCK, ID_KEY))
    assert alone.author_key_digest == bytes(48)
    assert build_id_auth(BLOCK, ID_KEY) == build_id_auth(BLOCK, ID_KEY), "signing is deterministic"
    assert parse_id_block(BLOCK.pack()) == BLOCK


@pytest.mark.parametrize(
    ("at", "error", "message"),
    [
        (0x000, Malformed, "id_key_algo is 0"),
        (0x008, Malformed, "reserved bytes"),
        (0x040, IdBlockRejected, "by the id key"),
        (0x0D0, Malformed, "reserved bytes"),
        (ID_KEY_AT, Malformed, "curve is 3"),
        (ID_KEY_AT + 4, Malformed, "not on P-384"),
        (ID_KEY_SIG_AT, IdBlockRejected, "by the author key"),
        (AUTHOR_KEY_AT + 4, Malformed, "not on P-384"),
        (AUTHOR_KEY_AT + 200, Malformed, "reserved bytes"),
        (0xFFF, Malformed, "reserved bytes"),
    ],
)
def test_one_wrong_byte(at: int, error: type[Exception], message: str) -> None:
    auth = bytearray(build_id_auth(BLOCK, ID_KEY, AUTHOR_KEY))
    auth[at] ^= 1
    with pytest.raises(error, match=message):
        verify_id_auth(BLOCK.pack(), bytes(auth))


def test_an_author_key_that_is_not_announced() -> None:
    auth = bytearray(build_id_auth(BLOCK, ID_KEY, AUTHOR_KEY))
    auth[4] = 0
    with pytest.raises(Malformed, match="author key without author_key_algo"):
        verify_id_auth(BLOCK.pack(), bytes(auth))
    auth[4] = 2
    with pytest.raises(Malformed, match="author_key_algo is 2"):
        verify_id_auth(BLOCK.pack(), bytes(auth))


def test_a_signature_of_zeros() -> None:
    auth = bytearray(build_id_auth(BLOCK, ID_KEY))
    auth[0x40 : 0x40 + 144] = bytes(144)
    with pytest.raises(IdBlockRejected, match="by the id key"):
        verify_id_auth(BLOCK.pack(), bytes(auth))


def test_another_version_and_other_sizes() -> None:
    packed = bytearray(BLOCK.pack())
    packed[0x50] = 2
    with pytest.raises(Malformed, match="version is 2"):
        parse_id_block(bytes(packed))
    with pytest.raises(Malformed, match="expected 0x60 bytes"):
        parse_id_block(BLOCK.pack() + b"\0")
    for field, value in (
        ("launch_digest", bytes(47)),
        ("family_id", b""),
        ("guest_svn", 1 << 32),
        ("policy", -1),
    ):
        fields = {"launch_digest": bytes(48), "policy": 0, field: value}
        with pytest.raises(Unmeasurable, match=field.replace("_", " ")):
            IdBlock(**fields).pack()  # type: ignore[arg-type]


def test_keys_on_another_curve() -> None:
    with pytest.raises(Unmeasurable, match="secp256r1"):
        build_id_auth(BLOCK, ec.derive_private_key(7, ec.SECP256R1()))


def test_key_files() -> None:
    pem = ID_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert load_private_key(pem).private_numbers() == ID_KEY.private_numbers()
    with pytest.raises(Malformed, match="no PEM"):
        load_private_key(b"-----BEGIN")
