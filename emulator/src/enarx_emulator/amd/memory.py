"""What guests of the secure processor own: memory, and the number by which the memory controller knows them."""

from __future__ import annotations

from typing import Final

from enarx_emulator.amd.status import SevStatus, require

PAGE_BYTES: Final = 4096
ADDRESS_BITS: Final = 48
MAX_GUEST_BYTES: Final = 1 << 30
"""So that no host fills the emulator's memory with one guest."""
_PAGE: Final = bytes(PAGE_BYTES)


class GuestMemory:
    """Guest-physical memory as the guest reads it; pages never written are zero."""

    def __init__(self) -> None:
        self._pages: dict[int, bytes] = {}

    def write(self, address: int, data: bytes) -> None:
        """Write anywhere. Raises ``FirmwareError`` (INVALID_ADDRESS, RESOURCE_LIMIT)."""
        check_range(address, len(data))
        at = 0
        while at < len(data):
            page, offset = divmod(address + at, PAGE_BYTES)
            part = data[at : at + PAGE_BYTES - offset]
            old = self._pages.get(page, _PAGE)
            require(
                page in self._pages or len(self._pages) < MAX_GUEST_BYTES // PAGE_BYTES,
                SevStatus.RESOURCE_LIMIT,
                f"guest has {MAX_GUEST_BYTES} bytes already",
            )
            self._pages[page] = old[:offset] + part + old[offset + len(part) :]
            at += len(part)

    def read(self, address: int, size: int) -> bytes:
        """Read anywhere. Raises ``FirmwareError`` (INVALID_ADDRESS)."""
        check_range(address, size)
        first, last = address // PAGE_BYTES, (address + max(size, 1) - 1) // PAGE_BYTES
        whole = b"".join(self._pages.get(page, _PAGE) for page in range(first, last + 1))
        return whole[address % PAGE_BYTES :][:size]


def check_range(address: int, size: int) -> None:
    """Refuse what lies outside the address space, or is more than a guest may have."""
    inside = address >= 0 and size <= MAX_GUEST_BYTES and address + size <= 1 << ADDRESS_BITS
    require(inside, SevStatus.INVALID_ADDRESS, f"no {size} bytes at {address:#x}")


class Asids:
    """Which address space identifier belongs to which guest, and which must be flushed before their next use."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._owners: dict[int, int] = {}
        self._dirty: set[int] = set()

    def check(self, asid: int) -> None:
        """Raise ``FirmwareError`` (INVALID_ASID, ASID_OWNED) unless it exists and no guest has it."""
        require(
            0 < asid <= self._count, SevStatus.INVALID_ASID, f"asid is {asid}, expected 1 to {self._count}"
        )
        owner = self._owners.get(asid)
        require(owner is None, SevStatus.ASID_OWNED, f"asid {asid} belongs to guest {owner}")

    def assign(self, asid: int, handle: int) -> None:
        """Give it to a guest (ACTIVATE). Raises as ``check``, and DFFLUSH_REQUIRED."""
        self.check(asid)
        clean = asid not in self._dirty
        require(clean, SevStatus.DFFLUSH_REQUIRED, f"asid {asid} was in use, and its data is not flushed")
        self._owners[asid] = handle

    def release(self, asid: int, *, used: bool) -> None:
        """Take it from its guest; one that ran leaves data behind."""
        del self._owners[asid]
        if used:
            self._dirty.add(asid)

    def flush(self) -> None:
        """Make those in no use clean (DF_FLUSH)."""
        self._dirty.clear()

    def free(self) -> int | None:
        """Give one that can be assigned, or ``None``: for hosts without a choice of their own."""
        used = self._owners.keys() | self._dirty
        return next((asid for asid in range(1, self._count + 1) if asid not in used), None)
