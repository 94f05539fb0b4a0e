"""Parsers of legacy SEV are total: any bytes give a value or an error of ours."""

from __future__ import annotations

from fuzz.sev import one
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.forge.sev import Case, Launch


@given(st.binary(max_size=4096))
def test_any_bytes_are_a_value_or_our_error(data: bytes) -> None:
    one(data)


@settings(deadline=None)  # the first of them makes keys
@given(at=st.integers(0, 4 * 2084 + 2 * 832 - 1), piece=st.binary(min_size=1, max_size=64), cut=st.booleans())
def test_a_platform_with_other_bytes_in_it_is_a_value_or_our_error(at: int, piece: bytes, cut: bool) -> None:
    raw = b"".join(Case().certificates())
    one(raw[:at] + piece + (b"" if cut else raw[at + len(piece) :]))


@settings(deadline=None)  # the first of them makes keys
@given(at=st.integers(0, 8600), piece=st.binary(min_size=1, max_size=64), cut=st.booleans())
def test_evidence_with_other_bytes_in_it_is_a_value_or_our_error(at: int, piece: bytes, cut: bool) -> None:
    raw = Launch().raw
    one(raw[:at] + piece + (b"" if cut else raw[at + len(piece) :]))
