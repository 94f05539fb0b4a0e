"""What an OVMF or SVSM image asks of the launch of an SEV, SEV-ES or SEV-SNP guest.

Source: edk2, OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm and OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Final
from uuid import UUID

from enarx.attest._guid_table import (
    FOUR_GIB,
    PAGE_BYTES,
    check_image,
    entry_numbers,
    metadata_at,
    parse_guid_table,
)
from enarx.tcb.errors import Malformed

_RESET_BLOCK: Final = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
_KERNEL_HASHES: Final = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
_SEV_METADATA: Final = UUID("dc886566-984a-4798-a75e-5585a7bf67cc")
_SVSM_INFO: Final = UUID("a789a612-0597-4c4b-a49f-cbb1fe9d1ddd")
MAX_SECTION_BYTES: Final = 256 * 1024 * 1024
"""All sections together. Real images have less than 1 MiB; the limit bounds the time of a hostile one."""


class SectionKind(IntEnum):
    """What a section of the SEV metadata is for."""

    SEC_MEM = 1
    SECRETS = 2
    CPUID = 3
    SVSM_CAA = 4
    KERNEL_HASHES = 0x10


_KINDS: Final = frozenset(kind.value for kind in SectionKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Guest memory that is set up, and measured, before the guest starts. Addresses and sizes in bytes."""

    gpa: int
    size: int
    kind: SectionKind


@dataclass(frozen=True, slots=True, kw_only=True)
class SevFirmware:
    """An image and what it asks for. ``None`` stands for what the image does not offer."""

    image: bytes
    """May be empty where a digest of the image is known instead."""
    gpa: int
    sections: tuple[Section, ...] = ()
    ap_reset: int | None = None
    """Where application processors start: the image's SEV-ES reset block."""
    kernel_hashes_gpa: int | None = None
    svsm_entry: int | None = None
    """Guest physical address at which an SVSM starts."""

    def section(self, kind: SectionKind) -> Section | None:
        """Give the first section of ``kind``."""
        return next((section for section in self.sections if section.kind is kind), None)


def parse_sev_firmware(image: bytes, *, end: int = FOUR_GIB) -> SevFirmware:
    """Read an image that is mapped so that it ends at ``end``. Raises ``Malformed``."""
    check_image(image)
    gpa = end - len(image)
    if gpa < 0 or end % PAGE_BYTES:
        raise Malformed(f"firmware: {len(image):#x} bytes cannot end at {end:#x}")
    entries = parse_guid_table(image)
    reset = entry_numbers(entries, _RESET_BLOCK, "sev-es reset", 1)
    hashes = entry_numbers(entries, _KERNEL_HASHES, "kernel hashes", 2)
    svsm = entry_numbers(entries, _SVSM_INFO, "svsm", 1)
    metadata = entry_numbers(entries, _SEV_METADATA, "sev metadata", 1)
    return SevFirmware(
        image=image,
        gpa=gpa,
        sections=_sections(image, metadata[0]) if metadata else (),
        ap_reset=reset[0] if reset else None,
        kernel_hashes_gpa=hashes[0] or None if hashes else None,  # builds without support leave zero
        svsm_entry=gpa + svsm[0] if svsm else None,
    )


def _sections(image: bytes, offset_from_end: int) -> tuple[Section, ...]:
    """Read the SEV metadata: one (gpa u32, size u32, kind u32) a section."""
    sections: list[Section] = []
    for item in metadata_at(image, offset_from_end, "sev", b"ASEV", 12):
        gpa, size, number = (int.from_bytes(item[at : at + 4], "little") for at in (0, 4, 8))
        if number not in _KINDS:
            raise Malformed(f"firmware: sev section at {gpa:#x} has unknown kind {number:#x}")
        if gpa % PAGE_BYTES or size % PAGE_BYTES or not size or gpa + size > FOUR_GIB:
            raise Malformed(
                f"firmware: sev section {gpa:#x}+{size:#x} is not a range of whole pages below 4 GiB"
            )
        sections.append(Section(gpa=gpa, size=size, kind=SectionKind(number)))
    if sum(section.size for section in sections) > MAX_SECTION_BYTES:
        raise Malformed(f"firmware: sev sections cover more than {MAX_SECTION_BYTES:#x} bytes")
    ordered = sorted(sections, key=lambda section: section.gpa)
    for low, high in pairwise(ordered):
        if low.gpa + low.size > high.gpa:
            raise Malformed(f"firmware: sev sections at {low.gpa:#x} and {high.gpa:#x} overlap")
    for kind in (SectionKind.SECRETS, SectionKind.CPUID, SectionKind.KERNEL_HASHES):
        pages = sum(section.size for section in sections if section.kind is kind) // PAGE_BYTES
        if pages > 1:
            raise Malformed(
                f"firmware: sev metadata have {pages} {kind.name.lower()} pages, expected at most one"
            )
    return tuple(sections)
