"""Limits: how users write them, their ranges, and their way across the wall."""

from __future__ import annotations

import pytest

from enarx.tcb.errors import Malformed
from enarx.tcb.record import names, replace
from enarx.tcb.wire import Value
from enarx.tcb.workload._limits import LIMITS, InvalidLimit, Limits, parse_limit


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("memory=64MiB", "memory_bytes", 64 << 20),
        ("memory=4GiB", "memory_bytes", 1 << 32),
        ("memory=65536", "memory_bytes", 65536),
        ("table=10M", "table_elements", 10_000_000),
        ("stack=64KiB", "stack_bytes", 64 << 10),
        ("stack=64MiB", "stack_bytes", 64 << 20),
        ("time=90", "time_ms", 90_000),
        ("time=90s", "time_ms", 90_000),
        ("time=500ms", "time_ms", 500),
        ("time=2m", "time_ms", 120_000),
        ("time=48h", "time_ms", 172_800_000),
        ("time=none", "time_ms", None),
        ("output=1k", "output_bytes", 1000),
        ("output=none", "output_bytes", None),
        ("files=100", "files", 100),
        ("storage=2G", "storage_bytes", 2_000_000_000),
        ("descriptors=3", "descriptors", 3),
        ("threads=8", "threads", 8),
        ("module=100M", "module_bytes", 100_000_000),
    ],
)
def test_written_limits(text: str, field: str, value: int | None) -> None:
    assert parse_limit(text) == Limits.from_value({**Limits().value(), field: value})


def test_limits_add_up() -> None:
    limits = parse_limit("time=1s", parse_limit("memory=1MiB"))
    assert (limits.memory_bytes, limits.time_ms) == (1 << 20, 1000)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "NAME=VALUE", "known are memory"),
        ("memory", "NAME=VALUE", "write memory=VALUE"),
        ("memry=1", "known name, found 'memry=1'", "did you mean `memory`?"),
        ("Memory=1", "known name", ""),
        ("memory=", "a whole number", ""),
        ("memory=0", "65536 to 4294967296 bytes, found 0", ""),
        ("memory=-1", "a whole number, alone or with one of KiB, MiB, GiB, k, M, G, found '-1'", ""),
        ("memory=+1", "a whole number", ""),
        ("memory=1.5GiB", "a whole number", ""),
        ("memory=1 GiB", "a whole number", ""),
        ("memory=1gib", "a whole number", ""),
        ("memory=5GiB", "found 5368709120", ""),
        ("memory=none", "a whole number", ""),
        ("memory=1s", "a whole number", ""),
        ("memory=9999999999999999999GiB", "65536 to", ""),
        ("memory=99999999999999999999", "a whole number", ""),
        ("memory=\u0663", "a whole number", ""),
        ("time=0", "1 to", ""),
        ("time=1d", "one of ms, s, m, h", "time=none"),
        ("output=0", "1 to", ""),
        ("stack=63KiB", "65536 to 67108864 bytes, found 64512", ""),
        ("descriptors=2", "3 to", ""),
        ("threads=0", "1 to", ""),
        ("threads=1GiB", "one of k, M", ""),
    ],
)
def test_refused_limits(text: str, message: str, hint: str) -> None:
    with pytest.raises(InvalidLimit) as caught:
        parse_limit(text)
    assert message in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", LIMITS)
def test_both_ends_of_each_range(name: str) -> None:
    limit = LIMITS[name]
    for value in (limit.low, limit.high):
        replace(Limits(), **{limit.field: value})
    for value in (limit.low - 1, limit.high + 1):
        with pytest.raises(InvalidLimit, match=f"^{name}: "):
            replace(Limits(), **{limit.field: value})


def test_every_field_has_a_name() -> None:
    assert [limit.field for limit in LIMITS.values()] == list(names(Limits))


def test_limits_cross_the_wall() -> None:
    limits = parse_limit("time=3s", parse_limit("memory=1MiB"))
    assert Limits.from_value(limits.value()) == limits


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {**Limits().value(), "more": 1},
        {**Limits().value(), "files": None},
        {**Limits().value(), "files": True},
        {**Limits().value(), "files": "1"},
        {**Limits().value(), "memory_bytes": -1},
        {**Limits().value(), "time_ms": 0},
    ],
)
def test_other_values_do_not(value: Value) -> None:
    with pytest.raises(Malformed):
        Limits.from_value(value)
