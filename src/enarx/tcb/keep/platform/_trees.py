"""The files of a platform: those of this system, or those behind a port to the platform itself."""

from __future__ import annotations

import os
from typing import Final, Protocol

from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value, decode, encode, frame

MAX_ANSWER_BYTES: Final = 128 << 10
"""A quote with its certificates has 20 KiB."""


class Tree(Protocol):
    """Files by relative path. Everything raises ``OSError``."""

    def make(self, path: str) -> None:
        """Make a directory."""

    def remove(self, path: str) -> None:
        """Remove a directory that we made, or a file that may be removed."""

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file at once."""

    def read(self, path: str) -> bytes:
        """Read a whole file at once."""

    def list(self, path: str) -> list[str]:
        """Give the names in a directory."""


class PortTree:
    """The files behind a descriptor: requests ``[op, path, data]``, answers ``[errno, data]``, in frames."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def make(self, path: str) -> None:
        """Make a directory."""
        self._ask("make", path)

    def remove(self, path: str) -> None:
        """Remove a directory or a file."""
        self._ask("remove", path)

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file at once."""
        self._ask("write", path, data)

    def read(self, path: str) -> bytes:
        """Read a whole file at once."""
        return self._ask("read", path)

    def list(self, path: str) -> list[str]:
        """Give the names in a directory."""
        names = self._ask("list", path).decode("ascii", "replace")
        return names.split("\n") if names else []

    def _ask(self, op: str, path: str, data: bytes = b"") -> bytes:
        request: list[Value] = [op, path, data]
        left = memoryview(frame(encode(request)))
        while left:
            left = left[os.write(self._fd, left) :]
        size = int.from_bytes(self._take(4), "big")
        if size > MAX_ANSWER_BYTES:
            raise OSError(0, "the platform's answer is too large")
        try:
            answer = decode(self._take(size), max_bytes=MAX_ANSWER_BYTES)
        except Malformed:
            raise OSError(0, "the platform's answer is malformed") from None
        match answer:
            case [0, bytes(content)]:
                return content
            case [int(code), bytes()] if 0 < code < 4096:  # of which Linux has names
                raise OSError(code, os.strerror(code))
        raise OSError(0, "the platform's answer is malformed")

    def _take(self, size: int) -> bytes:
        taken = bytearray()
        while len(taken) < size:
            part = os.read(self._fd, size - len(taken))
            if not part:
                raise OSError(0, "the platform is gone")
            taken += part
        return bytes(taken)
