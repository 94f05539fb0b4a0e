"""The save area page (VMSA) in which a virtual processor of an SEV-ES or SEV-SNP guest starts.

Source: AMD 24593 (APM volume 2), tables B-2 and B-4, for the offsets; QEMU, KVM, and the observed launches of EC2 and
GCE for the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntFlag
from typing import Final

from enarx.attest._guid_table import PAGE_BYTES
from enarx.attest._unmeasurable import Unmeasurable

BSP_RESET: Final = 0xFFFFFFF0
"""Where the bootstrap processor starts."""


class Vmm(Enum):
    """Virtual machine monitors that start processors in different states and measure in different order."""

    QEMU = "qemu"
    EC2 = "ec2"
    EC2_LEGACY = "ec2-legacy"
    """EC2 before it started processors with 0x600 in RDX."""
    GCE = "gce"


class GuestFeatures(IntFlag):
    """SEV_FEATURES: what the guest asks of the processor (APM volume 2, table B-4, offset 0x3B0)."""

    SNP_ACTIVE = 1 << 0
    VTOM = 1 << 1
    REFLECT_VC = 1 << 2
    RESTRICTED_INJECTION = 1 << 3
    ALTERNATE_INJECTION = 1 << 4
    DEBUG_SWAP = 1 << 5
    PREVENT_HOST_IBS = 1 << 6
    BTB_ISOLATION = 1 << 7
    VMPL_SSS = 1 << 8
    SECURE_TSC = 1 << 9
    VMGEXIT_PARAMETER = 1 << 10
    IBS_VIRTUALIZATION = 1 << 12
    VMSA_REG_PROT = 1 << 14
    SMT_PROTECTION = 1 << 15


@dataclass(frozen=True, slots=True)
class _Segment:
    selector: int
    attributes: int
    limit: int
    base: int = 0

    def pack(self) -> bytes:
        widths = ((self.selector, 2), (self.attributes, 2), (self.limit, 4), (self.base, 8))
        return b"".join(value.to_bytes(size, "little") for value, size in widths)


_SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs", "gdtr", "ldtr", "idtr", "tr")
"""In this order from offset 0, 16 bytes each."""
_REGISTERS: Final = {
    "efer": range(0x0D0, 0x0D8),
    "cr4": range(0x148, 0x150),
    "cr0": range(0x158, 0x160),
    "dr7": range(0x160, 0x168),
    "dr6": range(0x168, 0x170),
    "rflags": range(0x170, 0x178),
    "rip": range(0x178, 0x180),
    "g_pat": range(0x268, 0x270),
    "rdx": range(0x310, 0x318),
    "sev_features": range(0x3B0, 0x3B8),
    "xcr0": range(0x3E8, 0x3F0),
    "mxcsr": range(0x408, 0x40C),
    "x87_fcw": range(0x410, 0x412),
}
_KVM: Final = {
    "efer": 0x1000,  # SVME, which KVM sets for every guest
    "cr4": 0x40,  # MCE, likewise
    "cr0": 0x10,
    "dr7": 0x400,
    "dr6": 0xFFFF0FF0,
    "rflags": 0x2,
    "g_pat": 0x0007040600070406,
    "xcr0": 0x1,
    "mxcsr": 0x1F80,
    "x87_fcw": 0x37F,
}
"""The state after reset on KVM."""


def vmsa_page(vmm: Vmm, *, entry: int, cpu_signature: int, features: int) -> bytes:
    """Give the page of a processor that starts in real mode at ``entry`` (4096 bytes)."""
    cs, ss, tr, registers = 0x9B, 0x93, 0x8B, dict(_KVM)
    match vmm:
        case Vmm.QEMU:
            registers["rdx"] = cpu_signature
        case Vmm.EC2 | Vmm.EC2_LEGACY:
            cs, ss, tr = (0x9A if entry == BSP_RESET else 0x9B), 0x92, 0x83
            registers |= {"rdx": 0x600 if vmm is Vmm.EC2 else 0, "mxcsr": 0, "x87_fcw": 0}
        case Vmm.GCE:
            registers |= {"rdx": 0x600, "mxcsr": 0, "x87_fcw": 0, "g_pat": 0x00070106}
    data, table = _Segment(0, 0x93, 0xFFFF), _Segment(0, 0, 0xFFFF)
    segments = dict.fromkeys(_SEGMENTS, data) | {
        "cs": _Segment(0xF000, cs, 0xFFFF, entry & 0xFFFF0000),
        "ss": _Segment(0, ss, 0xFFFF),
        "gdtr": table,
        "ldtr": _Segment(0, 0x82, 0xFFFF),
        "idtr": table,
        "tr": _Segment(0, tr, 0xFFFF),
    }
    return _page(segments, registers | {"rip": entry & 0xFFFF, "sev_features": features})


def svsm_vmsa_page(*, entry: int, cpu_signature: int) -> bytes:
    """Give the page of a processor that starts in protected mode at the ``entry`` of an SVSM under QEMU."""
    flat, table = _Segment(0x10, 0xC93, 0xFFFFFFFF), _Segment(0, 0, 0xFFFF)
    segments = dict.fromkeys(_SEGMENTS, flat) | {
        "cs": _Segment(0x8, 0xC9B, 0xFFFFFFFF),
        "gs": _Segment(0, 0x93, 0xFFFF),
        "gdtr": table,
        "ldtr": _Segment(0, 0x82, 0xFFFF),
        "idtr": table,
        "tr": _Segment(0, 0x8B, 0xFFFF),
    }
    changed = {"cr0": 0x11, "rip": entry, "rdx": cpu_signature, "x87_fcw": 0}
    return _page(segments, _KVM | changed | {"sev_features": GuestFeatures.SNP_ACTIVE})


def _page(segments: dict[str, _Segment], registers: dict[str, int]) -> bytes:
    page = bytearray(PAGE_BYTES)
    for number, name in enumerate(_SEGMENTS):
        page[16 * number : 16 * number + 16] = segments[name].pack()
    for name, value in registers.items():
        at = _REGISTERS[name]
        if not 0 <= value < 1 << 8 * len(at):
            raise Unmeasurable(f"vmsa: {name} {value:#x} does not fit into {8 * len(at)} bits")
        page[at.start : at.stop] = value.to_bytes(len(at), "little")
    return bytes(page)
