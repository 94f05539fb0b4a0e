"""Event descriptors (eventfd) in place of exits and calls: interrupts in, writes of the guest out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from ketuvim import _numbers as n
from ketuvim import _structs as s
from ketuvim._ioctl import Descriptor

_DEASSIGN_IRQ: Final = 1 << 0
_RESAMPLE: Final = 1 << 1
_MATCH: Final = 1 << 0
_PORT: Final = 1 << 1
_DEASSIGN_IO: Final = 1 << 2
_ROUTE_IRQCHIP: Final = 1
_ROUTE_MSI: Final = 2


class Irqfd:
    """A write to an eventfd raises an interrupt, until this is closed."""

    __slots__ = ("_vm", "eventfd", "gsi")

    def __init__(self, vm: Descriptor, eventfd: int, gsi: int, resample: int | None) -> None:
        flags = 0 if resample is None else _RESAMPLE
        vm.ioctl(n.IRQFD, bytearray(s.IRQFD.pack(eventfd, gsi, flags, resample or 0)))
        self._vm: Descriptor | None = vm
        self.eventfd = eventfd
        self.gsi = gsi

    def close(self) -> None:
        """End it; a second time does nothing."""
        vm, self._vm = self._vm, None
        if vm is not None and not vm.closed:
            vm.ioctl(n.IRQFD, bytearray(s.IRQFD.pack(self.eventfd, self.gsi, _DEASSIGN_IRQ, 0)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Ioeventfd:
    """A write of the guest signals an eventfd, until this is closed; ``size`` 0 stands for any length."""

    __slots__ = ("_arguments", "_flags", "_vm")

    def __init__(
        self, vm: Descriptor, eventfd: int, address: int, size: int, match: int | None, *, port: bool
    ) -> None:
        self._flags = (_PORT if port else 0) | (0 if match is None else _MATCH)
        self._arguments = (match or 0, address, size, eventfd)
        vm.ioctl(n.IOEVENTFD, bytearray(s.IOEVENTFD.pack(*self._arguments, self._flags)))
        self._vm: Descriptor | None = vm

    def close(self) -> None:
        """End it; a second time does nothing."""
        vm, self._vm = self._vm, None
        if vm is not None and not vm.closed:
            vm.ioctl(n.IOEVENTFD, bytearray(s.IOEVENTFD.pack(*self._arguments, self._flags | _DEASSIGN_IO)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class IrqchipRoute:
    """An interrupt number leads to a pin of an interrupt controller (0 and 1 the PICs, 2 the IOAPIC)."""

    gsi: int
    irqchip: int
    pin: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MsiRoute:
    """An interrupt number leads to a message."""

    gsi: int
    address: int
    data: int


GsiRoute = IrqchipRoute | MsiRoute


def pack_routes(routes: list[GsiRoute]) -> bytearray:
    """Write ``struct kvm_irq_routing``."""
    packed = bytearray(s.IRQ_ROUTING_HEADER.pack(len(routes), 0))
    for route in routes:
        match route:
            case IrqchipRoute():
                kind, target = _ROUTE_IRQCHIP, s.IRQ_LEVEL.pack(route.irqchip, route.pin)
            case MsiRoute():
                words = (route.address & 0xFFFFFFFF, route.address >> 32, route.data)
                kind, target = _ROUTE_MSI, b"".join(s.U32.pack(word) for word in words)
        packed += s.IRQ_ROUTING_ENTRY.pack(route.gsi, kind, 0, target)
    return packed
