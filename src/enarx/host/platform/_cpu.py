"""Facts about the processor.

CPUID is read where the kernel lets us; else the kernel's list of features serves, which leaves some facts unknown.
An unknown fact does not pass (docs/adr/0008-cpuid-through-the-kernel.md).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from enarx.host.platform._facts import Fact
from enarx.host.platform._machine import Machine

UNKNOWN: Final = "unknown"
ASK_AS_ROOT: Final = "run as root with the kernel module cpuid loaded, so that the processor can be asked"


def vendor(machine: Machine) -> str:
    """Give the vendor's name, ``AuthenticAMD`` or ``GenuineIntel``."""
    registers = machine.cpuid(0, 0)
    if registers is None:
        return machine.cpu().get("vendor_id", "")
    _, ebx, ecx, edx = registers
    return _ascii(ebx, edx, ecx)


def brand(machine: Machine) -> str:
    """Give the processor's name in commerce."""
    leaves = [machine.cpuid(leaf, 0) for leaf in (0x8000_0002, 0x8000_0003, 0x8000_0004)]
    known = [registers for registers in leaves if registers is not None]
    if len(known) < len(leaves):
        return machine.cpu().get("model name", "")
    return _ascii(*(value for registers in known for value in registers))


def processor(machine: Machine, expected: str, *facts: Fact) -> Fact:
    """State who made the processor; ``expected`` is empty when that does not matter."""
    found = vendor(machine)
    passed = found == expected or not expected
    advice = "" if passed else f"this needs a processor of {_MAKERS[expected]}"
    info = " | ".join(filter(None, (brand(machine), found)))
    return Fact(name="CPU", passed=passed, info=info, advice=advice, facts=facts if passed else ())


def bit(
    machine: Machine, name: str, where: tuple[int, int, int, int], advice: str, *facts: Fact, flag: str = ""
) -> Fact:
    """State a feature: ``where`` is leaf, subleaf, register and bit, ``flag`` the kernel's name for it."""
    leaf, subleaf, register, position = where
    registers = machine.cpuid(leaf, subleaf)
    if registers is not None:
        passed, info = bool(registers[register] >> position & 1), ""
    elif flag and machine.flags():
        passed, info = flag in machine.flags(), f"{flag} in /proc/cpuinfo" if flag in machine.flags() else ""
    else:
        passed, info, advice = False, UNKNOWN, ASK_AS_ROOT
    return Fact(
        name=name, passed=passed, info=info, advice="" if passed else advice, facts=facts if passed else ()
    )


def number(machine: Machine, name: str, where: tuple[int, int, int], low: int, bits: int) -> Fact:
    """Tell ``bits`` bits from ``low`` on of a register as a number; ``where`` is leaf, subleaf and register."""
    leaf, subleaf, register = where
    registers = machine.cpuid(leaf, subleaf)
    info = UNKNOWN if registers is None else str(registers[register] >> low & (1 << bits) - 1)
    return Fact(name=name, passed=True, info=info)


def humanize(size: int) -> str:
    """Write a number of bytes with the largest unit that leaves at most 512."""
    units = iter(("", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))
    unit = next(units)
    while size > 512:
        size, unit = size // 1024, next(units)
    return f"{size} {unit}".rstrip()


def flag_names(value: int, names: Iterable[tuple[int, str]]) -> str:
    """Write a set of bits by their names."""
    return " | ".join(name for position, name in names if value >> position & 1) or "none"


_MAKERS: Final = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}


def _ascii(*registers: int) -> str:
    return struct.pack(f"<{len(registers)}I", *registers).decode("ascii", "replace").strip("\0 ")
