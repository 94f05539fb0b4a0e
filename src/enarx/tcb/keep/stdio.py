"""The standard streams of an attested workload: pipes to its thread, and what waits on our side of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from typing import Final

from enarx.tcb.keep.backlog import Backlog
from enarx.tcb.keep.wasi._stdio import available
from enarx.tcb.session import Stream

PIPE_BYTES: Final = 1 << 18
READ_BYTES: Final = 1 << 17
INPUT_BYTES: Final = 1 << 20
"""Typed ahead of a workload that does not read; then the tenant has to wait."""


class StandardStreams:
    """Three pipes, made before the process is confined."""

    def __init__(self) -> None:
        self._stdin, self._typing = os.pipe()
        self._pipes: dict[int, Stream] = {}
        self._writers: dict[Stream, int] = {}
        self.backlogs: dict[Stream, Backlog] = {}
        os.set_blocking(self._typing, False)
        for stream in Stream:
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            with contextlib.suppress(OSError):  # a user may have only so much of it; smaller pipes are slower
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            self._pipes[reader], self._writers[stream], self.backlogs[stream] = stream, writer, Backlog()
        self._left: dict[int, int] = {}  # what was in each pipe when the workload had ended
        self._input = bytearray()
        self._closing = False

    def descriptors(self) -> tuple[int, ...]:
        """Give all six."""
        return (self._stdin, self._typing, *self._pipes, *self._writers.values())

    def inside(self) -> tuple[int, int, int]:
        """Give the workload's ends."""
        return (self._stdin, self._writers[Stream.STDOUT], self._writers[Stream.STDERR])

    @property
    def full(self) -> bool:
        """Whether so much is typed ahead that no more should be taken."""
        return len(self._input) >= INPUT_BYTES

    @property
    def drained(self) -> bool:
        """Whether everything that the workload wrote is in the backlogs."""
        return not self._pipes

    def register(self, poll: select.poll, *, patient: bool) -> None:
        """Wait for what can be moved. With a ``patient`` reader a full backlog stops the workload; else it forgets."""
        if self._input and self._typing >= 0:
            poll.register(self._typing, select.POLLOUT)
        for reader, stream in self._pipes.items():
            if not patient or self.backlogs[stream].room >= READ_BYTES:
                poll.register(reader, select.POLLIN)

    def serve(self, fd: int) -> bool:
        """Move bytes at ``fd``; say whether it is one of ours."""
        if fd == self._typing:
            self._feed()
        elif fd in self._pipes:
            self._take(fd)
        else:
            return False
        return True

    def type(self, data: bytes) -> None:
        """Take standard input; nothing is its end."""
        if self._closing:
            return
        self._input += data
        self._closing = not data
        self._feed()

    def finish(self) -> None:
        """The workload has ended: what is in the pipes is all there is.

        Its threads may go on. Its ends are never closed, or they would write on what gets those numbers next.
        """
        self._left = {reader: available(reader) for reader in self._pipes}
        for reader in list(self._pipes):
            self._forget_drained(reader)

    def _feed(self) -> None:
        if self._typing < 0:
            return
        try:
            while self._input:
                del self._input[: os.write(self._typing, self._input[:READ_BYTES])]
        except BlockingIOError:
            return
        except OSError:  # the workload has closed its end
            self._input.clear()
            self._closing = True
        if self._closing:
            os.close(self._typing)
            self._typing = -1

    def _take(self, reader: int) -> None:
        try:
            data = os.read(reader, min(READ_BYTES, self._left.get(reader, READ_BYTES)))
        except BlockingIOError:
            return
        if data:
            self.backlogs[self._pipes[reader]].append(data)
        else:
            self._left[reader] = 0
        if reader in self._left:
            self._left[reader] -= len(data)
            self._forget_drained(reader)

    def _forget_drained(self, reader: int) -> None:
        if not self._left[reader]:
            del self._pipes[reader]
