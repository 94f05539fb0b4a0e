"""Sources and sinks of a workload's standard streams."""

from __future__ import annotations

import io
import os
import select
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from enarx.tcb.errors import EnarxError
from enarx.tenant.streams import Capture, Interrupt, captured, sink_of, source_of


def everything(given: bytes | BinaryIO | None) -> bytes:
    source = source_of(given)
    return b"".join(iter(source.read, b""))


def test_sources(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 300_000)
    assert everything(None) == b""
    assert everything(b"abc") == b"abc"
    assert everything(io.BytesIO(b"abc")) == b"abc"
    with (tmp_path / "file").open("rb") as file:
        assert source_of(file).fd == file.fileno()
        assert everything(file) == b"x" * 300_000


def test_a_source_that_is_gone_is_over() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        source = source_of(file)
        assert source.fd is not None
        assert source.read() == b""


def test_sinks() -> None:
    file, parts = io.BytesIO(), list[bytes]()
    for sink in (sink_of(file), sink_of(parts.append)):
        sink(b"a")
        sink(b"b")
        assert captured(sink) == b""
    keeping = sink_of(None)
    keeping(b"ab")
    assert (file.getvalue(), b"".join(parts), captured(keeping)) == (b"ab", b"ab", b"ab")


def test_a_sink_that_takes_little_gets_all() -> None:
    class Slow:
        def __init__(self) -> None:
            self.got = b""

        def write(self, data: memoryview) -> int:
            self.got += bytes(data[:1])
            return 1

        def flush(self) -> None:
            pass

    slow = Slow()
    sink_of(cast("BinaryIO", slow))(b"abc")
    assert slow.got == b"abc"


def test_capturing_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "LIMIT_BYTES", 3)
    sink = sink_of(None)
    sink(b"abc")
    with pytest.raises(EnarxError, match="more than 3 bytes"):
        sink(b"d")


def test_an_interrupt_is_heard_before_and_while_somebody_waits() -> None:
    interrupt = Interrupt()
    poll = select.poll()
    poll.register(interrupt, select.POLLIN)
    assert not poll.poll(0)
    interrupt.ring()
    interrupt.ring()
    assert poll.poll(0)
