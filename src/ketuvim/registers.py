"""The registers of a virtual processor, as values: take them, ``dataclasses.replace`` what changes, give them back.

Names are those of the AMD64 manual (volume 2) and of the kernel's asm/kvm.h, whose order the fields have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
        return cls(**fields, interrupt_bitmap=tuple(rest))  # type: ignore[arg-type]

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


def _unpack_system(numbers: tuple[int, ...]) -> tuple[dict[str, Any], list[int]]:
    """Name what both structures have in common; give what is left."""
    rest, fields = iter(numbers), dict[str, Any]()
    for name in _SEGMENTS:
        fields[name] = Segment(**{part: next(rest) for part in Segment.__slots__})
    for name in _TABLES:
        fields[name] = DescriptorTable(base=next(rest), limit=next(rest))
    for name in _CONTROL:
        fields[name] = next(rest)
    return fields, list(rest)


def _pack_system(registers: SpecialRegisters | SpecialRegisters2) -> Iterator[int]:
    """Give what both structures have in common, in order."""
    for name in _SEGMENTS:
        yield from _SEGMENT(getattr(registers, name))
    for name in _TABLES:
        table: DescriptorTable = getattr(registers, name)
        yield from (table.base, table.limit)
    for name in _CONTROL:
        yield getattr(registers, name)
