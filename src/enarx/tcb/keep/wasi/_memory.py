"""The guest's memory; the only code that turns the guest's numbers into bytes of ours.

Every pointer and length is the guest's word and is checked against the size of the memory before anything is read
or written. The engine keeps a memory where it is while it grows (``engine.py``), so one view serves until an access
lies beyond it; then the size is asked anew.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from typing import Final

from enarx.tcb.keep.wasi._abi import Errno, WasiError

Extent = tuple[int, int]
"""Address and size of a memory, in bytes."""

MAX_VECTORS: Final = 1024
"""Buffers of one call that are served; with more the call is partial, as POSIX allows (IOV_MAX)."""

_VECTOR: Final = struct.Struct("<II")
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")


class GuestMemory:
    """A bounds-checked window on one linear memory."""

    __slots__ = ("_extent", "size", "view")

    def __init__(self) -> None:
        self._extent: Callable[[], Extent] | None = None
        self.view = memoryview(b"")
        self.size = 0

    def attach(self, extent: Callable[[], Extent]) -> None:
        """Use the memory that ``extent`` describes; it is asked again whenever the guest reaches beyond the view."""
        self._extent = extent
        self._refresh()

    def _refresh(self) -> None:
        if self._extent is None:
            raise WasiError(Errno.FAULT)
        address, size = self._extent()
        if size != self.size:
            self.view = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
            self.size = size

    def measure(self) -> int:
        """Give the size that the memory has now."""
        if self._extent is not None:
            self._refresh()
        return self.size

    def slice(self, pointer: int, size: int) -> memoryview:
        """Give the guest's bytes from ``pointer`` on, to read or write. Raises FAULT when they are not all there."""
        end = pointer + size
        if end > self.size:
            self._refresh()
            if end > self.size:
                raise WasiError(Errno.FAULT)
        return self.view[pointer:end]

    def vectors(self, pointer: int, count: int) -> Sequence[memoryview]:
        """Read an array of ``count`` buffers (``iovec`` or ``ciovec``)."""
        if count == 1:
            if pointer + 8 > self.size:
                self.slice(pointer, 8)
            return (self.slice(*_VECTOR.unpack_from(self.view, pointer)),)
        table = self.slice(pointer, 8 * min(count, MAX_VECTORS))
        buffers = [self.slice(start, size) for start, size in _VECTOR.iter_unpack(table)]
        if sum(map(len, buffers)) > 0xFFFFFFFF:
            raise WasiError(Errno.INVAL)
        return buffers

    def text(self, pointer: int, size: int) -> str:
        """Read a string; WASI's are UTF-8 without a NUL."""
        try:
            text = str(self.slice(pointer, size), "utf-8")
        except UnicodeDecodeError:
            raise WasiError(Errno.ILSEQ) from None
        if "\0" in text:
            raise WasiError(Errno.INVAL)
        return text

    def write(self, pointer: int, data: bytes) -> None:
        """Write ``data`` at ``pointer``."""
        self.slice(pointer, len(data))[:] = data

    def write_u32(self, pointer: int, value: int) -> None:
        """Write a 32-bit number."""
        end = pointer + 4
        if end > self.size:
            self.slice(pointer, 4)
        _U32.pack_into(self.view, pointer, value)

    def write_u64(self, pointer: int, value: int) -> None:
        """Write a 64-bit number."""
        self.slice(pointer, 8)
        _U64.pack_into(self.view, pointer, value)
