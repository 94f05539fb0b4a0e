"""Guests in every mode on the real ``/dev/kvm``, and every way in which they come back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ketuvim import (
    Bus,
    Capability,
    Console,
    Debug,
    DebugControl,
    EmulationFailed,
    GuestFailed,
    GuestStuck,
    Halt,
    InternalError,
    IoIn,
    IoOut,
    Kvm,
    MemoryFlags,
    Misuse,
    MmioRead,
    MmioWrite,
    Mode,
    ReadMsr,
    Registers,
    Shutdown,
    SyncFields,
    TripleFault,
    Unclaimed,
    Unknown,
    UnknownExit,
    WriteMsr,
    boot,
    measure,
)
from ketuvim.interpreter import Interpreter

PORT = 0x3F8
STUCK_S = 20.0
"""Longer than any guest here takes on a busy machine."""

ADD = {
    Mode.REAL: bytes.fromhex("00d8 baf803 ee f4"),  # add al, bl; mov dx, 0x3f8; out dx, al; hlt
    Mode.PROTECTED: bytes.fromhex("00d8 66baf803 ee f4"),
    Mode.LONG: bytes.fromhex("00d8 66baf803 ee f4"),
}
OUTSIDE = 0x200000
READ_OUTSIDE = bytes.fromhex("8a042500002000 f4")  # mov al, [0x200000]; hlt, in long mode
WRITE_OUTSIDE = bytes.fromhex("c604250000200007 f4")  # mov byte [0x200000], 7; hlt, in long mode
UNDEFINED = bytes.fromhex("0f0b")  # ud2
FOR_EVER = bytes.fromhex("ebfe")  # jmp $


@pytest.mark.parametrize("mode", Mode)
def test_each_mode_adds_and_prints(kvm: Kvm, mode: Mode) -> None:
    with boot(kvm, ADD[mode], mode=mode, registers=Registers(rax=2, rbx=2)) as machine:
        assert machine.vcpu.run() == IoOut(PORT, 1, b"\x04")
        assert machine.vcpu.run() == Halt()
        assert machine.vcpu.registers.rax == 4


def test_long_mode_has_64_bits(kvm: Kvm) -> None:
    code = bytes.fromhex("48b8efcdab8967452301 4801c0 f4")  # mov rax, 0x123456789abcdef; add rax, rax; hlt
    with boot(kvm, code, mode=Mode.LONG) as machine:
        assert machine.vcpu.run() == Halt()
        assert machine.vcpu.registers.rax == 2 * 0x0123456789ABCDEF


def test_every_exit_can_be_matched(kvm: Kvm) -> None:
    with boot(kvm, ADD[Mode.REAL], registers=Registers(rax=1, rbx=2)) as machine:
        match machine.vcpu.enter():
            case IoOut(port=port, data=data):
                assert (port, data) == (PORT, b"\x03")
            case other:
                pytest.fail(str(other))


def test_a_read_of_a_port_is_answered(kvm: Kvm) -> None:
    with boot(kvm, bytes.fromhex("baf803 ec f4")) as machine:  # in al, dx
        assert machine.vcpu.run() == IoIn(PORT, 1, 1)
        machine.vcpu.answer(b"\x2a")
        assert machine.vcpu.run() == Halt()
        assert machine.vcpu.registers.rax & 0xFF == 0x2A


def test_a_read_that_nobody_answers_gives_ones(kvm: Kvm) -> None:
    with boot(kvm, bytes.fromhex("baf803 b055 ee ec f4")) as machine:  # what was written is not what is read
        assert isinstance(machine.vcpu.run(), IoOut)
        assert isinstance(machine.vcpu.run(), IoIn)
        assert machine.vcpu.run() == Halt()
        assert machine.vcpu.registers.rax & 0xFF == 0xFF


def test_an_answer_has_the_right_length_and_time(kvm: Kvm) -> None:
    with boot(kvm, bytes.fromhex("baf803 ec f4")) as machine:
        with pytest.raises(Misuse, match="does not wait for data"):
            machine.vcpu.answer(b"\0")
        machine.vcpu.run()
        with pytest.raises(Misuse, match="reads 1 bytes, not 2"):
            machine.vcpu.answer(b"\0\0")


def test_strings_of_input_and_output(kvm: Kvm) -> None:
    # mov dx, 0x3f8; mov si, 0x2000; mov cx, 3; rep outsb; mov di, 0x3000; mov cx, 3; rep insb; hlt
    code = bytes.fromhex("baf803 be0020 b90300 f36e bf0030 b90300 f36c f4")

    class Letters(Console):
        def read(self, offset: int, size: int) -> bytes:
            return b"z" * size

    bus, device = Bus(), Letters()
    bus.attach_ports(range(PORT, PORT + 1), device)
    with boot(kvm, code) as machine:
        machine.vm.write(0x2000, b"abc")
        assert bus.serve(machine.vcpu, timeout_s=STUCK_S) == Halt()
        assert machine.vm.read(0x3000, 3) == b"zzz"
    assert bytes(device.output) == b"abc"


def test_reads_and_writes_where_no_memory_is(kvm: Kvm) -> None:
    with boot(kvm, WRITE_OUTSIDE, mode=Mode.LONG) as machine:
        assert machine.vcpu.run() == MmioWrite(OUTSIDE, b"\x07")
        assert machine.vcpu.run() == Halt()
    with boot(kvm, READ_OUTSIDE, mode=Mode.LONG) as machine:
        assert machine.vcpu.run() == MmioRead(OUTSIDE, 1)
        machine.vcpu.answer(b"\x09")
        assert machine.vcpu.run() == Halt()
        assert machine.vcpu.registers.rax & 0xFF == 9


@pytest.mark.parametrize("code", [READ_OUTSIDE, WRITE_OUTSIDE], ids=["read", "write"])
def test_mmio_to_nowhere_is_an_error_with_registers(kvm: Kvm, code: bytes) -> None:
    with boot(kvm, code, mode=Mode.LONG, registers=Registers(rcx=77)) as machine:
        with pytest.raises(Unclaimed, match="address 0x200000") as caught:
            Bus().serve(machine.vcpu, timeout_s=STUCK_S)
        assert caught.value.registers.rcx == 77


def test_a_port_of_nobody_is_an_error_with_registers(kvm: Kvm) -> None:
    with boot(kvm, ADD[Mode.REAL]) as machine, pytest.raises(Unclaimed, match="port 0x3f8") as caught:
        Bus().serve(machine.vcpu, timeout_s=STUCK_S)
    assert caught.value.registers.rdx == PORT


def test_a_write_to_read_only_memory_does_not_change_it(kvm: Kvm) -> None:
    with boot(kvm, WRITE_OUTSIDE, mode=Mode.LONG) as machine:
        region = machine.vm.add_region(OUTSIDE, 0x1000, flags=MemoryFlags.READ_ONLY)
        assert machine.vcpu.run() == MmioWrite(OUTSIDE, b"\x07")
        assert region.read(0, 1) == b"\0"


def test_a_triple_fault_is_an_error_with_registers(kvm: Kvm) -> None:
    with boot(kvm, UNDEFINED, mode=Mode.LONG, registers=Registers(rbx=5)) as machine:
        with pytest.raises(TripleFault) as caught:
            machine.vcpu.run()
        assert caught.value.exit == Shutdown()
        assert (caught.value.registers.rbx, caught.value.registers.rip) == (5, 0x1000)
        assert caught.value.special_registers.cs.l == 1


@pytest.mark.parametrize("mode", Mode)
def test_bad_code_is_an_error_with_registers(kvm: Kvm, mode: Mode) -> None:
    code = bytes.fromhex("0fff") * 8  # ud0: no processor has an instruction here
    with boot(kvm, code, mode=mode, registers=Registers(rbx=5)) as machine:
        with pytest.raises(GuestFailed) as caught:  # real mode may find a handler at 0, and run on for ever
            Bus().serve(machine.vcpu, timeout_s=2)
        assert caught.value.registers.rbx == 5


@pytest.mark.parametrize("seed", range(8))
def test_noise_never_hangs_or_crashes(kvm: Kvm, seed: int) -> None:
    noise = bytes((seed * 31 + at * at * 7 + at // 3) & 0xFF for at in range(256))
    for mode in Mode:
        with boot(kvm, noise, mode=mode) as machine:
            try:
                Bus().serve(machine.vcpu, timeout_s=0.5)
            except GuestFailed as error:
                assert error.registers == machine.vcpu.registers  # noqa: PT017 (there need not be an error)


def test_a_jump_to_nowhere_is_an_error(kvm: Kvm) -> None:
    code = bytes.fromhex("b800002000 ffe0")  # mov eax, 0x200000; jmp rax
    with boot(kvm, code, mode=Mode.LONG) as machine, pytest.raises(GuestFailed) as caught:
        Bus().serve(machine.vcpu, timeout_s=STUCK_S)
    assert caught.value.registers.rip == OUTSIDE


def test_a_guest_that_never_ends_is_an_error_with_registers(kvm: Kvm) -> None:
    with boot(kvm, FOR_EVER, registers=Registers(rbx=5)) as machine:
        with pytest.raises(GuestStuck, match=r"within 0.2 s") as caught:
            Bus().serve(machine.vcpu, timeout_s=0.2)
        assert caught.value.registers.rbx == 5
        machine.vcpu.registers = replace(caught.value.registers, rip=0x1002)
        machine.vm.write(0x1002, b"\xf4")
        assert machine.vcpu.run() == Halt()  # no stop is left over


def test_an_unknown_exit_is_an_error_with_registers(kvm: Kvm) -> None:
    with boot(kvm, b"\xf4", registers=Registers(rbx=5)) as machine:
        error = machine.vcpu.failure(Unknown(4711, bytes(256)))
        assert isinstance(error, UnknownExit)
        assert "4711" in str(error)
        assert error.registers.rbx == 5


def test_an_internal_error_is_an_error_with_registers(kvm: Kvm) -> None:
    with boot(kvm, b"\xf4", registers=Registers(rbx=5)) as machine:
        error = machine.vcpu.failure(InternalError(1, (0, 1)))
        assert isinstance(error, EmulationFailed)
        assert error.registers.rbx == 5


def test_single_steps(kvm: Kvm) -> None:
    with boot(kvm, bytes.fromhex("90 90 f4")) as machine:
        machine.vcpu.debug(DebugControl.ENABLE | DebugControl.SINGLE_STEP)
        steps = [machine.vcpu.run(), machine.vcpu.run()]
        assert [step.pc for step in steps if isinstance(step, Debug)] == [0x1001, 0x1002]
        machine.vcpu.debug(DebugControl(0))
        assert machine.vcpu.run() == Halt()


def test_registers_in_the_shared_page_are_those_of_the_kernel(kvm: Kvm) -> None:
    with boot(kvm, ADD[Mode.LONG], mode=Mode.LONG, registers=Registers(rax=1, rbx=6)) as machine:
        machine.vcpu.synchronise(SyncFields.REGISTERS | SyncFields.SPECIAL_REGISTERS | SyncFields.EVENTS)
        machine.vcpu.run()
        shared = machine.vcpu.sync_registers
        assert shared.registers.rax == 7
        assert shared.registers == machine.vcpu.registers
        assert shared.special_registers == machine.vcpu.special_registers


def test_model_specific_registers_answered_by_the_host(kvm: Kvm) -> None:
    code = bytes.fromhex("b9efbe0000 0f32 0f30 f4")  # mov ecx, 0xbeef; rdmsr; wrmsr; hlt
    with boot(kvm, code, mode=Mode.LONG) as machine:
        machine.vm.enable(Capability.X86_USER_SPACE_MSR, 2)
        found = machine.vcpu.run()
        assert isinstance(found, ReadMsr)
        assert found.index == 0xBEEF
        machine.vcpu.answer_msr(0x1234567890)
        found = machine.vcpu.run()
        assert isinstance(found, WriteMsr)
        assert (found.index, found.data) == (0xBEEF, 0x1234567890)
        machine.vcpu.answer_msr(0)
        assert machine.vcpu.run() == Halt()


def test_complete_finishes_the_instruction_and_no_more(kvm: Kvm) -> None:
    with boot(kvm, bytes.fromhex("baf803 ec ebfe")) as machine:  # in al, dx; jmp $
        assert isinstance(machine.vcpu.run(), IoIn)
        machine.vcpu.answer(b"\x2a")
        machine.vcpu.complete()
        registers = machine.vcpu.registers
        assert (registers.rax & 0xFF, registers.rip) == (0x2A, 0x1004)


def test_cpuid_says_what_it_was_told(kvm: Kvm) -> None:
    with boot(kvm, bytes.fromhex("31c0 0fa2 f4"), mode=Mode.LONG) as machine:  # xor eax, eax; cpuid; hlt
        entries = [
            replace(entry, ebx=0x61626364) if entry.function == 0 else entry
            for entry in kvm.supported_cpuid()
        ]
        machine.vcpu.cpuid = entries
        assert machine.vcpu.run() == Halt()
        assert machine.vcpu.registers.rbx == 0x61626364
        assert len(machine.vcpu.cpuid) == len(entries)


def test_the_answer_about_acceleration_is_measured(kvm: Kvm) -> None:
    found = measure(kvm)
    assert 0.1 < found.ns_per_round < 1e6
    assert found.accelerated == (found.ns_per_round < 50)


def test_the_interpreter_does_what_kvm_does(kvm: Kvm) -> None:
    code = bytes.fromhex("b0f1 b3a2 00d8 0407 baf803 ee f4")
    with boot(kvm, code) as machine:
        events = [machine.vcpu.run(), machine.vcpu.run()]
        registers = machine.vcpu.registers
        start = replace(Registers(), rip=0x1000, rsp=registers.rsp)
    tiny = Interpreter(bytes(0x1000) + code, start)
    assert [tiny.run(), tiny.run()] == events
    assert tiny.registers == registers
