"""Exits are read from the shared page as the kernel writes them, and whatever else is there is no crash."""

from __future__ import annotations

import mmap
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketuvim import exits
from ketuvim._structs import RUN_EXIT, RUN_EXIT_SIZE

PAGES = 3 * mmap.PAGESIZE


def page(exit_: bytes) -> mmap.mmap:
    memory = mmap.mmap(-1, PAGES)
    memory[RUN_EXIT : RUN_EXIT + len(exit_)] = exit_
    memory[mmap.PAGESIZE : mmap.PAGESIZE + 8] = b"abcdefgh"
    return memory


def words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "little") for number in numbers)


IO_OUT = exits.IO.pack(1, 2, 0x3F8, 3, mmap.PAGESIZE)
IO_IN = exits.IO.pack(0, 4, 0x60, 1, mmap.PAGESIZE)


@pytest.mark.parametrize(
    ("reason", "data", "expected"),
    [
        (1, b"\x0e\0\0\0\x02\0\0\0", exits.GuestException(14, 2)),
        (2, IO_OUT, exits.IoOut(0x3F8, 2, b"abcdef")),
        (2, IO_IN, exits.IoIn(0x60, 4, 1)),
        (3, words(12, 1, 2, 3, 4, 5, 6, 0, 1), exits.Hypercall(12, (1, 2, 3, 4, 5, 6), True)),
        (4, words(1, 0x1000, 0xFFFF4FF0, 0x400), exits.Debug(1, 0x1000, 0xFFFF4FF0, 0x400)),
        (5, b"", exits.Halt()),
        (6, exits.MMIO.pack(0x200000, b"12345678", 4, 1), exits.MmioWrite(0x200000, b"1234")),
        (6, exits.MMIO.pack(0x200000, b"12345678", 8, 0), exits.MmioRead(0x200000, 8)),
        (7, b"", exits.IrqWindowOpen()),
        (8, b"", exits.Shutdown()),
        (9, words(0x80000021, 1), exits.FailEntry(0x80000021, 1)),
        (10, b"", exits.Interrupted()),
        (11, b"", exits.SetTpr()),
        (12, words(0x1234, 1), exits.TprAccess(0x1234, True)),
        (16, b"", exits.Nmi()),
        (17, b"\1\0\0\0\2\0\0\0" + words(7, 8, 9), exits.InternalError(1, (7, 8))),
        (24, b"\6\0\0\0\1\0\0\0" + words(5), exits.SystemEvent(6, (5,))),
        (26, b"\x31", exits.IoapicEoi(0x31)),
        (29, exits.MSR.pack(0, 2, 0xBEEF, 0), exits.ReadMsr(0xBEEF, 2)),
        (30, exits.MSR.pack(0, 1, 0xBEEF, 9), exits.WriteMsr(0xBEEF, 9, 1)),
        (31, b"", exits.DirtyRingFull()),
        (32, b"", exits.ApResetHold()),
        (33, b"", exits.BusLock()),
        (37, b"\1", exits.Notify(True)),
        (39, words(8, 0x5000, 0x1000), exits.MemoryFault(0x5000, 0x1000, True)),
    ],
)
def test_each_reason(reason: int, data: bytes, expected: exits.Exit) -> None:
    assert exits.decode(reason, page(data)) == expected


@pytest.mark.parametrize("reason", [0, 13, 18, 28, 35, 38, 999])
def test_a_reason_without_a_name(reason: int) -> None:
    found = exits.decode(reason, page(b"data"))
    assert found == exits.Unknown(reason, b"data".ljust(RUN_EXIT_SIZE, b"\0"))


@given(st.integers(0, 64), st.binary(max_size=RUN_EXIT_SIZE))
def test_every_reason_and_content_is_an_exit(reason: int, data: bytes) -> None:
    found = exits.decode(reason, page(data))
    assert isinstance(found, exits.Exit)
    assert isinstance(found, exits.Failure) != isinstance(found, exits.Event)


def test_events_and_failures_make_up_the_closed_set() -> None:
    assert set(get_args(exits.Event)) | set(get_args(exits.Failure)) == set(get_args(exits.Exit))
    assert not set(get_args(exits.Event)) & set(get_args(exits.Failure))
