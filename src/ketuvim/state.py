"""The state of a virtual processor beside its registers: floating point, events, debugging, CPUID, MSRs' names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Self

from ketuvim import _structs as s
from ketuvim.registers import Registers, SpecialRegisters


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatingPoint:
    """x87 and SSE: 8 registers of 16 bytes in ``fpr``, 16 of 16 bytes in ``xmm``; status words as FXSAVE has them."""

    fpr: bytes
    fcw: int
    fsw: int
    ftwx: int
    last_opcode: int
    last_ip: int
    last_dp: int
    xmm: bytes
    mxcsr: int

    @classmethod
    def unpack(cls, data: bytes | bytearray) -> Self:
        """Read ``struct kvm_fpu``."""
        return cls(**dict(zip(cls.__slots__, s.FPU.unpack(data), strict=True)))

    def pack(self) -> bytearray:
        """Write ``struct kvm_fpu``."""
        return bytearray(
            s.FPU.pack(
                self.fpr, self.fcw, self.fsw, self.ftwx, self.last_opcode, self.last_ip, self.last_dp,
                self.xmm, self.mxcsr,
            )
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionEvent:
    """An exception on its way into the guest."""

    injected: int = 0
    nr: int = 0
    has_error_code: int = 0
    pending: int = 0
    error_code: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptEvent:
    """An interrupt on its way into the guest; ``shadow`` holds it back for one instruction."""

    injected: int = 0
    nr: int = 0
    soft: int = 0
    shadow: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NmiEvent:
    """A non-maskable interrupt on its way into the guest."""

    injected: int = 0
    pending: int = 0
    masked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SmiEvent:
    """System management mode: whether the processor is in it, and what waits."""

    smm: int = 0
    pending: int = 0
    smm_inside_nmi: int = 0
    latched_init: int = 0


class EventFlags(IntFlag):
    """Which parts of ``CpuEvents`` are to be set."""

    NMI_PENDING = 1 << 0
    SIPI_VECTOR = 1 << 1
    SHADOW = 1 << 2
    SMM = 1 << 3
    PAYLOAD = 1 << 4
    TRIPLE_FAULT = 1 << 5
    NONE = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuEvents:
    """What waits for delivery to the guest."""

    exception: ExceptionEvent = ExceptionEvent()
    interrupt: InterruptEvent = InterruptEvent()
    nmi: NmiEvent = NmiEvent()
    sipi_vector: int = 0
    flags: EventFlags = EventFlags.NONE
    smi: SmiEvent = SmiEvent()
    triple_fault_pending: int = 0
    exception_has_payload: int = 0
    exception_payload: int = 0

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read ``struct kvm_vcpu_events``."""
        n = s.EVENTS.unpack(data)
        return cls(
            exception=ExceptionEvent(
                injected=n[0], nr=n[1], has_error_code=n[2], pending=n[3], error_code=n[4]
            ),
            interrupt=InterruptEvent(injected=n[5], nr=n[6], soft=n[7], shadow=n[8]),
            nmi=NmiEvent(injected=n[9], pending=n[10], masked=n[11]),
            sipi_vector=n[12],
            flags=EventFlags(n[13]),
            smi=SmiEvent(smm=n[14], pending=n[15], smm_inside_nmi=n[16], latched_init=n[17]),
            triple_fault_pending=n[18],
            exception_has_payload=n[19],
            exception_payload=n[20],
        )

    def pack(self) -> bytearray:
        """Write ``struct kvm_vcpu_events``."""
        exception, interrupt, nmi, smi = self.exception, self.interrupt, self.nmi, self.smi
        return bytearray(
            s.EVENTS.pack(
                exception.injected, exception.nr, exception.has_error_code, exception.pending, exception.error_code,
                interrupt.injected, interrupt.nr, interrupt.soft, interrupt.shadow,
                nmi.injected, nmi.pending, nmi.masked,
                self.sipi_vector, self.flags,
                smi.smm, smi.pending, smi.smm_inside_nmi, smi.latched_init,
                self.triple_fault_pending, self.exception_has_payload, self.exception_payload,
            )
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class DebugRegisters:
    """The debug registers: four addresses, what happened, what is watched."""

    db: tuple[int, int, int, int] = (0, 0, 0, 0)
    dr6: int = 0
    dr7: int = 0
    flags: int = 0

    @classmethod
    def unpack(cls, data: bytes | bytearray) -> Self:
        """Read ``struct kvm_debugregs``."""
        a, b, c, d, dr6, dr7, flags = s.DEBUG_REGISTERS.unpack(data)
        return cls(db=(a, b, c, d), dr6=dr6, dr7=dr7, flags=flags)

    def pack(self) -> bytearray:
        """Write ``struct kvm_debugregs``."""
        return bytearray(s.DEBUG_REGISTERS.pack(*self.db, self.dr6, self.dr7, self.flags))


class DebugControl(IntFlag):
    """How the host debugs the guest."""

    ENABLE = 1 << 0
    SINGLE_STEP = 1 << 1
    SOFTWARE_BREAKPOINTS = 1 << 16
    HARDWARE_BREAKPOINTS = 1 << 17
    INJECT_DB = 1 << 18
    INJECT_BP = 1 << 19
    BLOCK_INTERRUPTS = 1 << 20


class MpState(IntEnum):
    """What a processor does, in machines with several (x86)."""

    RUNNABLE = 0
    UNINITIALIZED = 1
    INIT_RECEIVED = 2
    HALTED = 3
    SIPI_RECEIVED = 4
    AP_RESET_HOLD = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuidEntry:
    """What CPUID answers for one leaf; ``index`` counts where ``flags`` says that the leaf has sub-leaves."""

    function: int
    index: int = 0
    flags: int = 0
    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """Where a linear address of the guest leads."""

    physical_address: int
    valid: bool
    writeable: bool
    usermode: bool


class SyncFields(IntFlag):
    """Which registers KVM leaves in the shared page at each exit, so that reading them needs no ioctl."""

    NONE = 0
    REGISTERS = 1 << 0
    SPECIAL_REGISTERS = 1 << 1
    EVENTS = 1 << 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRegisters:
    """The registers of the shared page, each as of the last exit for which it was asked."""

    registers: Registers
    special_registers: SpecialRegisters
    events: CpuEvents


class RunFlags(IntFlag):
    """What KVM says about the processor at an exit."""

    SMM = 1 << 0
    BUS_LOCK = 1 << 1
    GUEST_MODE = 1 << 2


def pack_cpuid(entries: list[CpuidEntry]) -> bytearray:
    """Write ``struct kvm_cpuid2``."""
    packed = bytearray(s.CPUID_HEADER.pack(len(entries)))
    for e in entries:
        packed += s.CPUID_ENTRY.pack(e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx)
    return packed


def unpack_cpuid(data: bytearray) -> list[CpuidEntry]:
    """Read ``struct kvm_cpuid2``."""
    (count,) = s.CPUID_HEADER.unpack_from(data)
    found = s.CPUID_ENTRY.iter_unpack(data[s.CPUID_HEADER.size :][: count * s.CPUID_ENTRY.size])
    return [CpuidEntry(**dict(zip(CpuidEntry.__slots__, numbers, strict=True))) for numbers in found]
