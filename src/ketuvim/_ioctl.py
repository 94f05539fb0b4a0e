"""Numbers of ioctls, computed as the kernel's asm-generic/ioctl.h does, and descriptors that own what they name."""

from __future__ import annotations

import ctypes
import fcntl
import os
import threading
from dataclasses import dataclass
from struct import Struct
from typing import Final

from ketuvim.errors import KvmError, Misuse

KVMIO: Final = 0xAE
_WRITE: Final = 1
_READ: Final = 2
_count: Final = threading.RLock()
"""Held for moments, to count who uses a descriptor; also over a fork, so that a child finds it free."""
os.register_at_fork(before=_count.acquire, after_in_parent=_count.release, after_in_child=_count.release)


@dataclass(frozen=True, slots=True)
class Request:
    """One ioctl: its name in the kernel's headers and its number."""

    name: str
    number: int


def _request(name: str, direction: int, nr: int, size: int, group: int) -> Request:
    return Request(name, direction << 30 | size << 16 | group << 8 | nr)


def io(name: str, nr: int, group: int = KVMIO) -> Request:
    """Name an ioctl whose argument is a number or nothing."""
    return _request(name, 0, nr, 0, group)


def ior(name: str, nr: int, layout: Struct, group: int = KVMIO) -> Request:
    """Name an ioctl through which the kernel gives ``layout``."""
    return _request(name, _READ, nr, layout.size, group)


def iow(name: str, nr: int, layout: Struct, group: int = KVMIO) -> Request:
    """Name an ioctl through which the kernel takes ``layout``."""
    return _request(name, _WRITE, nr, layout.size, group)


def iowr(name: str, nr: int, layout: Struct, group: int = KVMIO) -> Request:
    """Name an ioctl through which the kernel takes and gives ``layout``."""
    return _request(name, _READ | _WRITE, nr, layout.size, group)


class Descriptor:
    """A file descriptor that is closed once: by ``close`` or when nothing refers to it any more.

    While some thread asks the kernel, closing waits for its answer, so that a number that is used again for another
    file never gets what was meant for this one.
    """

    __slots__ = ("__weakref__", "_closed", "_fd", "_users")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._closed = fd < 0
        self._users = 0

    def fileno(self) -> int:
        """Give the number, which stays ours."""
        if self._closed:
            raise Misuse("the descriptor is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        """Say whether it was closed."""
        return self._closed

    def ioctl(self, request: Request, argument: int | bytearray = 0) -> int:
        """Ask the kernel; a ``bytearray`` is taken and filled in place."""
        with _count:
            fd = self.fileno()
            self._users += 1
        try:
            return fcntl.ioctl(fd, request.number, argument)
        except OSError as error:
            raise KvmError(request.name, error.errno or 0) from None
        finally:
            with _count:
                self._users -= 1
                self._finish()

    def close(self) -> None:
        """Close it, at once or after the last answer; a second time does nothing."""
        with _count:
            self._closed = True
            self._finish()

    def __del__(self) -> None:
        if hasattr(self, "_users"):
            self.close()

    def disown(self) -> None:
        """Close it in a forked child, in which the threads that ask do not exist."""
        self._users = 0
        self.close()

    def _finish(self) -> None:
        if self._closed and not self._users and self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class Pinned:
    """The address of a writable buffer, which can neither move nor be unmapped while this object lives."""

    __slots__ = ("_first", "address", "size")

    def __init__(self, buffer: bytearray | memoryview) -> None:
        with memoryview(buffer) as view:
            self.size = view.nbytes
        self._first = ctypes.c_char.from_buffer(buffer)  # holds all of the buffer, not only its first byte
        self.address = ctypes.addressof(self._first)
