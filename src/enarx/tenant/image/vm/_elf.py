"""What the image needs of 64-bit ELF files: to drop what no loader reads, and to know which libraries they load.

Source: System V gABI, chapters 4 and 5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from enarx.tcb.errors import Malformed

MAGIC: Final = b"\x7fELF\x02\x01"  # 64 bits, little endian
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_DYNAMIC: Final = struct.Struct("<qQ")
_LOAD, _DYNAMIC_SEGMENT = 1, 2
_NULL, _NEEDED, _STRTAB = 0, 1, 5
_SECTION_OFFSET, _SECTION_COUNT = 0x28, 0x3C


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int


def is_elf(data: bytes) -> bool:
    """Whether ``data`` is a 64-bit ELF file."""
    return data.startswith(MAGIC)


def strip(data: bytes) -> bytes:
    """Cut off everything behind the last segment: section headers, symbols for debuggers. Raises ``Malformed``."""
    end = max(segment.offset + segment.size for segment in _segments(data))
    kept = bytearray(data[:end])
    kept[_SECTION_OFFSET : _SECTION_OFFSET + 8] = bytes(8)
    kept[_SECTION_COUNT : _SECTION_COUNT + 4] = bytes(4)  # and the index of their names
    return bytes(kept)


def needed(data: bytes) -> tuple[str, ...]:
    """Give the names of the libraries that ``data`` is linked with, in order. Raises ``Malformed``."""
    segments = list(_segments(data))
    dynamic = [segment for segment in segments if segment.kind == _DYNAMIC_SEGMENT]
    if not dynamic:
        return ()
    table = data[dynamic[0].offset : dynamic[0].offset + dynamic[0].size]
    entries: list[tuple[int, int]] = []
    for tag, value in _DYNAMIC.iter_unpack(table[: len(table) // _DYNAMIC.size * _DYNAMIC.size]):
        if tag == _NULL:
            break
        entries.append((tag, value))
    strings = next((value for tag, value in entries if tag == _STRTAB), None)
    if strings is None:
        return ()
    start, end = _place(segments, strings)
    return tuple(_text(data, start + value, end) for tag, value in entries if tag == _NEEDED)


def _segments(data: bytes) -> Iterator[_Segment]:
    if not is_elf(data) or len(data) < _HEADER.size:
        raise Malformed("elf: not a 64-bit little-endian file")
    _, _, _, _, _, offset, _, _, header_size, entry_size, count, _, _, _ = _HEADER.unpack_from(data)
    end = offset + count * _SEGMENT.size
    if header_size != _HEADER.size or entry_size != _SEGMENT.size or not count or end > len(data):
        raise Malformed("elf: the program headers are not where the header says")
    yield _Segment(_LOAD, 0, 0, end)  # the headers themselves must stay
    for at in range(offset, end, _SEGMENT.size):
        kind, _, start, address, _, size, _, _ = _SEGMENT.unpack_from(data, at)
        if start + size > len(data):
            raise Malformed(
                f"elf: a segment ends at {start + size:#x}, behind the file's {len(data):#x} bytes"
            )
        yield _Segment(kind, start, address, size)


def _place(segments: list[_Segment], address: int) -> tuple[int, int]:
    """Give the offset in the file of what is mapped to ``address``, and where its segment ends."""
    for segment in segments[1:]:
        if segment.kind == _LOAD and segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset, segment.offset + segment.size
    raise Malformed(f"elf: address {address:#x} lies in no segment")


def _text(data: bytes, start: int, end: int) -> str:
    stop = data.find(b"\0", start, end)
    try:
        name = data[start:stop].decode("ascii") if stop >= 0 else ""
    except UnicodeDecodeError:
        name = ""
    if not name:
        raise Malformed("elf: the name of a library is empty, not ASCII, or not in the table of strings")
    return name
