"""Where the guest of the SEV demo runs: a machine of KVM, or, where there is none, an interpreter that says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol, cast

from enarx.api.demo_guest import ENTRY, PORT, REGION_BYTES
from enarx.tcb.errors import EnarxError
from ketuvim import (
    Bus,
    Console,
    Halt,
    IoOut,
    Kvm,
    Misuse,
    Mode,
    Registers,
    VirtualMachine,
    VmType,
    enter_mode,
)
from ketuvim.interpreter import Interpreter

TIMEOUT_S: Final = 30.0
MAX_OUTPUT_BYTES: Final = 4096


class GuestMachine(Protocol):
    """One machine with the guest's memory."""

    @property
    def vm(self) -> VirtualMachine:
        """Its memory, and for KVM all of it."""

    @property
    def interpreted(self) -> bool:
        """Whether Python plays the processor."""

    def run(self) -> bytes:
        """Run the guest until it halts; give what it printed. Raises ``KetuvimError``, ``EnarxError``."""


@contextmanager
def open_machine(device: str, kind: VmType) -> Iterator[GuestMachine]:
    """Make a machine on the KVM at ``device``; where there is no such file, one without KVM.

    ``kind``: for encrypted memory, there must be a KVM; an older one knows only the default kind, for all of them.
    """
    if kind is VmType.DEFAULT and not Path(device).exists():
        yield _Interpreted()
        return
    with Kvm.open(device) as kvm:
        known = kind if kind in kvm.vm_types() else VmType.DEFAULT
        vm = kvm.create_vm(known)
    with vm:
        vm.add_region(ENTRY, REGION_BYTES)
        yield _OnKvm(vm)


class _OnKvm:
    interpreted = False

    def __init__(self, vm: VirtualMachine) -> None:
        self.vm = vm

    def run(self) -> bytes:
        vcpu, console, bus = self.vm.create_vcpu(), Console(), Bus()
        enter_mode(vcpu, Mode.REAL)
        vcpu.registers = Registers(rip=ENTRY)
        bus.attach_ports(range(PORT, PORT + 1), console)
        event = bus.serve(vcpu, timeout_s=TIMEOUT_S)
        if event != Halt():
            raise EnarxError(f"the guest ended with {type(event).__name__}, expected a halt")
        return bytes(console.output)


class _Interpreted:
    interpreted = True

    def __init__(self) -> None:
        self._memory = _Memory()

    @property
    def vm(self) -> VirtualMachine:
        return cast(VirtualMachine, self._memory)  # a launch by firmware only reads and writes it

    def run(self) -> bytes:
        machine, output = Interpreter(self._memory.data, Registers(rip=ENTRY)), bytearray()
        while isinstance(event := machine.run(), IoOut):
            if event.port != PORT or len(output) >= MAX_OUTPUT_BYTES:
                raise EnarxError(f"the guest wrote to port {event.port:#x}, expected a line on {PORT:#x}")
            output += event.data
        return bytes(output)


class _Memory:
    """The guest's memory and what lies below it."""

    def __init__(self) -> None:
        self.data = bytearray(ENTRY + REGION_BYTES)

    def region_at(self, address: int, size: int = 1) -> None:
        if address < ENTRY or address + size > len(self.data):
            raise Misuse(f"no region holds {size} bytes at {address:#x}")

    def read(self, address: int, size: int) -> bytes:
        self.region_at(address, size)
        return bytes(self.data[address : address + size])

    def write(self, address: int, data: bytes) -> None:
        self.region_at(address, len(data))
        self.data[address : address + len(data)] = data
