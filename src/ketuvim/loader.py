"""Put code into a machine and a processor into the mode that the code is for.

``load`` sets up a processor of any machine; ``boot`` makes a small machine around the code. Modes as in the AMD64
manual, volume 2: real mode with all segments at 0; protected mode and long mode with flat segments of ring 0, in long
mode with the first GiB mapped one to one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from types import TracebackType
from typing import Final, Self

from ketuvim.errors import Misuse
from ketuvim.memory import PAGE, MemoryRegion
from ketuvim.registers import (
    CR0_ET,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR4_OSFXSR,
    CR4_OSXMMEXCPT,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    DescriptorTable,
    Registers,
    Segment,
    SpecialRegisters,
)
from ketuvim.system import Kvm
from ketuvim.vcpu import VirtualCpu
from ketuvim.vm import VirtualMachine

ENTRY: Final = 0x1000
MEMORY_BYTES: Final = 1 << 16
TABLE_PAGES: Final = 4
"""What protected and long mode need at ``tables``: descriptors, and three levels of page tables."""

_REAL_LIMIT: Final = 1 << 16
_CODE_SELECTOR: Final = 8
_DATA_SELECTOR: Final = 16
_PRESENT_WRITABLE: Final = 3
_LARGE: Final = 1 << 7
_LARGE_PAGE: Final = 1 << 21
_ENTRIES: Final = 512
# Descriptors of the flat segments (AMD64 volume 2, 4.7): 32-bit code, 64-bit code, data.
_CODE32: Final = 0x00CF9B000000FFFF
_CODE64: Final = 0x00AF9B000000FFFF
_DATA: Final = 0x00CF93000000FFFF


class Mode(Enum):
    """What kind of code it is."""

    REAL = 16
    PROTECTED = 32
    LONG = 64


@dataclass(frozen=True, slots=True)
class Loaded:
    """A machine with one processor, ready to run; a ``with`` block closes it."""

    vm: VirtualMachine
    vcpu: VirtualCpu
    memory: MemoryRegion

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.vm.close()


def boot(
    kvm: Kvm,
    code: bytes,
    *,
    mode: Mode = Mode.REAL,
    address: int = ENTRY,
    memory_bytes: int = MEMORY_BYTES,
    registers: Registers | None = None,
) -> Loaded:
    """Make a machine with memory from address 0 and one processor that will run ``code``.

    ``registers`` are those at the start, but for ``rip``, and for ``rsp`` where that is 0. Tables lie at the end of
    the memory, the stack grows down from there.
    """
    tables = memory_bytes - TABLE_PAGES * PAGE
    if address < 0 or address + len(code) > tables:
        raise Misuse(f"{len(code)} bytes of code at {address:#x} do not fit below {tables:#x}")
    vm = kvm.create_vm()
    try:
        memory = vm.add_region(0, memory_bytes)
        vcpu = vm.create_vcpu()
        start = Registers() if registers is None else registers
        stack = start.rsp or min(tables, _REAL_LIMIT - PAGE)
        load(vcpu, code, mode=mode, address=address, tables=tables, registers=replace(start, rsp=stack))
    except BaseException:
        vm.close()
        raise
    return Loaded(vm, vcpu, memory)


def load(
    vcpu: VirtualCpu,
    code: bytes,
    *,
    mode: Mode,
    address: int = ENTRY,
    tables: int | None = None,
    registers: Registers | None = None,
) -> None:
    """Write ``code`` to a physical address, and set the processor up to run it from there.

    ``tables``: where ``TABLE_PAGES`` pages are free for protected and long mode.
    """
    vcpu.vm.write(address, code)
    enter_mode(vcpu, mode, tables=tables)
    if mode is Mode.REAL and address >= _REAL_LIMIT:
        raise Misuse(f"real mode runs code below {_REAL_LIMIT:#x} here, not at {address:#x}")
    vcpu.registers = replace(Registers() if registers is None else registers, rip=address)


def enter_mode(vcpu: VirtualCpu, mode: Mode, *, tables: int | None = None) -> None:
    """Set the special registers for a mode, and write the tables that it needs."""
    now = vcpu.special_registers
    if mode is Mode.REAL:
        stray = {
            name: replace(segment, base=0, selector=0)
            for name in ("cs", "ds", "es", "fs", "gs", "ss")
            if (segment := getattr(now, name)).base or segment.selector
        }
        vcpu.special_registers = replace(now, **stray)
        return
    if tables is None or tables % PAGE:
        raise Misuse(f"{mode.name.lower()} mode needs {TABLE_PAGES} whole pages for its tables")
    vm, paging = vcpu.vm, tables + PAGE
    code = _CODE64 if mode is Mode.LONG else _CODE32
    vm.write(tables, b"".join(entry.to_bytes(8, "little") for entry in (0, code, _DATA)))
    flat_mode = _flat(now, mode, DescriptorTable(base=tables, limit=3 * 8 - 1))
    if mode is Mode.LONG:
        vm.write(paging, identity_map(paging))
        flat_mode = replace(
            flat_mode,
            cr0=flat_mode.cr0 | CR0_PG,
            cr3=paging,
            cr4=now.cr4 | CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT,
            efer=now.efer | EFER_LME | EFER_LMA,
        )
    vcpu.special_registers = flat_mode


def identity_map(address: int) -> bytes:
    """Make three pages of tables, to lie at ``address``, that map the first GiB one to one in pages of 2 MiB."""

    def page(entries: list[int]) -> bytes:
        return b"".join(entry.to_bytes(8, "little") for entry in entries).ljust(PAGE, b"\0")

    root = page([address + PAGE | _PRESENT_WRITABLE])
    pointers = page([address + 2 * PAGE | _PRESENT_WRITABLE])
    directory = page([number * _LARGE_PAGE | _LARGE | _PRESENT_WRITABLE for number in range(_ENTRIES)])
    return root + pointers + directory


def _flat(now: SpecialRegisters, mode: Mode, gdt: DescriptorTable) -> SpecialRegisters:
    """Give segments that cover everything."""
    long = int(mode is Mode.LONG)
    code = Segment(
        limit=0xFFFFFFFF, selector=_CODE_SELECTOR, type=11, present=1, s=1, g=1, l=long, db=1 - long
    )
    data = Segment(limit=0xFFFFFFFF, selector=_DATA_SELECTOR, type=3, present=1, s=1, g=1, db=1)
    cr0 = now.cr0 | CR0_PE | CR0_ET | CR0_NE
    return replace(now, cs=code, ds=data, es=data, fs=data, gs=data, ss=data, gdt=gdt, cr0=cr0)
