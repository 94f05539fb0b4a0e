"""MRTD and RTMRs: what real quotes show, an independent spelling of the build, and firmware that cannot be measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from uuid import UUID

import pytest
from tests.evidence import Evidence
from tests.forge.firmware import SEV_SECTIONS, TDX_SECTIONS, Ovmf
from tests.forge.kernel import bz_image

from enarx.attest._eventlog import extend_all
from enarx.attest.measure import (
    Algorithm,
    PageOrder,
    TdFirmware,
    TdSection,
    Unmeasurable,
    kernel_digest,
    kernel_rtmr1,
    mrtd,
    parse_cc_event_log,
    parse_td_firmware,
    rtmr0,
    rtmr0_digests,
    rtmr1,
    rtmr2,
    td_hob,
)
from enarx.attest.tdx._tdvf import Attribute, SectionKind
from enarx.tcb.errors import Malformed

IMAGE = Ovmf(pages=4).build()
GIB = 1 << 30


def buffer(tag: bytes, gpa: int) -> bytes:
    """128 bytes of the build's log."""
    data = bytearray(128)
    data[: len(tag)] = tag
    data[16:24] = gpa.to_bytes(8, "little")
    return bytes(data)


def spelled_out(order: PageOrder) -> bytes:
    """MRTD of the image, without a loop over sections."""
    adds = [buffer(b"MEM.PAGE.ADD", 0xFFFFD000 + at) for at in range(0, 0x3000, 0x1000)]
    extends = []
    for page in range(3):
        log = b""
        for at in range(page * 0x1000, page * 0x1000 + 0x1000, 256):
            log += buffer(b"MR.EXTEND", 0xFFFFD000 + at) + IMAGE[0x1000 + at : 0x1100 + at]
        extends.append(log)
    if order is PageOrder.PER_SECTION:
        bfv = b"".join(adds) + b"".join(extends)
    else:
        bfv = b"".join(add + extend for add, extend in zip(adds, extends, strict=True))
    rest = b"".join(
        buffer(b"MEM.PAGE.ADD", gpa)
        for gpa in (0xFFFFC000, *range(0x810000, 0x820000, 0x1000), 0x809000, 0x80A000)
    )
    return hashlib.sha384(bfv + rest).digest()


@pytest.mark.parametrize("order", PageOrder)
def test_mrtd_is_a_hash_over_the_build(order: PageOrder) -> None:
    assert mrtd(parse_td_firmware(IMAGE), order=order) == spelled_out(order)


def test_only_measured_sections_count_by_their_contents() -> None:
    def with_page(number: int) -> bytes:
        at = number * 0x1000
        return mrtd(parse_td_firmware(IMAGE[:at] + bytes([IMAGE[at] ^ 1]) + IMAGE[at + 1 :]))

    assert with_page(0) == mrtd(parse_td_firmware(IMAGE)), "the variables are measured into RTMR0"
    assert with_page(1) != mrtd(parse_td_firmware(IMAGE))


def test_pages_that_are_accepted_later_are_no_part_of_mrtd() -> None:
    late = [*TDX_SECTIONS, (0, 0, 0x900000, 0x10000, 3, 2)]
    assert mrtd(parse_td_firmware(Ovmf(tdx=late).build()))
    firmware = parse_td_firmware(Ovmf(tdx=late).build())
    without = TdFirmware(sections=firmware.sections[:-1])
    assert mrtd(firmware) == mrtd(without)


def test_a_measured_hob_depends_on_the_machine() -> None:
    sections = [*TDX_SECTIONS[:3], (0, 0, 0x809000, 0x2000, 2, 1)]
    with pytest.raises(Unmeasurable, match="extends the td hob"):
        mrtd(parse_td_firmware(Ovmf(tdx=sections).build()))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ([(0, 0, 0x1000, 0x1000, 9, 0)], "unknown kind 0x9"),
        ([(0, 0, 0x1000, 0x1000, 3, 4)], "attributes 0x4"),
        ([(0, 0, 0x1001, 0x1000, 3, 0)], "no range of whole pages"),
        ([(0, 0, 0x1000, 0, 3, 0)], "no range of whole pages"),
        ([(0, 0, 1 << 60, 0x1000, 3, 0)], "no range of whole pages"),
        ([(0, 0x1000, 0x1000, 0x1000, 3, 0)], "of kind temp_mem has 0x1000 bytes"),
        ([(0, 0, 0x1000, 0x1000, 0, 1)], "of kind bfv has 0x0 bytes"),
        ([(0x3000, 0x2000, 0x1000, 0x2000, 0, 1)], "not in the image"),
        ([(0, 0x2000, 0x1000, 0x1000, 0, 1)], "exceed it"),
        ([(0, 0, 0x1000, 0x2000, 3, 0), (0, 0, 0x2000, 0x1000, 3, 0)], "overlap"),
        ([(0, 0, 0x1000, 0x20000000, 3, 0)], "cover more than"),
    ],
)
def test_metadata_that_contradict_themselves(
    sections: Sequence[tuple[int, int, int, int, int, int]], message: str
) -> None:
    with pytest.raises(Malformed, match=message):
        parse_td_firmware(Ovmf(tdx=sections).build())


def test_firmware_without_metadata() -> None:
    with pytest.raises(Unmeasurable, match="no tdx metadata"):
        parse_td_firmware(Ovmf(tdx=None).build())
    image = Ovmf(tdx=None, more=[(UUID("e47a6535-984a-4798-865e-4685a7bf8ec2"), bytes(4))]).build()
    with pytest.raises(Malformed, match="tdx metadata offset 0x0"):
        parse_td_firmware(image)
    assert SEV_SECTIONS, "an image may have both"


