"""The table of secrets: what was built is read again, a recorded one byte for byte, and nothing else is read."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from tests.evidence import Evidence

from enarx.attest.sev import build_secret_table, parse_secret_table
from enarx.tcb.errors import Malformed

TABLE = UUID("1e74f542-71dd-4d66-963e-ef4287ff173b")
GUIDS = st.uuids().filter(lambda guid: guid not in (TABLE, UUID(int=0)))


@given(st.dictionaries(GUIDS, st.binary(max_size=200), min_size=1, max_size=8))
def test_what_was_built_is_read_again(secrets: dict[UUID, bytes]) -> None:
    table = build_secret_table(secrets)
    assert len(table) % 16 == 0
    assert parse_secret_table(table) == secrets


@given(
    st.dictionaries(GUIDS, st.binary(max_size=20), min_size=1, max_size=3), st.data(), st.binary(max_size=64)
)
def test_any_bytes_are_a_value_or_our_error(
    secrets: dict[UUID, bytes], data: st.DataObject, more: bytes
) -> None:
    table = build_secret_table(secrets)
    at = data.draw(st.integers(0, len(table)))
    for raw in (more, table[:at], table[:at] + more, table[:at] + more + table[at + len(more) :]):
        try:
            assert build_secret_table(parse_secret_table(raw)) == raw
        except Malformed:
            continue


@pytest.mark.parametrize("secrets", [{}, {TABLE: b"x"}, {UUID(int=0): b"x"}, {UUID(int=1): bytes(16 * 1024)}])
def test_what_fits_no_table_is_refused(secrets: dict[UUID, bytes]) -> None:
    with pytest.raises(Malformed, match="secret table"):
        build_secret_table(secrets)


def test_every_byte_behind_the_entries_is_padding() -> None:
    table = build_secret_table({UUID(int=1): b"open"})
    assert len(table) == 48
    with pytest.raises(Malformed, match="padding"):
        parse_secret_table(table[:-1] + b"\x01")
    with pytest.raises(Malformed, match="padding"):
        parse_secret_table(table + bytes(16))


def test_two_secrets_do_not_have_one_name() -> None:
    entry = UUID(int=1).bytes_le + (24).to_bytes(4, "little") + b"open"
    table = TABLE.bytes_le + (68).to_bytes(4, "little") + entry * 2
    with pytest.raises(Malformed, match="twice"):
        parse_secret_table(table.ljust(80, b"\0"))


@pytest.mark.evidence
def test_the_recorded_table_is_built_byte_for_byte(evidence: Evidence) -> None:
    (one,) = json.loads(evidence.read("sev/secret/vectors.json"))["vectors"]
    decryptor = Cipher(
        algorithms.AES(evidence.read(one["tek"])), modes.CTR(bytes.fromhex(one["iv"]))
    ).decryptor()
    recorded = decryptor.update(bytes.fromhex(one["payload"]))
    secrets = {UUID(guid): evidence.read(path) for guid, path in one["secrets"]}
    assert build_secret_table(secrets) == recorded
    assert parse_secret_table(recorded) == secrets
