"""Memory of a guest, which cannot be freed under it.

A region is backed by a mapping that this library owns. Closing a region first takes the slot away from KVM, so that the
guest can reach it no more, and only then lets the mapping go; if the kernel refuses the first, the second does not
happen. The mapping itself is unmapped when nothing refers to it any more, so a view that somebody still holds stays
valid memory, which merely is no longer the guest's.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import weakref
from enum import IntFlag
from typing import TYPE_CHECKING, Final

from ketuvim import _numbers as n
from ketuvim import _structs as s
from ketuvim._ioctl import Descriptor, Pinned
from ketuvim.errors import Misuse

if TYPE_CHECKING:
    from ketuvim.vm import VirtualMachine

PAGE: Final = mmap.PAGESIZE
_FREED_BUT_IN_USE: Final[list[Pinned]] = []
"""Memory of slots that the kernel refused to delete: it stays mapped for as long as the process lives."""


class MemoryFlags(IntFlag):
    """How the guest may use a region, and what KVM writes down about it."""

    NONE = 0
    LOG_DIRTY_PAGES = 1 << 0
    READ_ONLY = 1 << 1
    GUEST_MEMFD = 1 << 2


class GuestMemfdFlags(IntFlag):
    """What the host may do with the memory of a ``GuestMemfd``."""

    NONE = 0
    MMAP = 1 << 0
    INIT_SHARED = 1 << 1


class GuestMemfd(Descriptor):
    """Memory that belongs to one virtual machine, and that the host maps only where its flags allow it."""

    __slots__ = ("flags", "size")

    def __init__(self, fd: int, size: int, flags: GuestMemfdFlags) -> None:
        super().__init__(fd)
        self.size = size
        self.flags = flags


def require_sealed(file: int, size: int) -> None:
    """Refuse a file whose end could come before ``size``, now or later."""
    try:
        seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0
    if not seals & fcntl.F_SEAL_SHRINK:
        raise Misuse("the file is no memfd that is sealed against shrinking (F_SEAL_SHRINK)")
    if os.fstat(file).st_size < size:
        raise Misuse(f"the file has {os.fstat(file).st_size} bytes, fewer than {size}")


class Mapping:
    """Writable memory of this process, page by page: anonymous, or of a file descriptor that can be mapped."""

    __slots__ = ("_map", "_pinned", "size")

    def __init__(self, size: int, *, file: int | None = None, offset: int = 0) -> None:
        if size <= 0 or size % PAGE or offset % PAGE:
            raise Misuse(f"a mapping has whole pages of {PAGE} bytes, not {size} bytes from {offset}")
        if file is None:
            self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            self._map = mmap.mmap(file, size, flags=mmap.MAP_SHARED, offset=offset)
        self._pinned: Pinned | None = Pinned(memoryview(self._map))
        self.size = size

    @property
    def pinned(self) -> Pinned:
        """The address, held."""
        if self._pinned is None:
            raise Misuse("the memory is freed")
        return self._pinned

    def read(self, offset: int, size: int) -> bytes:
        """Copy ``size`` bytes out."""
        self._check(offset, size)
        return self._map[offset : offset + size]

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Copy ``data`` in."""
        with memoryview(data) as view:
            self._check(offset, view.nbytes)
            self._map[offset : offset + view.nbytes] = bytes(view)

    def view(self) -> memoryview:
        """Look at the memory itself; while a view lives, the memory stays mapped, also after ``close``."""
        self._check(0, self.size)
        return memoryview(self._map)

    def close(self, *, keep: bool = False) -> None:
        """Let the memory go; it is unmapped once no view holds it. ``keep`` leaves it mapped for good."""
        pinned, self._pinned = self._pinned, None
        if pinned is None:
            return
        if keep:
            _FREED_BUT_IN_USE.append(pinned)
            return
        del pinned
        with contextlib.suppress(BufferError):  # somebody holds a view: the last one unmaps
            self._map.close()

    def _check(self, offset: int, size: int) -> None:
        if self._pinned is None:
            raise Misuse("the memory is freed")
        if not 0 <= offset <= offset + size <= self.size:
            raise Misuse(f"bytes {offset} to {offset + size} are outside memory of {self.size} bytes")


