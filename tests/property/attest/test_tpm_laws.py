"""Laws of TPM quotes: parsing is total, and what is read is what was written."""

from __future__ import annotations

from fuzz.tpm import one
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.forge.tpm import Case

from enarx.attest.tpm import parse_quote

HEALTHY = Case()
ATTEST, SIGNATURE, RAW = HEALTHY.attest, HEALTHY.signature, HEALTHY.raw


@given(st.binary(max_size=1024))
def test_any_bytes_are_a_quote_or_malformed(data: bytes) -> None:
    one(data)
    one(ATTEST[:6] + data)


@given(st.integers(0, len(RAW) - 1), st.binary(max_size=8))
def test_evidence_with_anything_in_it_is_read_or_malformed(at: int, data: bytes) -> None:
    one(RAW[:at] + data + RAW[at + len(data) :])
    one(ATTEST[: at % len(ATTEST)] + data)


@given(st.binary(max_size=64), st.sets(st.integers(0, 23), min_size=1))
@settings(max_examples=25, deadline=None)
def test_what_a_quote_says_is_what_was_put_in(extra: bytes, selected: set[int]) -> None:
    bits = sum(1 << index for index in selected).to_bytes(3, "little")
    values = {index: bytes([index]) * 32 for index in sorted(selected)}
    case = Case(extra_data=extra, banks=((0x0B, bits),), pcrs=values)
    read = parse_quote(case.attest, SIGNATURE, b"".join(values.values()))
    assert (read.extra_data, read.selection, dict(read.pcrs)) == (extra, tuple(sorted(selected)), values)
