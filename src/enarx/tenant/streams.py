"""Where standard input of a workload comes from and where its output goes to."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from typing import BinaryIO, Final, Protocol

from enarx.tcb.errors import EnarxError
from enarx.tcb.session import MAX_CHUNK_BYTES

Sink = Callable[[bytes], object]
"""Takes output; while it waits, the workload waits."""
Input = bytes | BinaryIO | None
Output = BinaryIO | Sink | None


class Interrupted(EnarxError):
    """Whoever waits has changed his mind."""


class Interrupt:
    """A bell that one thread rings and another hears while it waits."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        """End whatever waits, now or later. Safe in signal handlers and threads."""
        os.eventfd_write(self._fd, 1)

    def fileno(self) -> int:
        """Give the descriptor that becomes readable."""
        return self._fd

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._fd)


class Source(Protocol):
    """Where input comes from. ``fd`` is what to wait for; without one it is always there."""

    fd: int | None

    def read(self) -> bytes:
        """Give what there is, nothing at the end. Raises ``OSError``."""


class _File:
    def __init__(self, file: BinaryIO, fd: int | None) -> None:
        self._file = file
        self.fd = fd

    def read(self) -> bytes:
        if self.fd is None:
            return self._file.read(MAX_CHUNK_BYTES) or b""
        try:
            return os.read(self.fd, MAX_CHUNK_BYTES)
        except OSError:
            return b""  # a terminal that is gone


def source_of(given: Input) -> Source:
    """Make a source; nothing is an input that is over."""
    if given is None or isinstance(given, bytes):
        return _File(io.BytesIO(given or b""), None)
    try:
        return _File(given, given.fileno())
    except (OSError, AttributeError, ValueError):
        return _File(given, None)


class Capture:
    """Keeps output, up to a limit."""

    LIMIT_BYTES: Final = 64 << 20

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def __call__(self, data: bytes) -> None:
        """Add output. Raises ``EnarxError`` when it is too much."""
        self._size += len(data)
        if self._size > self.LIMIT_BYTES:
            hint = "give a file or a function for the output"
            raise EnarxError(f"output: more than {self.LIMIT_BYTES} bytes to keep in memory", hint=hint)
        self._parts.append(data)

    @property
    def data(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)


def sink_of(given: Output) -> Sink:
    """Make a sink; nothing is one that captures."""
    if given is None:
        return Capture()
    if callable(given):
        return given

    def write(data: bytes, file: BinaryIO = given) -> None:
        view = memoryview(data)
        while view:
            view = view[file.write(view) or 0 :]
        file.flush()

    return write


def captured(sink: Sink) -> bytes:
    """Give what a sink has captured, nothing if it is another."""
    return sink.data if isinstance(sink, Capture) else b""
