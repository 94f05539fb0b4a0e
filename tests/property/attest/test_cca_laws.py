"""Laws of CCA tokens: parsing is total, and what is read is what was written."""

from __future__ import annotations

import cbor2
from fuzz.cca import one
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.forge.cca import Case

from enarx.attest.cca import parse_token

HEALTHY = Case().raw
CLAIM = st.integers(-5, 50_000) | st.text(max_size=8)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(max_size=80) | st.text(max_size=20) | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(CLAIM, inner, max_size=4),
    max_leaves=8,
)
DIGESTS = st.sampled_from((32, 48, 64)).flatmap(
    lambda size: st.lists(st.binary(min_size=size, max_size=size), min_size=5, max_size=5)
)


@given(st.binary(max_size=512))
def test_any_bytes_are_a_token_or_malformed(data: bytes) -> None:
    one(data)
    one(b"\xd9\x01\x8f" + data)


@given(st.dictionaries(CLAIM, VALUE, max_size=12))
def test_any_claims_are_a_token_or_malformed(claims: dict[int | str, object]) -> None:
    one(cbor2.dumps(claims))


@given(st.integers(0, len(HEALTHY) - 1), st.binary(max_size=8))
def test_a_token_with_anything_in_it_is_read_or_malformed(at: int, data: bytes) -> None:
    one(HEALTHY[:at] + data + HEALTHY[at + len(data) :])


@given(
    st.binary(min_size=64, max_size=64),
    st.binary(min_size=64, max_size=64),
    DIGESTS,
    st.binary(max_size=64),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 0x6F).map(lambda number: (number >> 4) << 12 | number & 0xF),
)
@settings(max_examples=25, deadline=None)
def test_what_a_token_says_is_what_was_put_in(
    challenge: bytes, value: bytes, registers: list[bytes], config: bytes, model: bytes, lifecycle: int
) -> None:
    realm = {10: challenge, 44235: value, 44238: registers[0], 44239: registers[1:]}
    read = parse_token(Case(realm=realm, platform={2401: config, 2396: model, 2395: lifecycle}).raw)
    assert (read.realm.challenge, read.realm.personalization_value) == (challenge, value)
    assert list(read.realm.measurements.values()) == registers
    assert (read.platform.config, read.platform.implementation_id) == (config, model)
    assert read.platform.security_lifecycle == lifecycle
    assert read.fields()["report_data"] == challenge
