"""Standard streams, and the descriptor that swallows everything.

In a process keep the standard streams are descriptors of the host that came with the delivery. They are shared with
other processes of the host, so their mode is never changed: a non-blocking guest is served by asking first.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
from collections.abc import Callable
from typing import ClassVar, Final

from enarx.tcb.keep.wasi._abi import Errno, FdFlags, FileType, Rights, WasiError
from enarx.tcb.keep.wasi._fds import Buffers, Descriptor, Readiness

STREAM_RIGHTS: Final = Rights.FD_FILESTAT_GET | Rights.POLL_FD_READWRITE | Rights.FD_FDSTAT_SET_FLAGS
READ_RIGHTS: Final = STREAM_RIGHTS | Rights.FD_READ
WRITE_RIGHTS: Final = STREAM_RIGHTS | Rights.FD_WRITE


class Null(Descriptor):
    """Reads give the end, writes succeed and vanish."""

    def __init__(self) -> None:
        super().__init__(rights=READ_RIGHTS | WRITE_RIGHTS)

    def set_flags(self, flags: FdFlags) -> None:
        """Take any flags; they change nothing."""
        self.flags = flags

    def read(self, buffers: Buffers) -> int:
        """Give the end."""
        return 0

    def write(self, buffers: Buffers) -> int:
        """Swallow the bytes."""
        return sum(map(len, buffers))


def available(fd: int) -> int:
    """Ask how many bytes can be read from the operating system's descriptor ``fd`` at once; 0 when it cannot say."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))[0])
    except OSError:
        return 0


class StandardStream(Descriptor):
    """A standard stream over a descriptor of the operating system. A terminal shows itself as one."""

    def __init__(self, fd: int, *, terminal: bool, rights: Rights) -> None:
        super().__init__(rights=rights)
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN if Rights.FD_READ in rights else select.POLLOUT)
        if terminal:
            self.filetype = FileType.CHARACTER_DEVICE  # type: ignore[misc] # of this one stream

    filetype: ClassVar[FileType] = FileType.UNKNOWN

    def set_flags(self, flags: FdFlags) -> None:
        """Remember the flags; NONBLOCK makes reads and writes ask first."""
        self.flags = flags

    def ready(self, *, write: bool) -> Readiness | None:
        """Ask the operating system whether the stream would block."""
        for _, events in self._poll.poll(0):
            return Readiness(
                available=1 if write else available(self._fd),
                hangup=bool(events & (select.POLLHUP | select.POLLERR)),
            )
        return None

    def waitable(self) -> int:
        """Give the descriptor itself."""
        return self._fd

    def _wait(self) -> None:
        if FdFlags.NONBLOCK in self.flags and not self._poll.poll(0):
            raise WasiError(Errno.AGAIN)

    def read(self, buffers: Buffers) -> int:
        """Read straight into the guest's memory."""
        if self.flags:
            self._wait()
        return os.readv(self._fd, buffers)

    def write(self, buffers: Buffers) -> int:
        """Write straight from the guest's memory."""
        if self.flags:
            self._wait()
        return os.writev(self._fd, buffers)


class Output(StandardStream):
    """Standard output or error; ``spend`` accounts for the bytes and raises when they are too many."""

    def __init__(self, fd: int, *, terminal: bool, spend: Callable[[int], None]) -> None:
        super().__init__(fd, terminal=terminal, rights=WRITE_RIGHTS)
        self._spend = spend

    def write(self, buffers: Buffers) -> int:
        """Write, within the output that the run may produce."""
        self._spend(sum(map(len, buffers)))
        return super().write(buffers)


class Input(StandardStream):
    """Standard input."""

    def __init__(self, fd: int, *, terminal: bool) -> None:
        super().__init__(fd, terminal=terminal, rights=READ_RIGHTS)
