"""Why a virtual processor came back: a closed set of values for ``match``.

``Event`` is what the host can serve, after which the guest goes on; ``Failure`` is an end. The values hold copies:
none refers to memory that the guest or the kernel can change. Numbers and layouts: linux/kvm.h, ``struct kvm_run``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from mmap import mmap
from struct import Struct
from typing import Final

from ketuvim._structs import RUN_EXIT, RUN_EXIT_SIZE


@dataclass(frozen=True, slots=True)
class IoIn:
    """The guest reads ``count`` times ``size`` bytes from a port; ``VirtualCpu.answer`` gives them."""

    port: int
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class IoOut:
    """The guest wrote ``data`` to a port, in units of ``size`` bytes."""

    port: int
    size: int
    data: bytes


@dataclass(frozen=True, slots=True)
class MmioRead:
    """The guest reads where no memory is; ``VirtualCpu.answer`` gives ``size`` bytes."""

    address: int
    size: int


@dataclass(frozen=True, slots=True)
class MmioWrite:
    """The guest wrote where no writable memory is."""

    address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Halt:
    """The guest executed HLT, and KVM has no interrupt controller of its own that could wake it."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """``VirtualCpu.stop`` was called, or a signal came whose handler returned; the guest can go on."""


@dataclass(frozen=True, slots=True)
class Hypercall:
    """The guest made a hypercall that KVM leaves to the host; ``VirtualCpu.answer_hypercall`` gives the result."""

    nr: int
    arguments: tuple[int, ...]
    long_mode: bool


@dataclass(frozen=True, slots=True)
class Debug:
    """A breakpoint or a single step that ``VirtualCpu.debug`` asked for."""

    exception: int
    pc: int
    dr6: int
    dr7: int


@dataclass(frozen=True, slots=True)
class GuestException:
    """An exception of the guest that KVM hands to the host."""

    exception: int
    error_code: int


@dataclass(frozen=True, slots=True)
class IrqWindowOpen:
    """The guest would take an interrupt now."""


@dataclass(frozen=True, slots=True)
class SetTpr:
    """The guest lowered its task priority (``cr8``)."""


@dataclass(frozen=True, slots=True)
class TprAccess:
    """The guest used its task priority register in memory."""

    rip: int
    is_write: bool


@dataclass(frozen=True, slots=True)
class Nmi:
    """A non-maskable interrupt came while the guest ran."""


@dataclass(frozen=True, slots=True)
class SystemEvent:
    """The guest or its firmware asks for an event of the whole machine (``KVM_SYSTEM_EVENT_*``)."""

    type: int
    data: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class IoapicEoi:
    """The guest finished an interrupt whose controller the host emulates."""

    vector: int


@dataclass(frozen=True, slots=True)
class HyperV:
    """A request in the manner of Hyper-V; ``raw`` is ``struct kvm_hyperv_exit``."""

    type: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Xen:
    """A request in the manner of Xen; ``raw`` is ``struct kvm_xen_exit``."""

    type: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class ReadMsr:
    """The guest reads a model specific register that the host answers for."""

    index: int
    reason: int


@dataclass(frozen=True, slots=True)
class WriteMsr:
    """The guest writes a model specific register that the host answers for."""

    index: int
    data: int
    reason: int


@dataclass(frozen=True, slots=True)
class DirtyRingFull:
    """The ring of dirty pages must be emptied before the guest can go on."""


@dataclass(frozen=True, slots=True)
class ApResetHold:
    """A processor of an SEV-ES guest waits to be started."""


@dataclass(frozen=True, slots=True)
class BusLock:
    """The guest locked the bus."""


@dataclass(frozen=True, slots=True)
class Notify:
    """The guest kept the processor without a break for longer than it may."""

    context_invalid: bool


@dataclass(frozen=True, slots=True)
class MemoryFault:
    """The guest used memory in the wrong manner: ``private`` where it is shared, or the other way round."""

    address: int
    size: int
    private: bool


@dataclass(frozen=True, slots=True)
class TdxRequest:
    """A request of a TDX guest; ``raw`` is the exit's part of ``struct kvm_run``."""

    nr: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class SnpCertificates:
    """An SNP guest asks for the certificates that belong to its report."""

    raw: bytes


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The guest shut down: a triple fault."""


@dataclass(frozen=True, slots=True)
class InternalError:
    """KVM could not go on; ``suberror`` is 1 where it could not interpret the instruction that ``data`` ends with."""

    suberror: int
    data: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FailEntry:
    """The processor refused the guest's state."""

    hardware_reason: int
    cpu: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """A reason without a name here: of another architecture, or newer than this library."""

    reason: int
    raw: bytes


Event = (
    IoIn | IoOut | MmioRead | MmioWrite | Halt | Interrupted | Hypercall | Debug | GuestException | IrqWindowOpen
    | SetTpr | TprAccess | Nmi | SystemEvent | IoapicEoi | HyperV | Xen | ReadMsr | WriteMsr | DirtyRingFull
    | ApResetHold | BusLock | Notify | MemoryFault | TdxRequest | SnpCertificates
)  # fmt: skip
Failure = Shutdown | InternalError | FailEntry | Unknown
Exit = Event | Failure

