"""The CPUID signature that a virtual processor starts with (its RDX), by the names of QEMU's processor models.

Source: AMD 25481, CPUID Fn0000_0001_EAX; QEMU, target/i386/cpu.c, the family, model and stepping of each model.
"""

from __future__ import annotations

from typing import Final

from enarx.attest._unmeasurable import Unmeasurable


def cpu_signature(*, family: int, model: int, stepping: int) -> int:
    """Pack family, model and stepping into the u32 of CPUID leaf 1. Raises ``Unmeasurable`` out of range."""
    if not (0 <= family <= 0xF + 0xFF and 0 <= model <= 0xFF and 0 <= stepping <= 0xF):
        raise Unmeasurable(
            f"vcpu family {family}, model {model}, stepping {stepping}: no cpuid signature has them"
        )
    base, extended = min(family, 0xF), max(family - 0xF, 0)
    return extended << 20 | model >> 4 << 16 | base << 8 | (model & 0xF) << 4 | stepping


_NAPLES: Final = cpu_signature(family=0x17, model=0x01, stepping=2)
_ROME: Final = cpu_signature(family=0x17, model=0x31, stepping=0)
_MILAN: Final = cpu_signature(family=0x19, model=0x01, stepping=1)
_GENOA: Final = cpu_signature(family=0x19, model=0x11, stepping=0)
_TURIN: Final = cpu_signature(family=0x1A, model=0x00, stepping=0)

CPU_SIGNATURES: Final = {
    "EPYC": _NAPLES,
    "EPYC-v1": _NAPLES,
    "EPYC-v2": _NAPLES,
    "EPYC-IBPB": _NAPLES,
    "EPYC-v3": _NAPLES,
    "EPYC-v4": _NAPLES,
    "EPYC-v5": _NAPLES,
    "EPYC-Rome": _ROME,
    "EPYC-Rome-v1": _ROME,
    "EPYC-Rome-v2": _ROME,
    "EPYC-Rome-v3": _ROME,
    "EPYC-Rome-v4": _ROME,
    "EPYC-Rome-v5": _ROME,
    "EPYC-Milan": _MILAN,
    "EPYC-Milan-v1": _MILAN,
    "EPYC-Milan-v2": _MILAN,
    "EPYC-Milan-v3": _MILAN,
    "EPYC-Genoa": _GENOA,
    "EPYC-Genoa-v1": _GENOA,
    "EPYC-Genoa-v2": _GENOA,
    "EPYC-Turin": _TURIN,
    "EPYC-Turin-v1": _TURIN,
}
"""Every EPYC model of QEMU up to 10.1."""
