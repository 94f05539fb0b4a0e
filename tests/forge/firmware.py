"""Firmware images with the tables that loaders read: as small as possible, right unless a test spoils them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

PAGE: Final = 4096
FOOTER: Final = UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
RESET: Final = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
HASHES: Final = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
SEV: Final = UUID("dc886566-984a-4798-a75e-5585a7bf67cc")
TDX: Final = UUID("e47a6535-984a-4798-865e-4685a7bf8ec2")
SVSM: Final = UUID("a789a612-0597-4c4b-a49f-cbb1fe9d1ddd")

SEV_SECTIONS: Final[tuple[tuple[int, int, int], ...]] = (
    (0x800000, 0x9000, 1),
    (0x80D000, 0x1000, 2),
    (0x80E000, 0x1000, 3),
    (0x80F000, 0x1000, 4),
    (0x811000, 0xF000, 1),
    (0x810000, 0x1000, 0x10),
)
TDX_SECTIONS: Final[tuple[tuple[int, int, int, int, int, int], ...]] = (
    (0x1000, 0x3000, 0xFFFFD000, 0x3000, 0, 1),
    (0, 0x1000, 0xFFFFC000, 0x1000, 1, 0),
    (0, 0, 0x810000, 0x10000, 3, 0),
    (0, 0, 0x809000, 0x2000, 2, 0),
)


def u(value: int, size: int = 4) -> bytes:
    """A little-endian number."""
    return value.to_bytes(size, "little")


@dataclass(kw_only=True)
class Ovmf:
    """What goes into an image; ``build`` makes it. The pages in front of the tables are noise of ``seed``."""

    pages: int = 4
    seed: int = 0
    reset: int | None = 0x80B004
    hashes: tuple[int, int] | None = (0x810C00, 0x400)
    sev: Sequence[tuple[int, int, int]] | None = SEV_SECTIONS
    tdx: Sequence[tuple[int, int, int, int, int, int]] | None = TDX_SECTIONS
    svsm: int | None = None
    more: list[tuple[UUID, bytes]] = field(default_factory=list)
    footer: UUID = FOOTER

    def build(self) -> bytes:
        """The image, whose last page holds metadata and table."""
        noise = hashlib.shake_128(u(self.seed)).digest(PAGE * (self.pages - 1))
        page = bytearray(PAGE)
        entries: list[tuple[UUID, bytes]] = list(self.more)
        if self.sev is not None:
            body = b"ASEV" + u(16 + 12 * len(self.sev)) + u(1) + u(len(self.sev))
            body += b"".join(u(gpa) + u(size) + u(kind) for gpa, size, kind in self.sev)
            page[0x100 : 0x100 + len(body)] = body
            entries.append((SEV, u(PAGE - 0x100)))
        if self.tdx is not None:
            body = b"TDVF" + u(16 + 32 * len(self.tdx)) + u(1) + u(len(self.tdx))
            for offset, size, gpa, memory, kind, attributes in self.tdx:
                body += u(offset) + u(size) + u(gpa, 8) + u(memory, 8) + u(kind) + u(attributes)
            page[0x800 : 0x800 + len(body)] = body
            entries.append((TDX, u(PAGE - 0x800)))
        if self.reset is not None:
            entries.append((RESET, u(self.reset)))
        if self.hashes is not None:
            entries.append((HASHES, u(self.hashes[0]) + u(self.hashes[1])))
        if self.svsm is not None:
            entries.append((SVSM, u(self.svsm)))
        table = b"".join(data + u(len(data) + 18, 2) + guid.bytes_le for guid, data in entries)
        table += u(len(table) + 18, 2) + self.footer.bytes_le
        page[PAGE - 32 - len(table) : PAGE - 32] = table
        return noise + bytes(page)
