"""The tables of a firmware image: read as they are, refused when they contradict themselves."""

from __future__ import annotations

from uuid import UUID

import pytest
from tests.forge.firmware import FOOTER, RESET, SEV_SECTIONS, Ovmf

from enarx.attest._guid_table import parse_guid_table
from enarx.attest.amd._cpu import CPU_SIGNATURES, cpu_signature
from enarx.attest.amd._ovmf import SectionKind, parse_sev_firmware
from enarx.attest.measure import Unmeasurable
from enarx.tcb.errors import Malformed


def test_everything_is_read() -> None:
    firmware = parse_sev_firmware(Ovmf(svsm=0x10).build())
    assert firmware.gpa == (1 << 32) - 4 * 4096
    assert [(s.gpa, s.size, s.kind) for s in firmware.sections] == list(SEV_SECTIONS)
    assert (firmware.ap_reset, firmware.kernel_hashes_gpa) == (0x80B004, 0x810C00)
    assert firmware.svsm_entry == firmware.gpa + 0x10
    section = firmware.section(SectionKind.CPUID)
    assert section is not None
    assert section.gpa == 0x80E000


def test_an_image_without_a_table_offers_nothing() -> None:
    firmware = parse_sev_firmware(bytes(4096))
    assert (firmware.sections, firmware.ap_reset, firmware.kernel_hashes_gpa) == ((), None, None)
    assert parse_guid_table(b"") == {}


def with_byte(data: bytes, at: int, value: bytes) -> bytes:
    """``data`` with other bytes at ``at``, counted from the end when negative."""
    at %= len(data)
    return data[:at] + value + data[at + len(value) :]


GOOD = Ovmf().build()
METADATA = len(GOOD) - 4096 + 0x100


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "size 0x0 is not a positive multiple"),
        (GOOD[1:], "is not a positive multiple"),
        (bytes(65 * 1024 * 1024), "exceeds"),
        (with_byte(GOOD, -50, b"\xff\xff"), "larger than the image"),
        (with_byte(GOOD, -50, b"\x11\x00"), "footer has size 17"),
        (
            with_byte(GOOD, -50, (100).to_bytes(2, "little")),
            "is larger than the table|before its first entry",
        ),
        (Ovmf(more=[(RESET, bytes(4))]).build(), "two entries"),
        (Ovmf(more=[(FOOTER, b"")]).build(), "two entries"),
        (Ovmf(reset=None, more=[(RESET, bytes(5))]).build(), "sev-es reset entry has 5 bytes, expected 4"),
        (with_byte(GOOD, METADATA, b"ASEX"), "do not begin with ASEV"),
        (with_byte(GOOD, METADATA + 8, b"\x02"), "version 2"),
        (with_byte(GOOD, METADATA + 12, b"\x07"), "of 7 sections have"),
        (with_byte(GOOD, METADATA + 12, b"\xff\xff\xff\xff"), "sections have"),
        (Ovmf(sev=[]).build(), "list no section"),
        (Ovmf(sev=[(0x800000, 0x1000, 7)]).build(), "unknown kind 0x7"),
        (Ovmf(sev=[(0x800800, 0x1000, 1)]).build(), "not a range of whole pages"),
        (Ovmf(sev=[(0x800000, 0x800, 1)]).build(), "not a range of whole pages"),
        (Ovmf(sev=[(0x800000, 0, 1)]).build(), "not a range of whole pages"),
        (Ovmf(sev=[(0xFFFFF000, 0x2000, 1)]).build(), "not a range of whole pages below 4 GiB"),
        (Ovmf(sev=[(0x1000, 0x2000, 1), (0x2000, 0x1000, 2)]).build(), "0x1000 and 0x2000 overlap"),
        (Ovmf(sev=[(0x1000, 0x2000, 3)]).build(), "2 cpuid pages"),
        (Ovmf(sev=[(0x1000, 0x1000, 2), (0x3000, 0x1000, 2)]).build(), "2 secrets pages"),
        (Ovmf(sev=[(0, 0x20000000, 1)]).build(), "cover more than"),
    ],
)
def test_an_image_that_contradicts_itself(image: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        parse_sev_firmware(image)


def test_metadata_outside_the_image() -> None:
    guid = UUID("dc886566-984a-4798-a75e-5585a7bf67cc")
    for offset in (0, 15, 4 * 4096 + 1, 0xFFFFFFFF):
        image = Ovmf(sev=None, more=[(guid, offset.to_bytes(4, "little"))]).build()
        with pytest.raises(Malformed, match="lies outside the image"):
            parse_sev_firmware(image)


def test_an_image_that_cannot_end_there() -> None:
    for end in (4096, 0x10001000 - 1):
        with pytest.raises(Malformed, match="cannot end at"):
            parse_sev_firmware(GOOD, end=end)


def test_signatures_of_processors() -> None:
    assert CPU_SIGNATURES["EPYC"] == 0x800F12
    assert CPU_SIGNATURES["EPYC-Rome"] == 0x830F10
    assert CPU_SIGNATURES["EPYC-Milan"] == 0xA00F11
    assert CPU_SIGNATURES["EPYC-Genoa"] == 0xA10F10
    assert CPU_SIGNATURES["EPYC-Turin"] == 0xB00F00
    assert cpu_signature(family=6, model=0x8F, stepping=8) == 0x806F8 & 0xFFFFF
    for wrong in ({"family": 271}, {"family": -1}, {"model": 256}, {"stepping": 16}):
        with pytest.raises(Unmeasurable, match="no cpuid signature"):
            cpu_signature(**({"family": 25, "model": 1, "stepping": 1} | wrong))
