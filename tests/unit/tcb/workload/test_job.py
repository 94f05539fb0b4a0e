"""A delivery survives the way into the keep, and nothing else passes for one."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value, decode, encode
from enarx.tcb.workload import Directory, Ending, Entry, EntryKind, Job, Limits, Outcome, Tree

TREE = Tree(
    (
        Entry(path="a", kind=EntryKind.DIRECTORY, modified_ns=1),
        Entry(path="a/b", kind=EntryKind.FILE, data=b"content", modified_ns=2),
        Entry(path="c", kind=EntryKind.SYMLINK, data=b"a/b", modified_ns=3),
    )
)
JOB = Job(
    module=b"\0asm\x01\0\0\0",
    config=b"args = []",
    arguments=["one", ""],
    environment=[("NAME", "a=b")],
    directories=[
        Directory(name="/data", tree=TREE, writable=False),
        Directory(name=".", tree=Tree(), returned=True),
    ],
    limits=Limits(memory_bytes=1 << 20, time_ms=5),
    threads=True,
    terminals=(True, False, True),
    code=b"sealed",
    seal_key=bytes(32),
    roots=b"-----BEGIN CERTIFICATE-----",
)


def parts(job: Job) -> tuple[dict[str, Any], bytes]:
    header = decode(encode(job.header()), max_bytes=1 << 20)
    assert isinstance(header, dict)
    return header, b"".join(job.blobs())


def test_a_job_survives_the_way() -> None:
    header, body = parts(JOB)
    assert len(body) == JOB.size
    assert Job.from_parts(header, memoryview(body)) == JOB


def test_the_seal_key_is_not_shown() -> None:
    assert repr(bytes(32)) not in repr(JOB)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("module", -1),
        ("module", 10**9),
        ("module", True),
        ("code", "6"),
        ("config", "text"),
        ("config", b"x" * 1_000_001),
        ("arguments", ["nul\0"]),
        ("arguments", "text"),
        ("arguments", [1]),
        ("environment", [["A"]]),
        ("environment", [["A=B", "c"]]),
        ("environment", [["", "c"]]),
        ("environment", [["A", "c\0"]]),
        ("directories", [["/x", True, False]]),
        ("directories", [["", True, False, []]]),
        ("directories", [["/x", 1, False, []]]),
        ("directories", [["/x", True, False, [["../up", "file", 0, 0]]]]),
        ("limits", {}),
        ("threads", 1),
        ("terminals", [True, True]),
        ("seal_key", b"short"),
        ("roots", None),
    ],
)
def test_a_wrong_field_is_refused(field: str, value: Value) -> None:
    header, body = parts(JOB)
    with pytest.raises(Malformed):
        Job.from_parts({**header, field: value}, memoryview(body))


def test_a_missing_and_an_unknown_field_are_refused() -> None:
    header, body = parts(JOB)
    with pytest.raises(Malformed):
        Job.from_parts({**header, "debug": True}, memoryview(body))
    del header["roots"]
    with pytest.raises(Malformed):
        Job.from_parts(header, memoryview(body))


@pytest.mark.parametrize("body", [b"", b"\0" * (JOB.size - 1), b"\0" * (JOB.size + 1)])
def test_a_body_of_another_size_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        Job.from_parts(parts(JOB)[0], memoryview(body))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(header=VALUES, body=st.binary(max_size=64))
def test_reading_is_total(header: Value, body: bytes) -> None:
    with pytest.raises(Malformed):
        Job.from_parts(header, memoryview(body))


@given(field=st.sampled_from(sorted(parts(JOB)[0])), value=VALUES)
def test_reading_is_total_in_each_field(field: str, value: Value) -> None:
    header, body = parts(JOB)
    with contextlib.suppress(Malformed):  # the only error that may leave
        Job.from_parts({**header, field: value}, memoryview(body))


@given(st.sampled_from(Ending), st.integers(0, 255), st.text(max_size=20), st.integers(0, 2**40))
def test_an_outcome_survives_the_way(ending: Ending, code: int, text: str, memory: int) -> None:
    outcome = Outcome(ending=ending, code=code, detail=text, hint=text, memory_bytes=memory)
    assert Outcome.from_value(outcome.value()) == outcome


@given(VALUES)
def test_no_other_value_is_an_outcome(value: Value) -> None:
    with pytest.raises(Malformed):
        Outcome.from_value(value)