IO: Final = Struct("<BBHIQ")  # direction, size, port, count, data_offset
MMIO: Final = Struct("<Q8sIB")  # phys_addr, data, len, is_write
MMIO_DATA: Final = RUN_EXIT + 8
HYPERCALL_RESULT: Final = RUN_EXIT + 7 * 8
MSR: Final = Struct("<B7xIIQ")  # error, reason, index, data
MSR_DATA: Final = RUN_EXIT + 16
INTERRUPTED: Final = Interrupted()
REASON_IO: Final = 2
REASON_MMIO: Final = 6
REASON_MEMORY_FAULT: Final = 39

_IO_OUT: Final = 1
_HALT: Final = Halt()
_INTERNAL_DATA: Final = 16
_PRIVATE: Final = 1 << 3
_U64: Final = Struct("<Q")
_TWO_U32: Final = Struct("<II")
_HYPERCALL: Final = Struct("<7Q8xI")
_DEBUG: Final = Struct("<I4xQQQ")
_TPR: Final = Struct("<QI")
_FAIL_ENTRY: Final = Struct("<QI")
_MEMORY_FAULT: Final = Struct("<QQQ")
_WORDS: Final = Struct("<16Q")


def decode(reason: int, page: mmap) -> Exit:
    """Copy the exit out of the page that is shared with the kernel."""
    if reason == REASON_IO:
        return _io(page)
    if reason == REASON_MMIO:
        return _mmio(page)
    decoder = _DECODERS.get(reason)
    return Unknown(reason, _raw(page)) if decoder is None else decoder(page)


def _io(page: mmap) -> IoIn | IoOut:
    direction, size, port, count, offset = IO.unpack_from(page, RUN_EXIT)
    if direction == _IO_OUT:
        return IoOut(port, size, page[offset : offset + size * count])
    return IoIn(port, size, count)


def _mmio(page: mmap) -> MmioRead | MmioWrite:
    address, data, size, is_write = MMIO.unpack_from(page, RUN_EXIT)
    return MmioWrite(address, data[:size]) if is_write else MmioRead(address, size)


def _raw(page: mmap) -> bytes:
    return page[RUN_EXIT : RUN_EXIT + RUN_EXIT_SIZE]


def _hypercall(page: mmap) -> Hypercall:
    nr, *arguments, long_mode = _HYPERCALL.unpack_from(page, RUN_EXIT)
    return Hypercall(nr, tuple(arguments), bool(long_mode))


def _counted(page: mmap) -> tuple[int, tuple[int, ...]]:
    """Read a number, how many words follow, and these."""
    kind, count = _TWO_U32.unpack_from(page, RUN_EXIT)
    words = _WORDS.unpack_from(page, RUN_EXIT + _TWO_U32.size)
    return kind, words[: min(count, _INTERNAL_DATA)]


def _tpr(page: mmap) -> TprAccess:
    rip, is_write = _TPR.unpack_from(page, RUN_EXIT)
    return TprAccess(rip, bool(is_write))


def _read_msr(page: mmap) -> ReadMsr:
    _, reason, index, _ = MSR.unpack_from(page, RUN_EXIT)
    return ReadMsr(index, reason)


def _write_msr(page: mmap) -> WriteMsr:
    _, reason, index, data = MSR.unpack_from(page, RUN_EXIT)
    return WriteMsr(index, data, reason)


def _memory_fault(page: mmap) -> MemoryFault:
    flags, address, size = _MEMORY_FAULT.unpack_from(page, RUN_EXIT)
    return MemoryFault(address, size, bool(flags & _PRIVATE))


def _first_u32(page: mmap) -> int:
    return int(_TWO_U32.unpack_from(page, RUN_EXIT)[0])


_DECODERS: Final[Mapping[int, Callable[[mmap], Exit]]] = {
    1: lambda page: GuestException(*_TWO_U32.unpack_from(page, RUN_EXIT)),
    3: _hypercall,
    4: lambda page: Debug(*_DEBUG.unpack_from(page, RUN_EXIT)),
    5: lambda page: _HALT,
    7: lambda page: IrqWindowOpen(),
    8: lambda page: Shutdown(),
    9: lambda page: FailEntry(*_FAIL_ENTRY.unpack_from(page, RUN_EXIT)),
    10: lambda page: INTERRUPTED,
    11: lambda page: SetTpr(),
    12: _tpr,
    16: lambda page: Nmi(),
    17: lambda page: InternalError(*_counted(page)),
    24: lambda page: SystemEvent(*_counted(page)),
    26: lambda page: IoapicEoi(page[RUN_EXIT]),
    27: lambda page: HyperV(_first_u32(page), _raw(page)),
    29: _read_msr,
    30: _write_msr,
    31: lambda page: DirtyRingFull(),
    32: lambda page: ApResetHold(),
    33: lambda page: BusLock(),
    34: lambda page: Xen(_first_u32(page), _raw(page)),
    37: lambda page: Notify(bool(_first_u32(page) & 1)),
    REASON_MEMORY_FAULT: _memory_fault,
    40: lambda page: TdxRequest(int(_U64.unpack_from(page, RUN_EXIT + 8)[0]), _raw(page)),
    43: lambda page: SnpCertificates(_raw(page)),
}
