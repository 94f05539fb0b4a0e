"""Registers and state are read and written in the kernel's layout without loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketuvim import _structs as s
from ketuvim.registers import Registers, SpecialRegisters, SpecialRegisters2
from ketuvim.state import (
    CpuEvents,
    CpuidEntry,
    DebugRegisters,
    EventFlags,
    FloatingPoint,
    pack_cpuid,
    unpack_cpuid,
)


def clean(layout: bytes, kind: Any) -> bytes:
    """The bytes of ``layout`` with its padding zeroed, which is what packing gives."""
    return bytes(kind.unpack(layout).pack())


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (Registers, s.REGS.size),
        (SpecialRegisters, s.SREGS.size),
        (SpecialRegisters2, s.SREGS2.size),
        (FloatingPoint, s.FPU.size),
        (CpuEvents, s.EVENTS.size),
        (DebugRegisters, s.DEBUG_REGISTERS.size),
    ],
)
def test_what_was_read_is_written_the_same(kind: type, size: int) -> None:
    data = bytes(1 + at * 7 % 251 for at in range(size))
    once = clean(data, kind)
    assert len(once) == size
    assert clean(once, kind) == once
    assert sum(a != b for a, b in zip(once, data, strict=True)) < size // 2 + 64  # only padding is lost


def test_general_registers_are_in_the_kernels_order() -> None:
    packed = Registers(
        rax=1, rbx=2, rcx=3, rdx=4, rsi=5, rdi=6, rsp=7, rbp=8, r8=9, r15=16, rip=17, rflags=18
    ).pack()
    assert packed[:8] == (1).to_bytes(8, "little")
    assert packed[-16:] == (17).to_bytes(8, "little") + (18).to_bytes(8, "little")
    assert packed[8:16] == (2).to_bytes(8, "little")


def test_a_segment_is_where_the_kernel_looks() -> None:
    empty = SpecialRegisters.unpack(bytes(s.SREGS.size))
    packed = replace(empty, ds=replace(empty.ds, base=0x1234, l=1), cr3=0x5000).pack()
    assert packed[24:32] == (0x1234).to_bytes(8, "little")
    assert packed[24 + 19] == 1
    assert SpecialRegisters.unpack(packed).cr3 == 0x5000


@given(st.lists(st.builds(CpuidEntry, function=st.integers(0, 0xFFFFFFFF), eax=st.integers(0, 0xFFFFFFFF))))
def test_cpuid_comes_back(entries: list[CpuidEntry]) -> None:
    assert unpack_cpuid(pack_cpuid(entries)) == entries


def test_event_flags_come_back() -> None:
    events = CpuEvents(flags=EventFlags.SMM | EventFlags.SHADOW, sipi_vector=3, triple_fault_pending=1)
    assert CpuEvents.unpack(events.pack()) == events
