"""KVM from Python, with the launch of SEV, SEV-ES and SNP guests; standard library only.

>>> from ketuvim import Kvm, IoOut, boot, Registers
>>> add = bytes.fromhex("baf803 00d8 ee f4")  # mov dx, 0x3f8; add al, bl; out dx, al; hlt
>>> with Kvm.open() as kvm, boot(kvm, add, registers=Registers(rax=2, rbx=2)) as machine:
...     machine.vcpu.run()
IoOut(port=1016, size=1, data=b'\\x04')
"""

from __future__ import annotations

from ketuvim.acceleration import Acceleration, measure
from ketuvim.bus import Bus, Console, Device
from ketuvim.capabilities import Capability, VmType
from ketuvim.coalesced import CoalescedWrite
from ketuvim.errors import (
    EmulationFailed,
    EntryFailed,
    GuestFailed,
    GuestStuck,
    KetuvimError,
    KvmError,
    KvmUnavailable,
    MemoryGone,
    Misuse,
    TripleFault,
    Unclaimed,
    UnknownExit,
)
from ketuvim.exits import (
    ApResetHold,
    BusLock,
    Debug,
    DirtyRingFull,
    Event,
    Exit,
    FailEntry,
    Failure,
    GuestException,
    Halt,
    Hypercall,
    HyperV,
    InternalError,
    Interrupted,
    IoapicEoi,
    IoIn,
    IoOut,
    IrqWindowOpen,
    MemoryFault,
    MmioRead,
    MmioWrite,
    Nmi,
    Notify,
    ReadMsr,
    SetTpr,
    Shutdown,
    SnpCertificates,
    SystemEvent,
    TdxRequest,
    TprAccess,
    Unknown,
    WriteMsr,
    Xen,
)
from ketuvim.loader import Loaded, Mode, boot, enter_mode, load
from ketuvim.memory import GuestMemfd, GuestMemfdFlags, Mapping, MemoryFlags, MemoryRegion
from ketuvim.notify import IrqchipRoute, MsiRoute
from ketuvim.registers import DescriptorTable, Registers, Segment, SpecialRegisters, SpecialRegisters2
from ketuvim.state import (
    CpuEvents,
    CpuidEntry,
    DebugControl,
    DebugRegisters,
    FloatingPoint,
    MpState,
    RunFlags,
    SyncFields,
    SyncRegisters,
    Translation,
)
from ketuvim.system import Kvm
from ketuvim.thread import VcpuThread
from ketuvim.vcpu import VirtualCpu
from ketuvim.vm import VirtualMachine

__all__ = [
    "Acceleration", "ApResetHold", "Bus", "BusLock", "Capability", "CoalescedWrite", "Console", "CpuEvents",
    "CpuidEntry", "Debug", "DebugControl", "DebugRegisters", "DescriptorTable", "Device", "DirtyRingFull",
    "EmulationFailed", "EntryFailed", "Event", "Exit", "FailEntry", "Failure", "FloatingPoint", "GuestException",
    "GuestFailed", "GuestMemfd", "GuestMemfdFlags", "GuestStuck", "Halt", "HyperV", "Hypercall", "InternalError",
    "Interrupted", "IoIn", "IoOut", "IoapicEoi", "IrqWindowOpen", "IrqchipRoute", "KetuvimError", "Kvm", "KvmError",
    "KvmUnavailable", "Loaded", "Mapping", "MemoryFault", "MemoryFlags", "MemoryGone", "MemoryRegion", "Misuse",
    "MmioRead", "MmioWrite", "Mode", "MpState", "MsiRoute", "Nmi", "Notify", "ReadMsr", "Registers", "RunFlags",
    "Segment", "SetTpr", "Shutdown", "SnpCertificates", "SpecialRegisters", "SpecialRegisters2", "SyncFields",
    "SyncRegisters", "SystemEvent", "TdxRequest", "TprAccess", "Translation", "TripleFault", "Unclaimed", "Unknown",
    "UnknownExit", "VcpuThread", "VirtualCpu", "VirtualMachine", "VmType", "WriteMsr", "Xen", "boot", "enter_mode",
    "load", "measure",
]  # fmt: skip
