"""MRTD: SHA-384 over the building of a trust domain, in buffers of 128 bytes.

Source: Intel TDX Module 1.5 ABI, TDH.MEM.PAGE.ADD and TDH.MR.EXTEND; the order is that of QEMU and KVM. No image with
an MRTD known from hardware was at hand: the order rests on two published programs that agree with this one.
"""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Final

from enarx.attest._guid_table import PAGE_BYTES
from enarx.attest._unmeasurable import Unmeasurable
from enarx.attest.tdx._tdvf import Attribute, SectionKind, TdFirmware, TdSection

CHUNK_BYTES: Final = 256
"""What one TDH.MR.EXTEND measures."""
_BUFFER: Final = 128


class PageOrder(Enum):
    """When a page that is added is measured."""

    PER_PAGE = "per-page"
    """Each page at once: Linux 6.16 and later, GCE."""
    PER_SECTION = "per-section"
    """All pages of a section are added first: the kernels with TDX before it was merged."""


def mrtd(firmware: TdFirmware, *, order: PageOrder = PageOrder.PER_PAGE) -> bytes:
    """Give MRTD (48 bytes). Raises ``Unmeasurable`` when the memory map of the machine would be part of it."""
    digest = hashlib.sha384()
    for section in firmware.sections:
        if Attribute.PAGE_AUG in section.attributes:
            continue  # pages that the guest accepts later are not part of the build
        if Attribute.MR_EXTEND not in section.attributes:
            for gpa in _pages(section):
                digest.update(_buffer(b"MEM.PAGE.ADD", gpa))
            continue
        if section.kind is SectionKind.TD_HOB:
            raise Unmeasurable(
                "firmware extends the td hob, so its MRTD depends on the memory of the machine"
            )
        contents = section.data.ljust(section.size, b"\0")
        if order is PageOrder.PER_SECTION:
            digest.update(b"".join(_buffer(b"MEM.PAGE.ADD", gpa) for gpa in _pages(section)))
        for gpa in _pages(section):
            if order is PageOrder.PER_PAGE:
                digest.update(_buffer(b"MEM.PAGE.ADD", gpa))
            digest.update(_extended(gpa, contents[gpa - section.gpa : gpa - section.gpa + PAGE_BYTES]))
    return digest.digest()


def _pages(section: TdSection) -> range:
    return range(section.gpa, section.gpa + section.size, PAGE_BYTES)


def _extended(gpa: int, page: bytes) -> bytes:
    """Give what measuring a page puts into the hash."""
    parts: list[bytes] = []
    for at in range(0, PAGE_BYTES, CHUNK_BYTES):
        parts += (_buffer(b"MR.EXTEND", gpa + at), page[at : at + CHUNK_BYTES])
    return b"".join(parts)


def _buffer(tag: bytes, gpa: int) -> bytes:
    return (tag.ljust(16, b"\0") + gpa.to_bytes(8, "little")).ljust(_BUFFER, b"\0")
