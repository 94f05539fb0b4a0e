"""A tiny interpreter in place of a processor, where there is no ``/dev/kvm``: just what the demo's guest needs.

It knows seven instructions of real mode on 8-bit registers, AL and BL, and DX::

    BA iw   mov dx, imm16        00 D8   add al, bl        F4   hlt
    B0 ib   mov al, imm8         04 ib   add al, imm8
    B3 ib   mov bl, imm8         EE      out dx, al

Anything else fails, as an unknown instruction does under KVM. It shows what a guest would do, and protects nothing:
whoever uses it says so (``NOTICE``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ketuvim.errors import EmulationFailed, Misuse
from ketuvim.exits import Event, Halt, InternalError, IoOut
from ketuvim.registers import DescriptorTable, Registers, Segment, SpecialRegisters

NOTICE: Final = "no /dev/kvm here: the guest's instructions are interpreted in Python"
_EMULATION: Final = 1
_LONGEST: Final = 3
_CARRY, _ZERO, _SIGN, _OVERFLOW, _PARITY, _ADJUST = 1 << 0, 1 << 6, 1 << 7, 1 << 11, 1 << 2, 1 << 4


class Interpreter:
    """Memory from address 0 and one processor in real mode."""

    __slots__ = ("memory", "registers")

    def __init__(self, memory: bytes | bytearray, registers: Registers) -> None:
        self.memory = memory
        self.registers = registers

    def run(self, *, max_instructions: int = 1_000_000) -> Event:
        """Run until the guest writes to a port or halts; raise ``EmulationFailed`` at what it does not know."""
        for _ in range(max_instructions):
            event = self._step()
            if event is not None:
                return event
        raise Misuse(f"the guest did not end within {max_instructions} instructions")

    def _step(self) -> Event | None:
        now = self.registers
        code = bytes(self.memory[now.rip : now.rip + _LONGEST])
        match list(code):
            case [0xBA, low, high]:
                self._to(3, rdx=now.rdx & ~0xFFFF | high << 8 | low)
            case [0xB0, value, *_]:
                self._to(2, rax=now.rax & ~0xFF | value)
            case [0xB3, value, *_]:
                self._to(2, rbx=now.rbx & ~0xFF | value)
            case [0x00, 0xD8, *_]:
                self._add(now.rbx & 0xFF)
            case [0x04, value, *_]:
                self._add(value)
            case [0xEE, *_]:
                self._to(1)
                return IoOut(now.rdx & 0xFFFF, 1, bytes((now.rax & 0xFF,)))
            case [0xF4, *_]:
                self._to(1)
                return Halt()
            case _:
                raise EmulationFailed(
                    f"the interpreter does not know the instruction {code.hex() or 'outside memory'}",
                    exit_=InternalError(_EMULATION, tuple(code)),
                    registers=now,
                    special_registers=_real_mode(),
                )
        return None

    def _to(self, length: int, **changed: int) -> None:
        self.registers = replace(self.registers, rip=self.registers.rip + length & 0xFFFF, **changed)

    def _add(self, value: int) -> None:
        """Add to AL, with the flags that follow (AMD64 volume 3, ADD)."""
        left = self.registers.rax & 0xFF
        total = left + value
        result = total & 0xFF
        flags = self.registers.rflags & ~(_CARRY | _ZERO | _SIGN | _OVERFLOW | _PARITY | _ADJUST)
        flags |= _CARRY if total > result else 0
        flags |= _ZERO if result == 0 else 0
        flags |= _SIGN if result & 0x80 else 0
        flags |= _OVERFLOW if (left ^ result) & (value ^ result) & 0x80 else 0
        flags |= _PARITY if result.bit_count() % 2 == 0 else 0
        flags |= _ADJUST if (left ^ value ^ result) & 0x10 else 0
        self._to(2, rax=self.registers.rax & ~0xFF | result, rflags=flags)


def _real_mode() -> SpecialRegisters:
    segment, table = Segment(limit=0xFFFF, present=1, s=1), DescriptorTable(limit=0xFFFF)
    return SpecialRegisters(
        cs=segment, ds=segment, es=segment, fs=segment, gs=segment, ss=segment, tr=segment, ldt=segment,
        gdt=table, idt=table, cr0=0, cr2=0, cr3=0, cr4=0, cr8=0, efer=0, apic_base=0,
    )  # fmt: skip
