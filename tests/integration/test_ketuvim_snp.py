"""An SNP launch on the real ``/dev/kvm`` with an emulated secure processor: what runs is what was measured."""

from __future__ import annotations

import pytest
from tests.forge import amd
from tests.forge.amd import Randomness

from enarx_emulator.amd.chip import Chip, product
from enarx_emulator.amd.snp import SnpFirmware
from enarx_emulator.errors import FirmwareError
from ketuvim import Bus, Console, Halt, Kvm, Misuse, Mode, Registers, enter_mode
from ketuvim.snp import POLICY_RESERVED, POLICY_SMT, SnpLaunch
from ketuvim.snp_commands import PageType, PlainSnpCommands

POLICY = POLICY_RESERVED | POLICY_SMT
ENTRY, SECRETS, PORT = 0x1000, 0x3000, 0x3F8
ADD = bytes.fromhex("baf803 b002 b302 00d8 0430 ee f4").ljust(4096, b"\0")


@pytest.fixture
def firmware() -> SnpFirmware:
    made = SnpFirmware(
        Chip(amd.vendor().manufacture(product("milan"), amd.setup("snp").seed)), random=Randomness()
    )
    made.init()
    return made


def measured(kvm: Kvm, firmware: SnpFirmware, code: bytes) -> tuple[bytes, bytes, bytes]:
    """Launch ``code``; give its output, the measurement, and the secrets page as the guest has it."""
    console, bus = Console(), Bus()
    bus.attach_ports(range(PORT, PORT + 1), console)
    with kvm.create_vm() as vm:
        vm.add_region(0, 0x10000)
        commands = PlainSnpCommands(vm, firmware)
        started = SnpLaunch.new(vm, commands).start(POLICY)
        started.update(ENTRY, code)
        started.update(SECRETS, bytes(4096), PageType.SECRETS)
        assert vm.read(ENTRY, 16) == bytes(16)  # nothing is there before the launch is finished
        started.finish(host_data=b"h" * 32)
        vcpu = vm.create_vcpu()
        enter_mode(vcpu, Mode.REAL)
        vcpu.registers = Registers(rip=ENTRY)
        assert bus.serve(vcpu, timeout_s=20) == Halt()
        guest = firmware.running(commands.handle)
        assert guest.host_data == b"h" * 32
        return bytes(console.output), guest.measurement, vm.read(SECRETS, 4096)


def test_the_measured_code_adds(kvm: Kvm, firmware: SnpFirmware) -> None:
    output, measurement, secrets = measured(kvm, firmware, ADD)
    assert output == b"4"
    assert any(secrets)  # the firmware filled it
    again = measured(kvm, firmware, ADD)
    assert (again[0], again[1]) == (output, measurement)
    other = measured(kvm, firmware, ADD.replace(b"\xb0\x02", b"\xb0\x03"))
    assert other[0] == b"5"
    assert other[1] != measurement


def test_pages_outside_memory_are_refused(kvm: Kvm, firmware: SnpFirmware) -> None:
    with kvm.create_vm() as vm:
        vm.add_region(0, 0x10000)
        started = SnpLaunch.new(vm, PlainSnpCommands(vm, firmware)).start(POLICY)
        with pytest.raises(Misuse, match="no region holds"):
            started.update(0x20000, ADD)


def test_the_firmware_refuses_a_policy_that_the_platform_cannot_keep(kvm: Kvm, firmware: SnpFirmware) -> None:
    with kvm.create_vm() as vm:
        launch = SnpLaunch.new(vm, PlainSnpCommands(vm, firmware))
        with pytest.raises(FirmwareError):
            launch.start(POLICY_RESERVED)  # without SMT, on a platform that has it
        with pytest.raises(Misuse, match="past the state"):
            launch.start(POLICY)
