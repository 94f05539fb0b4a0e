"""Devices of a machine: who answers at which port and which address, and a loop that asks them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from ketuvim.errors import GuestStuck, Misuse, Unclaimed
from ketuvim.exits import Event, Interrupted, IoIn, IoOut, MmioRead, MmioWrite
from ketuvim.vcpu import VirtualCpu


class Device(Protocol):
    """Something that answers the guest; ``offset`` counts from where it was attached."""

    def read(self, offset: int, size: int) -> bytes:
        """Give ``size`` bytes."""

    def write(self, offset: int, data: bytes) -> None:
        """Take ``data``."""


class Console:
    """A device that keeps what is written to it, and reads as zero."""

    __slots__ = ("output",)

    def __init__(self) -> None:
        self.output = bytearray()

    def read(self, offset: int, size: int) -> bytes:
        """Give zeros."""
        return bytes(size)

    def write(self, offset: int, data: bytes) -> None:
        """Keep the bytes."""
        self.output += data


@dataclass(frozen=True, slots=True)
class _Place:
    range: range
    device: Device


class Bus:
    """The devices of a machine."""

    __slots__ = ("_memory", "_ports")

    def __init__(self) -> None:
        self._ports: list[_Place] = []
        self._memory: list[_Place] = []

    def attach_ports(self, ports: range, device: Device) -> None:
        """Let ``device`` answer at ``ports``."""
        _attach(self._ports, ports, device)

    def attach_memory(self, addresses: range, device: Device) -> None:
        """Let ``device`` answer at physical ``addresses``, where the machine has no memory."""
        _attach(self._memory, addresses, device)

    def serve(self, vcpu: VirtualCpu, *, timeout_s: float | None = None) -> Event:
        """Run the guest and its devices until something comes that is no use of a device, and give that.

        Raises ``Unclaimed`` where no device answers, ``GuestStuck`` when the time is over, and what ``run`` raises.
        """
        with _deadline(vcpu, timeout_s) as expired:
            while True:
                event = vcpu.run()
                match event:
                    case IoOut(port=port, size=size, data=data):
                        place = self._find(vcpu, self._ports, port, size, "port")
                        for at in range(0, len(data), size):
                            place.device.write(port - place.range.start, data[at : at + size])
                    case IoIn(port=port, size=size, count=count):
                        place = self._find(vcpu, self._ports, port, size, "port")
                        offset = port - place.range.start
                        vcpu.answer(b"".join(_read(place, offset, size) for _ in range(count)))
                    case MmioWrite(address=address, data=data):
                        place = self._find(vcpu, self._memory, address, len(data), "address")
                        place.device.write(address - place.range.start, data)
                    case MmioRead(address=address, size=size):
                        place = self._find(vcpu, self._memory, address, size, "address")
                        vcpu.answer(_read(place, address - place.range.start, size))
                    case Interrupted() if expired.is_set():
                        raise vcpu.failed(GuestStuck, f"the guest did not end within {timeout_s} s")
                    case _:
                        return event

    @staticmethod
    def _find(vcpu: VirtualCpu, places: list[_Place], start: int, size: int, what: str) -> _Place:
        for place in places:
            if start in place.range and start + size - 1 in place.range:
                return place
        raise vcpu.failed(Unclaimed, f"nothing answers at {what} {start:#x}")


def _attach(places: list[_Place], wanted: range, device: Device) -> None:
    if not wanted or wanted.step != 1 or wanted.start < 0:
        raise Misuse(f"a device is at a range of consecutive numbers, not {wanted}")
    for place in places:
        if wanted.start < place.range.stop and place.range.start < wanted.stop:
            raise Misuse(f"{wanted} overlaps {place.range}, where another device is")
    places.append(_Place(wanted, device))


def _read(place: _Place, offset: int, size: int) -> bytes:
    data = place.device.read(offset, size)
    if len(data) != size:
        raise Misuse(f"the device at {place.range} gave {len(data)} bytes for {size}")
    return data


@contextmanager
def _deadline(vcpu: VirtualCpu, timeout_s: float | None) -> Iterator[threading.Event]:
    """Stop the guest when the time is over; leave no stop behind for a later run."""
    expired = threading.Event()
    if timeout_s is None:
        yield expired
        return

    def expire() -> None:
        expired.set()
        vcpu.stop()

    timer = threading.Timer(timeout_s, expire)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
        timer.join()
        if expired.is_set():
            vcpu.withdraw_stop()
