"""The table at the end of an OVMF image that tells a loader where the image's metadata lie.

The table ends 32 bytes before the image does and is read backwards. An entry is its data, a u16 with the size
of the whole entry, and a GUID; the last entry is the footer, whose size is that of the whole table. Source:
edk2, OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from enarx.tcb.errors import Malformed

PAGE_BYTES: Final = 4096
FOUR_GIB: Final = 1 << 32
MAX_IMAGE_BYTES: Final = 64 * 1024 * 1024
"""Firmware ends below 4 GiB, and QEMU takes at most 16 MiB; an SVSM is smaller still."""
_FOOTER: Final = UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
_HEADER_BYTES: Final = 18
_TAIL_BYTES: Final = 32


def check_image(image: bytes) -> None:
    """Refuse an image that is empty, too large, or no whole number of pages."""
    if not image or len(image) % PAGE_BYTES:
        raise Malformed(
            f"firmware: size {len(image):#x} is not a positive multiple of {PAGE_BYTES:#x}",
            hint="give the whole firmware image, for example OVMF.fd",
        )
    if len(image) > MAX_IMAGE_BYTES:
        raise Malformed(f"firmware: size {len(image)} exceeds {MAX_IMAGE_BYTES}")


def parse_guid_table(image: bytes) -> Mapping[UUID, bytes]:
    """Give the data of every entry; nothing when the image has no table. Raises ``Malformed``."""
    end = len(image) - _TAIL_BYTES
    if end < _HEADER_BYTES or image[end - 16 : end] != _FOOTER.bytes_le:
        return {}
    left = _size(image, end, "footer")
    if left > end:
        raise Malformed(f"firmware: guid table of {left:#x} bytes is larger than the image")
    start, end = end - left, end - _HEADER_BYTES
    entries: dict[UUID, bytes] = {}
    while end > start:
        if end - start < _HEADER_BYTES:
            raise Malformed(f"firmware: guid table has {end - start} bytes before its first entry")
        guid = UUID(bytes_le=image[end - 16 : end])
        size = _size(image, end, str(guid))
        if size > end - start:
            raise Malformed(f"firmware: guid table entry {guid} is larger than the table")
        if guid in entries or guid == _FOOTER:
            raise Malformed(f"firmware: guid table has two entries {guid}")
        entries[guid] = image[end - size : end - _HEADER_BYTES]
        end -= size
    return entries


def entry_numbers(entries: Mapping[UUID, bytes], guid: UUID, name: str, count: int) -> tuple[int, ...] | None:
    """Read an entry of ``count`` u32, or give nothing when there is no such entry."""
    if guid not in entries:
        return None
    data = entries[guid]
    if len(data) != 4 * count:
        raise Malformed(f"firmware: {name} entry has {len(data)} bytes, expected {4 * count}")
    return tuple(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))


def metadata_at(
    image: bytes, offset_from_end: int, name: str, signature: bytes, item_bytes: int
) -> tuple[bytes, ...]:
    """Cut the metadata (signature, size, version 1, count, items) that end ``offset_from_end`` before the
    end.
    """
    start = len(image) - offset_from_end
    if not 16 <= offset_from_end <= len(image):
        raise Malformed(f"firmware: {name} metadata offset {offset_from_end:#x} lies outside the image")
    size, version, count = (int.from_bytes(image[start + at : start + at + 4], "little") for at in (4, 8, 12))
    if image[start : start + 4] != signature:
        raise Malformed(f"firmware: {name} metadata do not begin with {signature.decode()}")
    if version != 1:
        raise Malformed(f"firmware: {name} metadata have version {version}, expected 1")
    if size != 16 + item_bytes * count or size > offset_from_end:
        raise Malformed(f"firmware: {name} metadata of {count} sections have {size:#x} bytes")
    if not count:
        raise Malformed(f"firmware: {name} metadata list no section")
    return tuple(image[at : at + item_bytes] for at in range(start + 16, start + size, item_bytes))


def _size(image: bytes, end: int, name: str) -> int:
    size = int.from_bytes(image[end - 18 : end - 16], "little")
    if size < _HEADER_BYTES:
        raise Malformed(
            f"firmware: guid table entry {name} has size {size}, at least {_HEADER_BYTES} is needed"
        )
    return size
