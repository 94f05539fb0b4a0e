"""Laws of what a TPM answers: reading is total, and what is read is what was there."""

from __future__ import annotations

from pathlib import Path

from fuzz.tpm_answer import one
from hypothesis import given
from hypothesis import strategies as st
from tests.docs.console import ROOT

from enarx.tcb import tpm

SEEDS = {path.name: path.read_bytes() for path in Path(ROOT, "fuzz/corpus/tpm_answer").iterdir()}


@given(st.binary(max_size=512))
def test_any_bytes_are_an_answer_or_refused(data: bytes) -> None:
    one(data)


@given(st.sampled_from(sorted(SEEDS)), st.data(), st.binary(max_size=8))
def test_answers_with_anything_in_them_are_read_or_refused(
    name: str, data: st.DataObject, put: bytes
) -> None:
    seed = SEEDS[name]
    at = data.draw(st.integers(0, len(seed) - 1))
    changed = seed[:at] + put + seed[at + len(put) :]
    one(changed)
    one(changed[:2] + len(changed).to_bytes(4, "big") + changed[6:])


@given(st.sets(st.integers(0, 23)), st.data())
def test_registers_are_read_as_they_were_written(selected: set[int], data: st.DataObject) -> None:
    values = {index: data.draw(st.binary(min_size=32, max_size=32)) for index in sorted(selected)}
    bits = sum(1 << index for index in selected)
    rest = bytes(4) + bytes.fromhex("00000001 000b 03") + bits.to_bytes(3, "little")
    rest += len(values).to_bytes(4, "big") + b"".join(b"\0\x20" + value for value in values.values())
    answer = bytes.fromhex("8001") + (10 + len(rest)).to_bytes(4, "big") + bytes(4) + rest
    assert tpm.read_pcr_values(answer) == values
