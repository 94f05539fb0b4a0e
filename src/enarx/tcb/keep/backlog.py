"""What a workload wrote and nobody has fetched yet: the last bytes of a stream, by offset."""

from __future__ import annotations

from collections import deque
from typing import Final

BACKLOG_BYTES: Final = 1 << 20
"""Of each stream: what a tenant who comes back can still read."""


class Backlog:
    """The end of one output stream. Offsets count from the stream's first byte."""

    def __init__(self, limit: int = BACKLOG_BYTES) -> None:
        self._limit = limit
        self._parts: deque[bytes] = deque()
        self.start = 0
        self.end = 0
        self._at = 0  # where the part is that was taken last, and its offset: reading goes on from there
        self._offset = 0

    @property
    def room(self) -> int:
        """How many bytes fit before something must be forgotten."""
        return max(0, self._limit - (self.end - self.start))

    def append(self, data: bytes) -> None:
        """Add what was written; forget whole parts from the front when it gets too much."""
        self._parts.append(data)
        self.end += len(data)
        while self.end - self.start > self._limit and len(self._parts) > 1:
            self._drop()

    def release(self, offset: int) -> None:
        """Forget whole parts before ``offset``, which has been fetched, once half of the room is used."""
        while self.end - self.start > self._limit // 2 and self.start + len(self._parts[0]) <= offset:
            self._drop()

    def after(self, offset: int) -> tuple[int, bytes]:
        """Give the next part from ``offset`` on and where it begins: later than asked where something is forgotten."""
        if offset < self._offset or self._offset < self.start:
            self._at, self._offset = 0, self.start
        while self._at < len(self._parts):
            part = self._parts[self._at]
            if offset < self._offset + len(part):
                begin = max(offset, self._offset)
                return begin, part[begin - self._offset :]
            self._offset += len(part)
            self._at += 1
        return self.end, b""

    def _drop(self) -> None:
        self.start += len(self._parts.popleft())
        self._at = max(0, self._at - 1)
