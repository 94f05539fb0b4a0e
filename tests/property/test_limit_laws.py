"""Limits: the reader is total, and what crosses the wall comes out as it went in."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from enarx.tcb.wire import decode, encode
from enarx.tcb.workload import LIMITS, InvalidLimit, Limits, parse_limit
from enarx.tcb.workload._limits import SUFFIXES, Unit

WRITTEN = st.builds(
    lambda name, number, suffix: f"{name}={number}{suffix}",
    st.sampled_from([*LIMITS, "memry", ""]),
    st.integers(-5, 1 << 70) | st.text(max_size=5),
    st.sampled_from(sorted({suffix for suffixes in SUFFIXES.values() for suffix in suffixes})),
)
VALID = st.fixed_dictionaries(
    {
        limit.field: st.integers(limit.low, limit.high) | (st.none() if limit.optional else st.nothing())
        for limit in LIMITS.values()
    }
)


@given(WRITTEN | st.text())
def test_any_text_is_a_limit_or_a_refusal(text: str) -> None:
    with contextlib.suppress(InvalidLimit):
        assert parse_limit(text) != Limits() or text.partition("=")[0] in LIMITS


@given(VALID)
def test_limits_survive_the_wall(value: dict[str, int | None]) -> None:
    limits = Limits.from_value(dict(value))
    assert Limits.from_value(decode(encode(dict(limits.value())), max_bytes=4096)) == limits


@given(st.sampled_from(sorted(LIMITS)), st.data())
def test_one_written_limit_changes_one_field(name: str, data: st.DataObject) -> None:
    limit = LIMITS[name]
    value = data.draw(st.integers(limit.low, limit.high))
    changed = parse_limit(f"{name}={value}{'ms' if limit.unit is Unit.TIME else ''}")
    assert changed.value() == {**Limits().value(), limit.field: value}
