"""Launches against a kernel that records: which command, with which structure, and in which order."""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass
from typing import Any, cast

import pytest

from ketuvim import KvmError, Misuse, VmType, sev_commands, snp
from ketuvim import _structs as s
from ketuvim._ioctl import Descriptor, Request
from ketuvim.memory import Mapping
from ketuvim.sev import Launch, Launched, Measured, Policy, PolicyFlags, Secret, Start, Started
from ketuvim.sev_commands import KvmCommands
from ketuvim.sev_status import SevRefused, SevStatus
from ketuvim.snp import SnpLaunch, SnpStarted
from ketuvim.snp_commands import IdBlock, KvmSnpCommands, PageType
from ketuvim.vm import VirtualMachine

ADDRESS, SIZE = 0x1000, 0x2000
MEASUREMENT = bytes(range(48))
START = Start(
    policy=Policy(flags=PolicyFlags.NODBG | PolicyFlags.ES, api_major=1, api_minor=2),
    certificate=b"c" * 2084,
    session=b"s" * 128,
)


def memory(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


class Kernel(Descriptor):
    """Stands for the machine's descriptor: takes commands as KVM does, follows their pointers, and keeps a record."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.commands: list[tuple[int, tuple[Any, ...]]] = []
        self.pinned: list[tuple[int, int]] = []
        self.refuse = 0
        self.portion = 1 << 30

    def ioctl(self, request: Request, argument: int | bytearray = 0) -> int:
        assert isinstance(argument, bytearray)
        if request.name == "KVM_MEMORY_ENCRYPT_REG_REGION":
            self.pinned.append(s.ENC_REGION.unpack(argument))
            return 0
        assert request.name == "KVM_MEMORY_ENCRYPT_OP"
        number, data, _, device = s.SEV_CMD.unpack(argument)
        assert device == 7
        if self.refuse:
            argument[:] = s.SEV_CMD.pack(number, data, self.refuse, device)
            raise KvmError(request.name, errno.EIO)
        self.commands.append((number, self.seen(number, data)))
        return 0

    def seen(self, number: int, data: int) -> tuple[Any, ...]:
        """The command's structure, with what its pointers lead to."""
        match number:
            case sev_commands.LAUNCH_START:
                _, policy, one, one_size, two, two_size = s.SEV_LAUNCH_START.unpack(
                    memory(data, s.SEV_LAUNCH_START.size)
                )
                ctypes.memmove(data, (33).to_bytes(4, "little"), 4)
                return policy, memory(one, one_size), memory(two, two_size)
            case sev_commands.LAUNCH_UPDATE_DATA:
                return s.SEV_BUFFER.unpack(memory(data, s.SEV_BUFFER.size))
            case sev_commands.LAUNCH_MEASURE:
                address, size = s.SEV_BUFFER.unpack(memory(data, s.SEV_BUFFER.size))
                ctypes.memmove(address, MEASUREMENT, size)
                return (size,)
            case sev_commands.LAUNCH_SECRET:
                one, one_size, target, size, two, two_size = s.SEV_LAUNCH_SECRET.unpack(
                    memory(data, s.SEV_LAUNCH_SECRET.size)
                )
                return memory(one, one_size), target, size, memory(two, two_size)
            case sev_commands.SNP_LAUNCH_START:
                return s.SNP_LAUNCH_START.unpack(memory(data, s.SNP_LAUNCH_START.size))
            case sev_commands.SNP_LAUNCH_UPDATE:
                page, source, left, kind, _ = s.SNP_LAUNCH_UPDATE.unpack(
                    memory(data, s.SNP_LAUNCH_UPDATE.size)
                )
                taken = min(left, self.portion)
                rest = s.SNP_LAUNCH_UPDATE.pack(page + taken // 4096, source + taken, left - taken, kind, 0)
                ctypes.memmove(data, rest, len(rest))
                return page, memory(source, taken), kind
            case sev_commands.SNP_LAUNCH_FINISH:
                one, two, block, key, vcek, host_data, _ = s.SNP_LAUNCH_FINISH.unpack(
                    memory(data, s.SNP_LAUNCH_FINISH.size)
                )
                identity = (memory(one, 96), memory(two, 4096)) if block else None
                return identity, key, vcek, host_data
        return ()


class Device(Descriptor):
    """Stands for ``/dev/sev``, of which only the number matters."""

    def fileno(self) -> int:
        return 7


@dataclass
class Region:
    address: int
    size: int
    mapping: Mapping


class Machine:
    """A machine of a kind, with one region, on the recording kernel."""

    def __init__(self, kind: VmType) -> None:
        self.kind = kind
        self.descriptor = Kernel()
        self.regions = (Region(ADDRESS, SIZE, Mapping(SIZE)),)

    def region_at(self, address: int, size: int = 1) -> Region:
        region = self.regions[0]
        if not region.address <= address <= address + size <= region.address + region.size:
            raise Misuse(f"no region holds {size} bytes at {address:#x}")
        return region

    @property
    def host(self) -> int:
        return self.regions[0].mapping.pinned.address


def launch(machine: Machine, *, es: bool = False) -> Launch:
    vm = cast(VirtualMachine, machine)
    return Launch.new(vm, KvmCommands(vm, device=Device(-1)), es=es)


@pytest.mark.parametrize(
    ("kind", "es", "command"),
    [
        (VmType.DEFAULT, False, sev_commands.INIT),
        (VmType.DEFAULT, True, sev_commands.ES_INIT),
        (VmType.SEV, False, sev_commands.INIT2),
        (VmType.SEV_ES, True, sev_commands.INIT2),
    ],
)
def test_a_machine_is_initialised_as_its_kind_wants(kind: VmType, es: bool, command: int) -> None:
    machine = Machine(kind)
    launch(machine, es=es)
    assert [number for number, _ in machine.descriptor.commands] == [command]
    assert machine.descriptor.pinned == [(machine.host, SIZE)]


@pytest.mark.parametrize(("kind", "es"), [(VmType.SEV, True), (VmType.SEV_ES, False), (VmType.SNP, False)])
def test_a_machine_of_another_kind_is_refused(kind: VmType, es: bool) -> None:
    with pytest.raises(Misuse, match=f"of the kind {kind.name}"):
        launch(Machine(kind), es=es)


def test_a_whole_launch_in_the_kernels_structures() -> None:
    machine = Machine(VmType.SEV_ES)
    started = launch(machine, es=True).start(START)
    assert started.handle == 33
    started.update_data(ADDRESS + 0x1000, 0x1000)
    started.update_vmsa()
    measured = started.measure()
    assert measured.measurement.measure + measured.measurement.nonce == MEASUREMENT
    measured.inject(Secret(header=b"h" * 52, payload=b"p" * 32), ADDRESS + 64)
    launched = measured.finish()
    assert launched.handle == 33
    assert cast(object, launched.vm) is machine
    assert machine.descriptor.commands[1:] == [
        (sev_commands.LAUNCH_START, (0x02010005, START.certificate, START.session)),
        (sev_commands.LAUNCH_UPDATE_DATA, (machine.host + 0x1000, 0x1000)),
        (sev_commands.LAUNCH_UPDATE_VMSA, ()),
        (sev_commands.LAUNCH_MEASURE, (48,)),
        (sev_commands.LAUNCH_SECRET, (b"h" * 52, machine.host + 64, 32, b"p" * 32)),
        (sev_commands.LAUNCH_FINISH, ()),
    ]


def test_the_firmwares_status_is_in_the_error() -> None:
    machine = Machine(VmType.SEV)
    started = launch(machine).start(START)
    machine.descriptor.refuse = SevStatus.POLICY_FAILURE
    with pytest.raises(SevRefused, match="POLICY_FAILURE") as caught:
        started.measure()
    assert caught.value.status is SevStatus.POLICY_FAILURE
    machine.descriptor.refuse = 0xFFF
    with pytest.raises(Misuse, match="past the state"):
        started.measure()
    assert SevStatus.of(0xFFF) is SevStatus.UNKNOWN


def test_a_step_out_of_order_is_no_method_of_the_state() -> None:
    assert not {"update_data", "measure", "inject", "finish"} & set(dir(Launch))
    assert not {"start", "inject", "finish"} & set(dir(Started))
    assert not {"start", "update_data", "measure"} & set(dir(Measured))
    assert not {"start", "measure", "inject", "finish"} & set(dir(Launched))
    assert not {"update", "finish"} & set(dir(SnpLaunch))
    assert not {"start"} & set(dir(SnpStarted))


def test_a_state_is_left_once() -> None:
    first = launch(Machine(VmType.SEV))
    first.start(START)
    with pytest.raises(Misuse, match="past the state Launch"):
        first.start(START)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"certificate": b"", "session": bytes(128)}, "certificate has 2084 bytes, not 0"),
        ({"certificate": bytes(2084), "session": bytes(127)}, "session has 128 bytes, not 127"),
        ({"certificate": bytes(2084)}, "together or not at all"),
    ],
)
def test_what_a_launch_starts_with_has_its_size(arguments: dict[str, bytes], message: str) -> None:
    with pytest.raises(Misuse, match=message):
        Start(policy=Policy(), **arguments)


