"""Laws of Nitro documents: parsing is total, and what is read is what was written."""

from __future__ import annotations

import cbor2
from fuzz.nitro import one
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.forge.nitro import PCRS, Case

from enarx.attest.nitro import parse_document

HEALTHY = Case().raw
PARTS = cbor2.loads(HEALTHY)
OCTETS = st.none() | st.binary(min_size=1, max_size=1024)


@given(st.binary(max_size=2048))
def test_any_bytes_are_a_document_or_malformed(data: bytes) -> None:
    one(data)
    one(b"\x84\x44\xa1\x01\x38\x22" + data)
    one(cbor2.dumps([PARTS[0], {}, data, PARTS[3]]))


@given(st.integers(0, len(HEALTHY) - 1), st.binary(max_size=8))
def test_a_document_with_anything_in_it_is_read_or_malformed(at: int, data: bytes) -> None:
    one(HEALTHY[:at] + data + HEALTHY[at + len(data) :])


@given(OCTETS, OCTETS, OCTETS, st.dictionaries(st.integers(3, 31), st.binary(min_size=48, max_size=48)))
@settings(max_examples=25, deadline=None)
def test_what_a_document_says_is_what_was_put_in(
    public_key: bytes | None, user_data: bytes | None, nonce: bytes | None, pcrs: dict[int, bytes]
) -> None:
    registers = {0: PCRS[0], 1: PCRS[1], 2: PCRS[2], **pcrs}
    payload = {"public_key": public_key, "user_data": user_data, "nonce": nonce, "pcrs": registers}
    read = parse_document(Case(payload=payload).raw)
    assert (read.public_key, read.user_data, read.nonce, dict(read.pcrs)) == (
        *list(payload.values())[:3],
        registers,
    )
