"""Descriptors and their table: what a guest's small number stands for, and what it may do with it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import ClassVar, Final, NamedTuple

from enarx.tcb.keep.wasi._abi import FILESTAT, Errno, FdFlags, FileType, FstFlags, Rights, WasiError, Whence

NO_RIGHTS: Final = Rights(0)
NO_FLAGS: Final = FdFlags(0)

Buffers = Sequence[memoryview]
"""The guest's buffers of one scattered read or gathered write, already checked against its memory."""


class FileStat(NamedTuple):
    """``filestat``: times are nanoseconds since 1970."""

    device: int = 0
    inode: int = 0
    filetype: FileType = FileType.UNKNOWN
    links: int = 1
    size: int = 0
    accessed: int = 0
    modified: int = 0
    changed: int = 0

    def pack(self) -> bytes:
        """Give the 64 bytes that the guest reads."""
        return FILESTAT.pack(
            self.device,
            self.inode,
            self.filetype,
            self.links,
            self.size,
            self.accessed,
            self.modified,
            self.changed,
        )


class Readiness(NamedTuple):
    """What ``poll_oneoff`` tells about a descriptor that is ready."""

    available: int = 0
    hangup: bool = False


class Descriptor:
    """One open thing. Each kind overrides what it can do; all else answers an error.

    ``rights`` says which calls are allowed at all and ``inheriting`` which rights descriptors opened through this
    one may have; the table checks them before it calls a method.
    """

    filetype: ClassVar[FileType] = FileType.UNKNOWN
    preopen_name: bytes | None = None
    """The path under which a directory was given to the guest at its start."""

    def __init__(self, *, rights: Rights, inheriting: Rights = NO_RIGHTS, flags: FdFlags = NO_FLAGS) -> None:
        self.rights = rights
        self.inheriting = inheriting
        self.flags = flags

    def set_flags(self, flags: FdFlags) -> None:
        """``fd_fdstat_set_flags``."""
        raise WasiError(Errno.NOTSUP)

    def read(self, buffers: Buffers) -> int:
        """Read at the current position; 0 is the end."""
        raise WasiError(Errno.BADF)

    def write(self, buffers: Buffers) -> int:
        """Write at the current position."""
        raise WasiError(Errno.BADF)

    def pread(self, buffers: Buffers, offset: int) -> int:
        """Read at ``offset`` without moving the position."""
        raise WasiError(Errno.SPIPE)

    def pwrite(self, buffers: Buffers, offset: int) -> int:
        """Write at ``offset`` without moving the position."""
        raise WasiError(Errno.SPIPE)

    def seek(self, offset: int, whence: Whence) -> int:
        """Move the position and give it; ``offset`` is signed."""
        raise WasiError(Errno.SPIPE)

    def allocate(self, offset: int, length: int) -> None:
        """Make room for ``length`` bytes at ``offset``."""
        raise WasiError(Errno.NOTSUP)

    def advise(self, offset: int, length: int, advice: int) -> None:
        """Take a hint about the coming accesses."""
        raise WasiError(Errno.SPIPE)

    def sync(self) -> None:
        """``fd_sync`` and ``fd_datasync``."""

    def filestat(self) -> FileStat:
        """``fd_filestat_get``."""
        return FileStat(filetype=self.filetype)

    def set_size(self, size: int) -> None:
        """``fd_filestat_set_size``."""
        raise WasiError(Errno.INVAL)

    def set_times(self, accessed: int, modified: int, flags: FstFlags) -> None:
        """``fd_filestat_set_times``."""
        raise WasiError(Errno.NOTSUP)

    def accept(self, flags: FdFlags) -> Descriptor:
        """``sock_accept``."""
        raise WasiError(Errno.NOTSOCK)

    def receive(self, buffers: Buffers, flags: int) -> tuple[int, int]:
        """``sock_recv``: the number of bytes and the result flags."""
        raise WasiError(Errno.NOTSOCK)

    def send(self, buffers: Buffers) -> int:
        """``sock_send``."""
        raise WasiError(Errno.NOTSOCK)

    def shutdown(self, how: int) -> None:
        """``sock_shutdown``; ``how`` is ``SD_RD``, ``SD_WR`` or both."""
        raise WasiError(Errno.NOTSOCK)

    def ready(self, *, write: bool) -> Readiness | None:
        """Say whether a read (or write) would not block now, or None when one must wait on ``waitable``."""
        return Readiness()

    def waitable(self) -> int:
        """Give the operating system's descriptor on which to wait when ``ready`` gave None."""
        raise WasiError(Errno.NOTSUP)

    def close(self) -> None:
        """Give back what this holds; called once, when the last number for it is closed."""


_both: Final = int.__and__  # thirty times as fast as the flags' own operator, and this is the hot path
MAX_FD: Final = (1 << 31) - 1


class Table:
    """The guest's descriptor numbers. Lowest free number first, as POSIX has it."""

    def __init__(self, *, limit: int) -> None:
        self._open: dict[int, Descriptor] = {}
        self._limit = limit

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, fd: int) -> bool:
        return fd in self._open

    def items(self) -> list[tuple[int, Descriptor]]:
        """All numbers with what they stand for."""
        return list(self._open.items())

    def get(self, fd: int, rights: Rights = NO_RIGHTS) -> Descriptor:
        """Give the descriptor ``fd``, if it has ``rights``: else BADF or NOTCAPABLE."""
        descriptor = self._open.get(fd)
        if descriptor is None:
            raise WasiError(Errno.BADF)
        if rights is not NO_RIGHTS and _both(rights, descriptor.rights) != rights:
            raise WasiError(Errno.NOTCAPABLE)
        return descriptor

    def add(self, descriptor: Descriptor) -> int:
        """Enter ``descriptor`` under the lowest free number."""
        if len(self._open) >= self._limit:
            raise WasiError(Errno.MFILE)
        fd = next(number for number in range(len(self._open) + 1) if number not in self._open)
        self._open[fd] = descriptor
        return fd

    def place(self, fd: int, descriptor: Descriptor) -> None:
        """Enter ``descriptor`` under ``fd``, which is free."""
        self._open[fd] = descriptor

    def close(self, fd: int) -> None:
        """Close ``fd``."""
        self.get(fd)
        self._open.pop(fd).close()

    def close_all(self) -> None:
        """Close everything, so that peers are told of the end; what cannot be told is not."""
        for _, descriptor in self.items():
            with contextlib.suppress(WasiError, OSError):
                descriptor.close()
        self._open.clear()

    def renumber(self, source: int, target: int) -> None:
        """Move ``source`` over ``target``, which must be open and is closed."""
        descriptor = self.get(source)
        old = self.get(target)
        if source == target:
            return
        del self._open[source]
        self._open[target] = descriptor
        old.close()
