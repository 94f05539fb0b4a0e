"""A bounded cursor for structures of variable size."""

from __future__ import annotations

from typing import Literal

from enarx.tcb.errors import Malformed


class Reader:
    """Take fields off the front of ``data``; every shortage and every rest is ``Malformed``."""

    def __init__(self, data: bytes | memoryview, *, name: str) -> None:
        self._data = data
        self._at = 0
        self._name = name

    @property
    def remaining(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._at

    @property
    def offset(self) -> int:
        """How many bytes have been taken."""
        return self._at

    def take(self, size: int, field: str) -> bytes:
        """Take exactly ``size`` bytes."""
        if size < 0 or size > self.remaining:
            raise Malformed(f"{self._name}: {field} wants {size} bytes, {self.remaining} are left")
        self._at += size
        return bytes(self._data[self._at - size : self._at])

    def number(self, size: int, field: str, *, order: Literal["little", "big"] = "little") -> int:
        """Take an unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.take(size, field), order)

    def block(self, length_size: int, field: str, *, order: Literal["little", "big"] = "little") -> bytes:
        """Take a length of ``length_size`` bytes and then so many bytes."""
        return self.take(self.number(length_size, f"{field} length", order=order), field)

    def rest(self) -> bytes:
        """Take all that is left."""
        return self.take(self.remaining, "rest")

    def end(self) -> None:
        """Raise ``Malformed`` when anything is left."""
        if self.remaining:
            raise Malformed(f"{self._name}: {self.remaining} bytes trail at {self._at:#x}")