def test_secrets_and_memory_come_in_blocks() -> None:
    with pytest.raises(Misuse, match="header has 52 bytes"):
        Secret(header=bytes(51), payload=bytes(16))
    for payload in (b"", bytes(17)):
        with pytest.raises(Misuse, match="multiple of 16"):
            Secret(header=bytes(52), payload=payload)
    started = launch(Machine(VmType.SEV)).start(START)
    for address, size in ((ADDRESS + 1, 16), (ADDRESS, 17), (ADDRESS, 0)):
        with pytest.raises(Misuse, match="blocks of 16"):
            started.update_data(address, size)
    with pytest.raises(Misuse, match="multiple of 16"):
        started.measure().inject(Secret(header=bytes(52), payload=bytes(16)), ADDRESS + 8)


def snp_launch(machine: Machine) -> SnpLaunch:
    vm = cast(VirtualMachine, machine)
    return SnpLaunch.new(vm, KvmSnpCommands(vm, device=Device(-1)))


def test_a_whole_launch_of_snp_in_the_kernels_structures() -> None:
    machine = Machine(VmType.SNP)
    machine.descriptor.portion = 4096
    started = snp_launch(machine).start(0x30000, gosvw=b"g" * 16)
    started.update(ADDRESS, b"1" * 4096 + b"2" * 4096)
    started.update(0x5000, bytes(4096), PageType.SECRETS)
    identity = IdBlock(block=b"b" * 96, auth=b"a" * 4096, author_key=True)
    started.finish(host_data=b"d" * 32, identity=identity)
    assert machine.descriptor.commands == [
        (sev_commands.INIT2, ()),
        (sev_commands.SNP_LAUNCH_START, (0x30000, b"g" * 16, 0)),
        (sev_commands.SNP_LAUNCH_UPDATE, (1, b"1" * 4096, PageType.NORMAL)),
        (sev_commands.SNP_LAUNCH_UPDATE, (2, b"2" * 4096, PageType.NORMAL)),
        (sev_commands.SNP_LAUNCH_UPDATE, (5, bytes(4096), PageType.SECRETS)),
        (sev_commands.SNP_LAUNCH_FINISH, ((b"b" * 96, b"a" * 4096), 1, 0, b"d" * 32)),
    ]
    with pytest.raises(Misuse, match="past the state SnpStarted"):
        started.finish()


def test_what_snp_refuses() -> None:
    with pytest.raises(Misuse, match="of the kind SEV"):
        snp_launch(Machine(VmType.SEV))
    begun = snp_launch(Machine(VmType.SNP))
    with pytest.raises(Misuse, match="bit 17"):
        begun.start(0)
    started = begun.start(snp.POLICY_RESERVED)
    for address, data in ((ADDRESS + 1, bytes(4096)), (ADDRESS, bytes(100)), (ADDRESS, b"")):
        with pytest.raises(Misuse, match="pages of 4096"):
            started.update(address, data)
    with pytest.raises(Misuse, match="host_data has 32 bytes"):
        started.finish(host_data=b"")
    with pytest.raises(Misuse, match="an identity has"):
        IdBlock(block=b"", auth=b"")


def test_kvm_that_takes_nothing_is_no_endless_loop() -> None:
    machine = Machine(VmType.SNP)
    machine.descriptor.portion = 0
    started = snp_launch(machine).start(snp.POLICY_RESERVED)
    with pytest.raises(Misuse, match="took nothing"):
        started.update(ADDRESS, bytes(4096))
