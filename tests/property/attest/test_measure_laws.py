"""Laws of expected measurements: any changed input changes the digest, order counts, parsers are total."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.forge.eventlog import Entry, cc_log, event_log
from tests.forge.firmware import SEV_SECTIONS, Ovmf
from tests.forge.kernel import CERTIFICATE_ENTRY_AT, CHECKSUM_AT, bz_image

from enarx.attest._eventlog import extend_all
from enarx.attest.measure import (
    Algorithm,
    Page,
    PageType,
    Permission,
    Section,
    SectionKind,
    SevFirmware,
    Vmm,
    authenticode_digest,
    hash_kernel,
    mrenclave,
    parse_cc_event_log,
    parse_sev_firmware,
    parse_tpm_event_log,
    replay,
    snp_firmware_digest,
    snp_launch_digest,
)
from enarx.tcb.errors import EnarxError

FUZZ = Path(__file__).parents[3] / "fuzz"
IMAGE = Ovmf(pages=3).build()
TABLES_AT = len(IMAGE) - 4096 + 0x100
KERNEL = bz_image()
KERNELS = st.none() | st.builds(
    lambda kernel, initrd, cmdline: hash_kernel(kernel, initrd=initrd, cmdline=cmdline),
    st.binary(max_size=4),
    st.binary(max_size=4),
    st.text("abc =", max_size=4),
)
LAUNCHES = st.fixed_dictionaries(
    {
        "vcpus": st.integers(1, 4),
        "cpu_signature": st.integers(0, 0xFFFFFFFF),
        "features": st.integers(0, (1 << 63) - 1).map(lambda bits: bits << 1 | 1),
        "kernel": KERNELS,
        "vmm": st.just(Vmm.QEMU),
    }
)


@given(one=LAUNCHES, other=LAUNCHES)
def test_two_launches_have_one_digest_only_when_they_are_equal(
    one: dict[str, object], other: dict[str, object]
) -> None:
    firmware = parse_sev_firmware(IMAGE)
    same = snp_launch_digest(firmware, **one) == snp_launch_digest(firmware, **other)  # type: ignore[arg-type]
    assert same == (one == other)


@given(at=st.integers(0, TABLES_AT - 1), bit=st.integers(0, 7))
def test_any_bit_of_the_image_changes_the_digest(at: int, bit: int) -> None:
    changed = IMAGE[:at] + bytes([IMAGE[at] ^ 1 << bit]) + IMAGE[at + 1 :]
    assert snp_firmware_digest(parse_sev_firmware(changed)) != snp_firmware_digest(parse_sev_firmware(IMAGE))


def test_the_order_of_sections_counts() -> None:
    sections = [Section(gpa=gpa, size=size, kind=SectionKind(kind)) for gpa, size, kind in SEV_SECTIONS[:4]]
    digests = {
        snp_launch_digest(
            SevFirmware(image=b"", gpa=0, sections=order), vcpus=1, cpu_signature=1, firmware_digest=bytes(48)
        )
        for order in itertools.permutations(sections)
    }
    assert len(digests) == 24


@given(at=st.integers(0, len(KERNEL) - 1))
def test_any_byte_of_a_kernel_changes_its_pe_hash_but_those_left_out(at: int) -> None:
    changed = KERNEL[:at] + bytes([KERNEL[at] ^ 1]) + KERNEL[at + 1 :]
    left_out = at in (
        *range(CHECKSUM_AT, CHECKSUM_AT + 4),
        *range(CERTIFICATE_ENTRY_AT, CERTIFICATE_ENTRY_AT + 8),
    )
    try:
        digest = authenticode_digest(changed, Algorithm.SHA256)
    except EnarxError:
        return
    assert (digest == authenticode_digest(KERNEL, Algorithm.SHA256)) == left_out


PAGES = st.lists(
    st.builds(
        lambda number, writable, measured, byte: Page(
            offset=4096 * number,
            page_type=PageType.REG,
            permissions=Permission.R | (Permission.W if writable else Permission.NONE),
            contents=bytes([byte]) * 4096,
            measured=measured,
        ),
        st.integers(0, 7), st.booleans(), st.booleans(), st.integers(0, 255),
    ),
    max_size=4,
    unique_by=lambda page: page.offset,
)  # fmt: skip


@given(one=PAGES, other=PAGES)
def test_two_enclaves_have_one_measurement_only_when_they_are_equal(
    one: list[Page], other: list[Page]
) -> None:
    def visible(pages: list[Page]) -> list[object]:
        return [(page.offset, page.permissions, page.contents if page.measured else None) for page in pages]

    same = mrenclave(size=0x8000, pages=one) == mrenclave(size=0x8000, pages=other)
    assert same == (visible(one) == visible(other))


ENTRIES = st.lists(
    st.builds(
        Entry,
        index=st.integers(0, 4),
        kind=st.sampled_from([1, 3, 0xD, 0x80000003]),
        data=st.binary(max_size=9),
    ),
    max_size=8,
)


@given(entries=ENTRIES)
def test_a_log_is_read_as_it_was_written_and_replays_event_by_event(entries: list[Entry]) -> None:
    tpm = parse_tpm_event_log(event_log(entries))
    assert [(event.index, event.event_type, event.data) for event in tpm.events] == [
        (entry.index, entry.kind, entry.data) for entry in entries
    ]
    expected = {
        index: extend_all(
            Algorithm.SHA256,
            [hashlib.sha256(e.data).digest() for e in entries if e.index == index and e.kind != 3],
        )
        for index in {entry.index for entry in entries if entry.kind != 3}
    }
    assert replay(tpm, Algorithm.SHA256) == expected
    assert len(parse_cc_event_log(cc_log(entries)).events) == len(entries)


@given(entries=ENTRIES, cut=st.integers(1, 40), more=st.binary(min_size=1, max_size=40))
def test_a_log_that_was_cut_or_continued_is_refused_or_another(
    entries: list[Entry], cut: int, more: bytes
) -> None:
    data = event_log(entries)
    whole = parse_tpm_event_log(data)
    for other in (data[:-cut], data + more):
        with contextlib.suppress(EnarxError):
            assert parse_tpm_event_log(other) != whole


def target(name: str) -> Callable[[bytes], None]:
    """What ``fuzz/NAME.py`` runs."""
    one: Callable[[bytes], None] = runpy.run_path(str(FUZZ / f"{name}.py"))["one"]
    return one


SEEDS = {
    "ovmf": IMAGE[-4096:],
    "eventlog": event_log([Entry(index=0, kind=4, data=bytes(4))]),
}


@pytest.mark.parametrize("name", SEEDS)
def test_parsers_raise_nothing_but_our_errors(name: str) -> None:
    run, seed = target(name), SEEDS[name]
    edits = st.lists(st.tuples(st.integers(0, len(seed) - 1), st.binary(min_size=1, max_size=8)), max_size=4)

    @settings(max_examples=150, deadline=None)
    @given(edits=edits, noise=st.binary(max_size=200))
    def law(edits: list[tuple[int, bytes]], noise: bytes) -> None:
        data = bytearray(seed)
        for at, value in edits:
            data[at : at + len(value)] = value
        run(bytes(data))
        run(noise)

    law()
