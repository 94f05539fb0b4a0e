"""Who runs the instructions of a guest: the processor, if KVM really lets it, else QEMU's translator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ketuvim import Kvm, KvmUnavailable, Mode, measure
from ketuvim.errors import KetuvimError


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """What QEMU is told, and why."""

    kvm: bool
    detail: str


@cache
def find_accelerator() -> Accelerator:
    """Measure once whether KVM accelerates; takes under 0.1 s."""
    try:
        with Kvm.open() as kvm:
            found = measure(kvm, Mode.REAL)
    except (KvmUnavailable, KetuvimError, OSError) as error:
        return Accelerator(kvm=False, detail=f"TCG: {error}")
    round_ns = f"{found.ns_per_round:.1f} ns for two instructions"
    if found.accelerated:
        return Accelerator(kvm=True, detail=f"KVM, {round_ns}")
    return Accelerator(kvm=False, detail=f"TCG: this machine's KVM interprets instructions, {round_ns}")
