"""Tables of launch secrets: what is built is read, whatever lies behind, and any bytes are a value or our error."""

from __future__ import annotations

from uuid import UUID

from fuzz.secret_table import one
from hypothesis import given
from hypothesis import strategies as st

from enarx.attest.sev import build_secret_table
from enarx.tcb.secret_table import ERASED_GUID, TABLE_GUID, guid_bytes, read_secret_table

GUIDS = st.uuids().filter(lambda guid: guid.bytes_le not in (TABLE_GUID, ERASED_GUID))
SECRETS = st.dictionaries(GUIDS, st.binary(max_size=80), min_size=1, max_size=6)


@given(secrets=SECRETS, behind=st.binary(max_size=64))
def test_what_was_built_is_read_whatever_lies_behind_it(secrets: dict[UUID, bytes], behind: bytes) -> None:
    table = build_secret_table(secrets)
    found, size = read_secret_table(table + behind)
    assert size == len(table)
    assert found == {guid_bytes(str(guid)): secret for guid, secret in secrets.items()}


@given(data=st.binary(max_size=256), marked=st.booleans())
def test_any_bytes_are_a_value_or_our_error(data: bytes, marked: bool) -> None:
    one((TABLE_GUID if marked else b"") + data)


@given(secrets=SECRETS, at=st.integers(0, 600), piece=st.binary(min_size=1, max_size=20))
def test_a_table_with_other_bytes_in_it_is_a_value_or_our_error(
    secrets: dict[UUID, bytes], at: int, piece: bytes
) -> None:
    table = build_secret_table(secrets)
    one(table[:at] + piece + table[at + len(piece) :])
