"""The standard streams of an attested workload, and what is left of them when it has ended."""

from __future__ import annotations

import contextlib
import os
import select

from enarx.tcb.keep.stdio import PIPE_BYTES, READ_BYTES, StandardStreams
from enarx.tcb.session import Stream


def moved(streams: StandardStreams) -> None:
    """Move what can be moved, until nothing can."""
    while True:
        poll = select.poll()
        streams.register(poll, patient=True)
        ready = poll.poll(0)
        if not ready:
            return
        for fd, _ in ready:
            streams.serve(fd)


def fetched(streams: StandardStreams, stream: Stream) -> bytes:
    found = bytearray()
    while data := streams.backlogs[stream].after(len(found))[1]:
        found += data
    return bytes(found)


def test_a_thread_that_outlives_its_workload_never_writes_on_another_descriptor() -> None:
    """Its standard output keeps its number: else the next connection, which gets it, would carry bare output."""
    streams = StandardStreams()
    _, stdout, stderr = streams.inside()
    streams.finish()
    assert streams.drained
    for writer in (stdout, stderr):
        assert os.write(writer, b"too late") == 8  # it is a pipe still, to nobody
    moved(streams)
    assert fetched(streams, Stream.STDOUT) == b""


def test_all_that_was_written_before_the_end_is_there_and_nothing_else() -> None:
    streams = StandardStreams()
    _, stdout, _ = streams.inside()
    written = bytes(range(256)) * (PIPE_BYTES // 256)
    os.set_blocking(stdout, False)
    size = os.write(stdout, written)  # smaller than asked where pipes are
    streams.finish()
    for _ in range(3):  # whoever goes on writing does not keep the streams from ending
        poll = select.poll()
        streams.register(poll, patient=True)
        for fd, _ in poll.poll(0):
            streams.serve(fd)
        with contextlib.suppress(BlockingIOError):
            os.write(stdout, bytes(READ_BYTES))
    moved(streams)
    assert streams.drained
    assert fetched(streams, Stream.STDOUT) == written[:size]