def machine(*sections: tuple[int, int, SectionKind]) -> TdFirmware:
    """Firmware of which only the places of its sections are known."""
    made = [
        TdSection(gpa=gpa, size=size, kind=kind, attributes=Attribute(0), data=b"")
        for gpa, size, kind in sections
    ]
    store = TdSection(gpa=0xFFC00000, size=0x84000, kind=SectionKind.CFV, attributes=Attribute(0), data=b"")
    return TdFirmware(sections=(store, *made))


MAILBOX_AND_PAGE_TABLES = ((0x80B000, 0x2000, SectionKind.TEMP_MEM), (0x800000, 0x6000, SectionKind.TEMP_MEM))
HOB = (0x809000, 0x2000, SectionKind.TD_HOB)


@pytest.mark.evidence
def test_the_memory_map_in_the_log_of_a_real_domain_of_64_gib() -> None:
    log = json.loads(Evidence().sample("tdx/v4-dstack-eventlog").read("rtmr_event_log_json"))
    firmware = machine((0x810000, 0x10000, SectionKind.TEMP_MEM), HOB, *MAILBOX_AND_PAGE_TABLES)
    assert hashlib.sha384(td_hob(firmware, memory_bytes=64 * GIB)).hexdigest() == log[0]["digest"]


@pytest.mark.evidence
def test_the_memory_map_in_the_log_of_a_real_domain_of_1_gib() -> None:
    log = parse_cc_event_log(Evidence().sample("tdx/v4-tappd").read("cc_event_log"))
    firmware = machine((0x811000, 0xF000, SectionKind.TEMP_MEM), HOB, *MAILBOX_AND_PAGE_TABLES)
    digest = hashlib.sha384(td_hob(firmware, memory_bytes=GIB)).digest()
    assert digest == log.events[0].digests[Algorithm.SHA384]


@pytest.mark.evidence
@pytest.mark.parametrize(
    ("name", "temporary", "memory"),
    [
        ("tdx/v4-tappd", (0x811000, 0xF000), GIB),
        ("tdx/v4-dstack-eventlog", (0x810000, 0x10000), 64 * GIB),
    ],
)
def test_rtmr0_of_a_real_quote(name: str, temporary: tuple[int, int], memory: int) -> None:
    sample = Evidence().sample(name)
    if sample.has("cc_event_log"):
        events = parse_cc_event_log(sample.read("cc_event_log")).events
        logged = [event.digests[Algorithm.SHA384] for event in events if event.index == 1]
    else:
        entries = json.loads(sample.read("rtmr_event_log_json"))
        logged = [bytes.fromhex(entry["digest"]) for entry in entries if entry["imr"] == 0]
    firmware = machine((*temporary, SectionKind.TEMP_MEM), HOB, *MAILBOX_AND_PAGE_TABLES)
    digests = list(rtmr0_digests(firmware, memory_bytes=memory, acpi=logged[8:11]))
    digests[1] = logged[1]  # the variable store of that firmware is not at hand
    assert digests == logged
    assert extend_all(Algorithm.SHA384, digests).hex() == sample.expected["fields"]["rtmr0"]


@pytest.mark.evidence
def test_rtmr1_of_a_real_quote() -> None:
    sample = Evidence().sample("tdx/v4-dstack-eventlog")
    kernel = next(e for e in json.loads(sample.read("rtmr_event_log_json")) if e["event_type"] == 0x80000003)
    assert rtmr1(bytes.fromhex(kernel["digest"])).hex() == sample.expected["fields"]["rtmr1"]


def test_a_machine_too_small_for_its_firmware() -> None:
    with pytest.raises(Unmeasurable, match="does not hold the sections"):
        td_hob(parse_td_firmware(IMAGE), memory_bytes=0x81F000)
    with pytest.raises(Unmeasurable, match="does not hold the sections"):
        td_hob(TdFirmware(sections=()), memory_bytes=GIB)
    with pytest.raises(Unmeasurable, match="has 0 tdx sections of kind cfv"):
        rtmr0(TdFirmware(sections=machine(HOB).sections[1:]), memory_bytes=GIB, acpi=[])


def test_what_each_input_of_rtmr0_changes() -> None:
    firmware = parse_td_firmware(IMAGE)
    registers = {
        rtmr0(firmware, memory_bytes=GIB, acpi=[bytes(48)]),
        rtmr0(firmware, memory_bytes=2 * GIB, acpi=[bytes(48)]),
        rtmr0(firmware, memory_bytes=GIB, acpi=[]),
        rtmr0(firmware, memory_bytes=GIB, acpi=[bytes(48)], boot=[]),
        rtmr0(firmware, memory_bytes=GIB, acpi=[bytes(48)], secure_boot=b"\0"),
        rtmr0(parse_td_firmware(b"\0" + IMAGE[1:]), memory_bytes=GIB, acpi=[bytes(48)]),
    }
    assert len(registers) == 6
    with pytest.raises(Unmeasurable, match="digest has 32 bytes, expected 48"):
        rtmr0(firmware, memory_bytes=GIB, acpi=[bytes(32)])


def test_rtmr1_and_rtmr2_of_a_kernel() -> None:
    kernel = bz_image()
    assert kernel_rtmr1(kernel) == rtmr1(kernel_digest(kernel, Algorithm.SHA384))
    assert kernel_rtmr1(kernel, patched_for=GIB, initrd=b"i") != kernel_rtmr1(kernel)
    assert rtmr2(cmdline="a") != rtmr2(cmdline="a", initrd=b"i") != rtmr2(cmdline="b", initrd=b"i")
    options = hashlib.sha384("a\0".encode("utf-16-le")).digest()
    assert rtmr2(cmdline="a") == hashlib.sha384(bytes(48) + options).digest()
