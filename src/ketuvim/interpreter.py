"""A tiny interpreter in place of a processor, where there is no ``/dev/kvm``: just what the demos' guests need.

It knows these instructions of real mode with 16-bit addresses, all segments at 0, and no memory operands::

    B0 ib   mov al, imm8     04 ib   add al, imm8    85 C0   test ax, ax     75 cb   jne rel8
    B3 ib   mov bl, imm8     00 D8   add al, bl      F7 F3   div bx          E2 cb   loop rel8
    B8+r iw mov r16, imm16   01 D8   add ax, bx      50+r    push r16        E8 cw   call rel16
    31 C9   xor cx, cx       41      inc cx          58+r    pop r16         C3      ret
    31 D2   xor dx, dx       EE      out dx, al      F4      hlt

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
_WORD: Final = 0xFFFF
_NAMES: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
"""The order in which opcodes number them."""
_CARRY, _ZERO, _SIGN, _OVERFLOW, _PARITY, _ADJUST = 1 << 0, 1 << 6, 1 << 7, 1 << 11, 1 << 2, 1 << 4
_ARITHMETIC: Final = _CARRY | _ZERO | _SIGN | _OVERFLOW | _PARITY | _ADJUST


class Interpreter:
    """Memory from address 0, a ``bytearray`` where the guest has a stack, and one processor in real mode."""

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
        code = list(bytes(self.memory[now.rip : now.rip + _LONGEST]))
        match code:
            case [0xB0, value, *_]:
                self._to(2, rax=now.rax & ~0xFF | value)
            case [0xB3, value, *_]:
                self._to(2, rbx=now.rbx & ~0xFF | value)
            case [op, low, high] if 0xB8 <= op <= 0xBF:
                self._set(3, _NAMES[op - 0xB8], high << 8 | low)
            case [0x31, 0xC9, *_]:
                self._to(2, rcx=now.rcx & ~_WORD, rflags=self._flags(0, 16))
            case [0x31, 0xD2, *_]:
                self._to(2, rdx=now.rdx & ~_WORD, rflags=self._flags(0, 16))
            case [0x00, 0xD8, *_]:
                self._add(2, now.rbx & 0xFF, bits=8)
            case [0x04, value, *_]:
                self._add(2, value, bits=8)
            case [0x01, 0xD8, *_]:
                self._add(2, now.rbx & _WORD, bits=16)
            case [0x41, *_]:
                count = now.rcx + 1 & _WORD
                kept = now.rflags & _CARRY
                flags = self._sum_flags(now.rcx & _WORD, 1, 16) & ~_CARRY | kept
                self._to(1, rcx=now.rcx & ~_WORD | count, rflags=flags)
            case [0x85, 0xC0, *_]:
                self._to(2, rflags=self._flags(now.rax & _WORD, 16))
            case [0xF7, 0xF3, *_]:
                self._divide(code)
            case [0xEE, *_]:
                self._to(1)
                return IoOut(now.rdx & _WORD, 1, bytes((now.rax & 0xFF,)))
            case [0xF4, *_]:
                self._to(1)
                return Halt()
            case _:
                self._flow(code)
        return None

    def _flow(self, code: list[int]) -> None:
        """Jumps, calls and the stack."""
        now = self.registers
        match code:
            case [0x75, distance, *_]:
                self._jump(2, 0 if now.rflags & _ZERO else distance, bits=8)
            case [0xE2, distance, *_]:
                count = now.rcx - 1 & _WORD
                self._jump(2, distance if count else 0, bits=8, rcx=now.rcx & ~_WORD | count)
            case [0xE8, low, high]:
                self._push(now.rip + 3 & _WORD, code)
                self._jump(3, high << 8 | low, bits=16)
            case [0xC3, *_]:
                self.registers = replace(now, rip=self._pop(code), rsp=self.registers.rsp)
            case [op, *_] if 0x50 <= op <= 0x57:
                self._push(getattr(now, _NAMES[op - 0x50]) & _WORD, code)
                self._to(1)
            case [op, *_] if 0x58 <= op <= 0x5F:
                self._set(1, _NAMES[op - 0x58], self._pop(code))
            case _:
                raise self._failed("does not know the instruction", code)

    def _to(self, length: int, **changed: int) -> None:
        self.registers = replace(self.registers, rip=self.registers.rip + length & _WORD, **changed)

    def _set(self, length: int, name: str, value: int) -> None:
        """Load the low word of a register."""
        self._to(length, **{name: getattr(self.registers, name) & ~_WORD | value})

    def _jump(self, length: int, distance: int, *, bits: int, **changed: int) -> None:
        """Go on behind the instruction, and from there a signed ``distance``."""
        signed = distance - (1 << bits) if distance >> (bits - 1) else distance
        self._to(length + signed, **changed)

    def _push(self, value: int, code: list[int]) -> None:
        now = self.registers
        at = now.rsp - 2 & _WORD
        if not isinstance(self.memory, bytearray) or at + 2 > len(self.memory):
            raise self._failed("has no memory for the stack of", code)
        self.memory[at : at + 2] = value.to_bytes(2, "little")
        self.registers = replace(now, rsp=now.rsp & ~_WORD | at)

    def _pop(self, code: list[int]) -> int:
        now = self.registers
        at = now.rsp & _WORD
        if at + 2 > len(self.memory):
            raise self._failed("has no memory for the stack of", code)
        self.registers = replace(now, rsp=now.rsp & ~_WORD | at + 2 & _WORD)
        return int.from_bytes(self.memory[at : at + 2], "little")

    def _add(self, length: int, value: int, *, bits: int) -> None:
        """Add to AL or AX (AMD64 volume 3, ADD)."""
        mask = (1 << bits) - 1
        left = self.registers.rax & mask
        flags = self._sum_flags(left, value, bits)
        self._to(length, rax=self.registers.rax & ~mask | left + value & mask, rflags=flags)

    def _divide(self, code: list[int]) -> None:
        """DX:AX by BX; flags are undefined after it and stay as they are."""
        now = self.registers
        divisor = now.rbx & _WORD
        quotient, rest = (
            divmod((now.rdx & _WORD) << 16 | now.rax & _WORD, divisor) if divisor else (1 << 16, 0)
        )
        if quotient > _WORD:
            raise self._failed("raises a divide error at", code)
        self._to(2, rax=now.rax & ~_WORD | quotient, rdx=now.rdx & ~_WORD | rest)

    def _sum_flags(self, left: int, right: int, bits: int) -> int:
        total = left + right
        flags = self._flags(total & (1 << bits) - 1, bits)
        flags |= _CARRY if total >> bits else 0
        flags |= _OVERFLOW if (left ^ total) & (right ^ total) & 1 << (bits - 1) else 0
        return flags | (_ADJUST if (left ^ right ^ total) & 0x10 else 0)

    def _flags(self, result: int, bits: int) -> int:
        """Give the flags of a logical result: no carry, no overflow."""
        flags = self.registers.rflags & ~_ARITHMETIC
        flags |= _ZERO if result == 0 else 0
        flags |= _SIGN if result >> (bits - 1) else 0
        return flags | (_PARITY if (result & 0xFF).bit_count() % 2 == 0 else 0)

    def _failed(self, what: str, code: list[int]) -> EmulationFailed:
        return EmulationFailed(
            f"the interpreter {what} {bytes(code).hex() or 'outside memory'}",
            exit_=InternalError(_EMULATION, tuple(code)),
            registers=self.registers,
            special_registers=_real_mode(),
        )


def _real_mode() -> SpecialRegisters:
    segment, table = Segment(limit=0xFFFF, present=1, s=1), DescriptorTable(limit=0xFFFF)
    return SpecialRegisters(
        cs=segment, ds=segment, es=segment, fs=segment, gs=segment, ss=segment, tr=segment, ldt=segment,
        gdt=table, idt=table, cr0=0, cr2=0, cr3=0, cr4=0, cr8=0, efer=0, apic_base=0,
    )  # fmt: skip
