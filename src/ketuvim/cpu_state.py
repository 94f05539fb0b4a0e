"""The state of a virtual processor as properties: reading asks the kernel, assigning tells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ketuvim import _numbers as n
from ketuvim import _structs as s
from ketuvim._ioctl import Request
from ketuvim.errors import Misuse
from ketuvim.registers import Registers, SpecialRegisters, SpecialRegisters2
from ketuvim.state import (
    CpuEvents,
    CpuidEntry,
    DebugControl,
    DebugRegisters,
    FloatingPoint,
    MpState,
    Translation,
    pack_cpuid,
    unpack_cpuid,
)

MAX_CPUID_ENTRIES: Final = 256


class CpuState:
    """What ``VirtualCpu`` adds to running: everything that can be read and set while it does not run."""

    __slots__ = ()

    def _ask(self, request: Request, argument: int | bytearray) -> int:
        raise NotImplementedError

    def _xsave_size(self) -> int:
        raise NotImplementedError

    def _get(self, request: Request, size: int) -> bytearray:
        answer = bytearray(size)
        self._ask(request, answer)
        return answer

    @property
    def registers(self) -> Registers:
        """The general registers."""
        return Registers.unpack(self._get(n.GET_REGS, s.REGS.size))

    @registers.setter
    def registers(self, value: Registers) -> None:
        self._ask(n.SET_REGS, value.pack())

    @property
    def special_registers(self) -> SpecialRegisters:
        """Segments, tables and control registers."""
        return SpecialRegisters.unpack(self._get(n.GET_SREGS, s.SREGS.size))

    @special_registers.setter
    def special_registers(self, value: SpecialRegisters) -> None:
        self._ask(n.SET_SREGS, value.pack())

    @property
    def special_registers2(self) -> SpecialRegisters2:
        """The same with page directory pointers (``Capability.SREGS2``)."""
        return SpecialRegisters2.unpack(self._get(n.GET_SREGS2, s.SREGS2.size))

    @special_registers2.setter
    def special_registers2(self, value: SpecialRegisters2) -> None:
        self._ask(n.SET_SREGS2, value.pack())

    @property
    def floating_point(self) -> FloatingPoint:
        """The x87 and SSE registers."""
        return FloatingPoint.unpack(self._get(n.GET_FPU, s.FPU.size))

    @floating_point.setter
    def floating_point(self, value: FloatingPoint) -> None:
        self._ask(n.SET_FPU, value.pack())

    @property
    def xsave(self) -> bytes:
        """The XSAVE area, in the processor's own layout (CPUID leaf 0xD); 4096 bytes or what KVM says it needs."""
        size = self._xsave_size()
        return bytes(self._get(n.GET_XSAVE2 if size > s.XSAVE.size else n.GET_XSAVE, size))

    @xsave.setter
    def xsave(self, value: bytes) -> None:
        size = self._xsave_size()
        if len(value) != size:
            raise Misuse(f"the XSAVE area has {size} bytes, not {len(value)}")
        self._ask(n.SET_XSAVE, bytearray(value))

    @property
    def xcrs(self) -> dict[int, int]:
        """The extended control registers by number."""
        count, _, entries = s.XCRS.unpack(self._get(n.GET_XCRS, s.XCRS.size))
        return dict(s.XCR.iter_unpack(entries[: count * s.XCR.size]))

    @xcrs.setter
    def xcrs(self, value: Mapping[int, int]) -> None:
        packed = b"".join(s.XCR.pack(number, bits) for number, bits in value.items())
        self._ask(n.SET_XCRS, bytearray(s.XCRS.pack(len(value), 0, packed)))

    def read_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        """Read model specific registers; those after one that KVM does not know are missing in the answer."""
        wanted = list(indices)
        packed = bytearray(s.MSR_HEADER.pack(len(wanted)))
        for index in wanted:
            packed += s.MSR.pack(index, 0)
        count = self._ask(n.GET_MSRS, packed)
        entries = packed[s.MSR_HEADER.size :][: count * s.MSR.size]
        return dict(s.MSR.iter_unpack(entries))

    def write_msrs(self, values: Mapping[int, int]) -> None:
        """Write model specific registers; raise ``Misuse`` at the first that KVM refuses."""
        packed = bytearray(s.MSR_HEADER.pack(len(values)))
        for index, value in values.items():
            packed += s.MSR.pack(index, value)
        done = self._ask(n.SET_MSRS, packed)
        if done < len(values):
            raise Misuse(f"KVM refuses to write MSR {list(values)[done]:#x}")

    @property
    def cpuid(self) -> list[CpuidEntry]:
        """What CPUID tells the guest."""
        entries = bytearray(s.CPUID_ENTRY.size * MAX_CPUID_ENTRIES)
        packed = bytearray(s.CPUID_HEADER.pack(MAX_CPUID_ENTRIES)) + entries
        self._ask(n.GET_CPUID2, packed)
        return unpack_cpuid(packed)

    @cpuid.setter
    def cpuid(self, value: list[CpuidEntry]) -> None:
        self._ask(n.SET_CPUID2, pack_cpuid(value))

    @property
    def events(self) -> CpuEvents:
        """What waits for delivery."""
        return CpuEvents.unpack(self._get(n.GET_VCPU_EVENTS, s.EVENTS.size))

    @events.setter
    def events(self, value: CpuEvents) -> None:
        self._ask(n.SET_VCPU_EVENTS, value.pack())

    @property
    def debug_registers(self) -> DebugRegisters:
        """The guest's debug registers."""
        return DebugRegisters.unpack(self._get(n.GET_DEBUGREGS, s.DEBUG_REGISTERS.size))

    @debug_registers.setter
    def debug_registers(self, value: DebugRegisters) -> None:
        self._ask(n.SET_DEBUGREGS, value.pack())

    @property
    def mp_state(self) -> MpState:
        """What the processor does."""
        return MpState(s.MP_STATE.unpack(self._get(n.GET_MP_STATE, s.MP_STATE.size))[0])

    @mp_state.setter
    def mp_state(self, value: MpState) -> None:
        self._ask(n.SET_MP_STATE, bytearray(s.MP_STATE.pack(value)))

    @property
    def local_apic(self) -> bytes:
        """The registers of the local interrupt controller, 1024 bytes; needs ``create_irqchip``."""
        return bytes(self._get(n.GET_LAPIC, s.LAPIC.size))

    @local_apic.setter
    def local_apic(self, value: bytes) -> None:
        self._ask(n.SET_LAPIC, bytearray(s.LAPIC.pack(value)))

    @property
    def tsc_khz(self) -> int:
        """How fast the guest's time stamp counter counts."""
        return self._ask(n.GET_TSC_KHZ, 0)

    @tsc_khz.setter
    def tsc_khz(self, value: int) -> None:
        self._ask(n.SET_TSC_KHZ, value)

    def translate(self, linear_address: int) -> Translation:
        """Walk the guest's page tables."""
        packed = bytearray(s.TRANSLATION.pack(linear_address, 0, 0, 0, 0))
        self._ask(n.TRANSLATE, packed)
        _, physical, valid, writeable, usermode = s.TRANSLATION.unpack(packed)
        return Translation(
            physical_address=physical, valid=bool(valid), writeable=bool(writeable), usermode=bool(usermode)
        )

    def interrupt(self, vector: int) -> None:
        """Deliver an interrupt; only without ``create_irqchip``."""
        self._ask(n.INTERRUPT, bytearray(s.U32.pack(vector)))

    def nmi(self) -> None:
        """Deliver a non-maskable interrupt; needs ``create_irqchip``."""
        self._ask(n.NMI, 0)

    def debug(self, control: DebugControl, *, watch: DebugRegisters | None = None) -> None:
        """Debug the guest: single step, or breakpoints as in ``watch``; ``DebugControl(0)`` ends it."""
        watched = DebugRegisters() if watch is None else watch
        packed = s.GUEST_DEBUG.pack(control, *watched.db, 0, 0, watched.dr6, watched.dr7)
        self._ask(n.SET_GUEST_DEBUG, bytearray(packed))

    def enable(self, capability: int, *arguments: int) -> None:
        """Switch on an extension of this processor; up to four arguments."""
        self._ask(
            n.ENABLE_CAP, bytearray(s.ENABLE_CAP.pack(capability, 0, *arguments, *[0] * (4 - len(arguments))))
        )
