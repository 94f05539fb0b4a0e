"""Coalesced MMIO: writes of the guest that need no answer, collected in a ring without an exit for each."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Final

from ketuvim import _structs as s
from ketuvim.errors import KetuvimError

_ENTRIES: Final = (mmap.PAGESIZE - s.COALESCED_RING.size) // s.COALESCED_ENTRY.size


@dataclass(frozen=True, slots=True)
class CoalescedWrite:
    """One write; ``port`` says that the address is of a port."""

    address: int
    data: bytes
    port: bool


def drain(page: mmap.mmap, offset: int) -> list[CoalescedWrite]:
    """Empty the ring at ``offset``; the caller keeps others away."""
    first, last = s.COALESCED_RING.unpack_from(page, offset)
    if first >= _ENTRIES or last >= _ENTRIES:
        raise KetuvimError(
            f"the ring of coalesced writes has {_ENTRIES} places, not one at {first} or {last}"
        )
    found = []
    while first != last:
        where = offset + s.COALESCED_RING.size + first * s.COALESCED_ENTRY.size
        address, size, port, data = s.COALESCED_ENTRY.unpack_from(page, where)
        found.append(CoalescedWrite(address, data[:size], bool(port)))
        first = (first + 1) % _ENTRIES
    s.U32.pack_into(page, offset, first)
    return found