class MemoryRegion:
    """A piece of a guest's physical memory; ``VirtualMachine.add_region`` makes it."""

    __slots__ = (
        "__weakref__",
        "_flags",
        "_mapping",
        "_memfd",
        "_memfd_offset",
        "_vm",
        "address",
        "size",
        "slot",
    )

    def __init__(
        self,
        vm: VirtualMachine,
        *,
        slot: int,
        address: int,
        size: int,
        flags: MemoryFlags,
        mapping: Mapping | None,
        memfd: GuestMemfd | None,
        memfd_offset: int,
    ) -> None:
        self._vm: weakref.ref[VirtualMachine] | None = weakref.ref(vm)
        self._mapping = mapping
        self._memfd = memfd
        self._memfd_offset = memfd_offset
        self._flags = flags
        self.slot = slot
        self.address = address
        self.size = size
        self._set(vm.descriptor, flags, size)

    @property
    def flags(self) -> MemoryFlags:
        """How it is mapped into the guest now."""
        return self._flags

    @property
    def mapping(self) -> Mapping:
        """The memory, where the host can see it."""
        if self._mapping is None:
            raise Misuse("this region has only memory that the host cannot see")
        return self._mapping

    @property
    def closed(self) -> bool:
        """Say whether the guest has it no more."""
        return self._vm is None

    def read(self, offset: int, size: int) -> bytes:
        """Copy ``size`` bytes out, from ``offset`` in the region."""
        return self.mapping.read(offset, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Copy ``data`` to ``offset`` in the region."""
        self.mapping.write(offset, data)

    def view(self) -> memoryview:
        """Look at the memory itself."""
        return self.mapping.view()

    def set_flags(self, flags: MemoryFlags) -> None:
        """Change whether dirty pages are logged; KVM refuses to make an existing region read-only."""
        self._set(self._descriptor(), flags, self.size)
        self._flags = flags

    def dirty_pages(self) -> list[int]:
        """Give the numbers of the pages that the guest wrote to since the last call, and start anew."""
        bitmap = bytearray((self.size // PAGE + 63) // 64 * 8)
        log = Pinned(bitmap)
        self._descriptor().ioctl(n.GET_DIRTY_LOG, bytearray(s.DIRTY_LOG.pack(self.slot, log.address)))
        return [page for page in range(self.size // PAGE) if bitmap[page >> 3] >> (page & 7) & 1]

    def close(self) -> None:
        """Take the memory from the guest, then let it go; a second time does nothing."""
        vm = self._machine()
        self._vm = None
        try:
            if vm is not None and not vm.closed:
                self._set(vm.descriptor, MemoryFlags.NONE, 0)
                vm.forget(self)
        except BaseException:
            self._release(keep=True)
            raise
        self._release()

    def abandon(self) -> None:
        """Let the memory go after the machine itself: nothing can run in it any more."""
        self._vm = None
        self._release()

    def _release(self, *, keep: bool = False) -> None:
        if self._mapping is not None:
            self._mapping.close(keep=keep)
        self._memfd = None

    def _descriptor(self) -> Descriptor:
        vm = self._machine()
        if vm is None:
            raise Misuse("the region is closed")
        return vm.descriptor

    def _machine(self) -> VirtualMachine | None:
        return None if self._vm is None else self._vm()

    def _set(self, descriptor: Descriptor, flags: MemoryFlags, size: int) -> None:
        address = self._mapping.pinned.address if self._mapping else 0
        if self._memfd is None:
            packed = s.MEMORY_REGION.pack(self.slot, flags, self.address, size, address)
            descriptor.ioctl(n.SET_USER_MEMORY_REGION, bytearray(packed))
            return
        memfd = flags | MemoryFlags.GUEST_MEMFD if size else flags
        packed = s.MEMORY_REGION2.pack(
            self.slot, memfd, self.address, size, address, self._memfd_offset, self._memfd.fileno()
        )
        descriptor.ioctl(n.SET_USER_MEMORY_REGION2, bytearray(packed))
