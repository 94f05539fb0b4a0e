"""The registers of a virtual processor, as values: take them, ``dataclasses.replace`` what changes, give them back.

Names are those of the AMD64 manual (volume 2) and of the kernel's asm/kvm.h, whose order the fields have.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, Self

from ketuvim import _structs as s

CR0_PE: Final = 1 << 0
CR0_ET: Final = 1 << 4
CR0_NE: Final = 1 << 5
CR0_PG: Final = 1 << 31
CR4_PAE: Final = 1 << 5
CR4_OSFXSR: Final = 1 << 9
CR4_OSXMMEXCPT: Final = 1 << 10
EFER_LME: Final = 1 << 8
EFER_LMA: Final = 1 << 10
RFLAGS_RESERVED: Final = 1 << 1
"""The bit of ``rflags`` that is always one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registers:
    """The general registers."""

    rax: int = 0
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0
    rsi: int = 0
    rdi: int = 0
    rsp: int = 0
    rbp: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    rip: int = 0
    rflags: int = RFLAGS_RESERVED

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read ``struct kvm_regs``."""
        return cls(**dict(zip(cls.__slots__, s.REGS.unpack(data), strict=True)))

    def pack(self) -> bytearray:
        """Write ``struct kvm_regs``."""
        return bytearray(s.REGS.pack(*_GENERAL(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A segment register with its hidden part."""

    base: int = 0
    limit: int = 0
    selector: int = 0
    type: int = 0
    present: int = 0
    dpl: int = 0
    db: int = 0
    s: int = 0
    l: int = 0  # noqa: E741 (the name in the manual)
    g: int = 0
    avl: int = 0
    unusable: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorTable:
    """Where a descriptor table lies; ``limit`` is its last byte's offset."""

    base: int = 0
    limit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialRegisters:
    """Segments, descriptor tables, control registers and the interrupt that waits for delivery."""

    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    tr: Segment
    ldt: Segment
    gdt: DescriptorTable
    idt: DescriptorTable
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    efer: int
    apic_base: int
    interrupt_bitmap: tuple[int, int, int, int] = (0, 0, 0, 0)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read ``struct kvm_sregs``."""
        fields, rest = _unpack_system(s.SREGS.unpack(data))
        return cls(**fields, interrupt_bitmap=rest)  # type: ignore[arg-type]

    def pack(self) -> bytearray:
        """Write ``struct kvm_sregs``."""
        return bytearray(s.SREGS.pack(*_pack_system(self), *self.interrupt_bitmap))


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialRegisters2:
    """As ``SpecialRegisters``, with the page directory pointers of PAE paging, without the waiting interrupt."""

    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    tr: Segment
    ldt: Segment
    gdt: DescriptorTable
    idt: DescriptorTable
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    efer: int
    apic_base: int
    flags: int = 0
    pdptrs: tuple[int, int, int, int] = (0, 0, 0, 0)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read ``struct kvm_sregs2``."""
        fields, (flags, *pdptrs) = _unpack_system(s.SREGS2.unpack(data))
        return cls(**fields, flags=flags, pdptrs=tuple(pdptrs))  # type: ignore[arg-type]

    def pack(self) -> bytearray:
        """Write ``struct kvm_sregs2``."""
        return bytearray(s.SREGS2.pack(*_pack_system(self), self.flags, *self.pdptrs))


_GENERAL: Final = attrgetter(*Registers.__slots__)
_SEGMENT: Final = attrgetter(*Segment.__slots__)
_SEGMENTS: Final = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
_TABLES: Final = ("gdt", "idt")
_CONTROL: Final = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")
_ALL_SEGMENTS: Final = attrgetter(*_SEGMENTS)
_ALL_CONTROL: Final = attrgetter(*_CONTROL)


@lru_cache(maxsize=256)
def _segment(numbers: tuple[int, ...]) -> Segment:
    """Make a segment, or find it: guests have few different ones, and making twelve fields takes its time."""
    return Segment(**dict(zip(Segment.__slots__, numbers, strict=True)))


def _unpack_system(numbers: tuple[int, ...]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Name what both structures have in common; give what is left."""
    fields, at, width = dict[str, Any](), 0, len(Segment.__slots__)
    for name in _SEGMENTS:
        fields[name] = _segment(numbers[at : at + width])
        at += width
    for name in _TABLES:
        fields[name] = DescriptorTable(base=numbers[at], limit=numbers[at + 1])
        at += 2
    fields.update(zip(_CONTROL, numbers[at:], strict=False))
    return fields, numbers[at + len(_CONTROL) :]


def _pack_system(registers: SpecialRegisters | SpecialRegisters2) -> list[int]:
    """Give what both structures have in common, in order."""
    numbers: list[int] = []
    for segment in _ALL_SEGMENTS(registers):
        numbers += _SEGMENT(segment)
    for table in (registers.gdt, registers.idt):
        numbers += (table.base, table.limit)
    numbers += _ALL_CONTROL(registers)
    return numbers
