"""What a TDVF image (OVMF with TDX metadata) asks of the launch of a trust domain.

Source: Intel TDX Virtual Firmware Design Guide, section 11.2; edk2, OvmfPkg/ResetVector/X64/IntelTdxMetadata.asm.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from itertools import pairwise
from typing import Final
from uuid import UUID

from enarx.attest._guid_table import PAGE_BYTES, check_image, entry_numbers, metadata_at, parse_guid_table
from enarx.attest._unmeasurable import Unmeasurable
from enarx.tcb.errors import Malformed

_TDX_METADATA: Final = UUID("e47a6535-984a-4798-865e-4685a7bf8ec2")
MAX_SECTION_BYTES: Final = 256 * 1024 * 1024
"""All sections together; bounds the time of a hostile image."""


class SectionKind(IntEnum):
    """What a section is for; those that QEMU starts."""

    BFV = 0
    CFV = 1
    TD_HOB = 2
    TEMP_MEM = 3


class Attribute(IntFlag):
    """How a section enters MRTD."""

    MR_EXTEND = 1
    PAGE_AUG = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TdSection:
    """Guest memory that is set up before the domain starts; beyond ``data`` it is zero."""

    gpa: int
    size: int
    kind: SectionKind
    attributes: Attribute
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TdFirmware:
    """The sections in the order of the metadata, which is that of the measurement."""

    sections: tuple[TdSection, ...]

    def only(self, kind: SectionKind) -> TdSection:
        """Give the one section of ``kind``. Raises ``Unmeasurable``."""
        found = [section for section in self.sections if section.kind is kind]
        if len(found) != 1:
            raise Unmeasurable(
                f"firmware has {len(found)} tdx sections of kind {kind.name.lower()}, expected one"
            )
        return found[0]


_KINDS: Final = frozenset(kind.value for kind in SectionKind)


def parse_td_firmware(image: bytes) -> TdFirmware:
    """Read an image. Raises ``Malformed``, and ``Unmeasurable`` when it has no TDX metadata."""
    check_image(image)
    metadata = entry_numbers(parse_guid_table(image), _TDX_METADATA, "tdx metadata", 1)
    if metadata is None:
        raise Unmeasurable(
            "firmware has no tdx metadata",
            hint="use a whole OVMF.fd built with TDX support, not OVMF_CODE of 4 MB",
        )
    sections = [_section(image, item) for item in metadata_at(image, metadata[0], "tdx", b"TDVF", 32)]
    if sum(section.size for section in sections) > MAX_SECTION_BYTES:
        raise Malformed(f"firmware: tdx sections cover more than {MAX_SECTION_BYTES:#x} bytes")
    for low, high in pairwise(sorted(sections, key=lambda section: section.gpa)):
        if low.gpa + low.size > high.gpa:
            raise Malformed(f"firmware: tdx sections at {low.gpa:#x} and {high.gpa:#x} overlap")
    return TdFirmware(sections=tuple(sections))


def _section(image: bytes, item: bytes) -> TdSection:
    """Read (data offset u32, data size u32, gpa u64, memory size u64, kind u32, attributes u32)."""
    spans = ((0, 4), (4, 4), (8, 8), (16, 8), (24, 4), (28, 4))
    offset, data_size, gpa, size, kind, attributes = (
        int.from_bytes(item[at : at + width], "little") for at, width in spans
    )
    where = f"firmware: tdx section {gpa:#x}+{size:#x}"
    if kind not in _KINDS or attributes & ~3:
        raise Malformed(f"{where} has unknown kind {kind:#x} or attributes {attributes:#x}")
    if gpa % PAGE_BYTES or size % PAGE_BYTES or not size or gpa + size > 1 << 52:
        raise Malformed(f"{where} is no range of whole pages")
    if offset + data_size > len(image) or data_size > size:
        raise Malformed(
            f"{where} has data {offset:#x}+{data_size:#x}, which are not in the image or exceed it"
        )
    if bool(data_size) != (kind in (SectionKind.BFV, SectionKind.CFV)):
        raise Malformed(f"{where} of kind {SectionKind(kind).name.lower()} has {data_size:#x} bytes of data")
    return TdSection(
        gpa=gpa,
        size=size,
        kind=SectionKind(kind),
        attributes=Attribute(attributes),
        data=image[offset : offset + data_size],
    )
