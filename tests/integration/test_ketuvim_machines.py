"""Machines on the real ``/dev/kvm``: memory that cannot dangle, threads that can be stopped, events, and the end."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ketuvim import (
    Capability,
    CoalescedWrite,
    GuestMemfdFlags,
    Halt,
    Interrupted,
    IoOut,
    IrqchipRoute,
    Kvm,
    KvmError,
    KvmUnavailable,
    MemoryFlags,
    Misuse,
    MmioRead,
    Mode,
    MsiRoute,
    Registers,
    VcpuThread,
    VirtualCpu,
    VirtualMachine,
    VmType,
    boot,
    load,
)
from ketuvim.memory import PAGE

FOR_EVER = bytes.fromhex("ebfe")
HALT = bytes.fromhex("f4")
OUTSIDE = 0x200000
READ_OUTSIDE = bytes.fromhex("8a042500002000 ebf7")  # again: mov al, [0x200000]; jmp again, in long mode
SOON_S = 20.0
"""Generous for a machine that is busy with other tests."""


def running(vcpu: VirtualCpu) -> None:
    """Wait until a thread is in the guest."""
    deadline = time.monotonic() + SOON_S
    while not vcpu.running:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# the system


def test_what_kvm_says_of_itself(kvm: Kvm) -> None:
    found = kvm.capabilities()
    assert found[Capability.USER_MEMORY] == 1
    assert kvm.check(Capability.IMMEDIATE_EXIT) == 1
    assert VmType.DEFAULT in kvm.vm_types()
    assert any(entry.function == 0 for entry in kvm.supported_cpuid())
    assert 0x10 in kvm.msrs()
    assert kvm.vcpu_mmap_size >= 2 * PAGE


def test_a_device_that_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(KvmUnavailable, match="cannot be opened: No such file"):
        Kvm.open(str(tmp_path / "kvm"))
    with pytest.raises(KvmUnavailable, match="is not KVM"):
        Kvm.open("/dev/null")


def test_a_machine_of_a_kind_that_is_not_there(kvm: Kvm) -> None:
    for kind in set(VmType) - kvm.vm_types():
        with pytest.raises(KvmUnavailable, match=kind.name):
            kvm.create_vm(kind)


# memory


def test_freed_memory_is_out_of_the_guests_reach(kvm: Kvm) -> None:
    with boot(kvm, READ_OUTSIDE, mode=Mode.LONG) as machine:
        region = machine.vm.add_region(OUTSIDE, PAGE)
        with VcpuThread(machine.vcpu, VirtualCpu.run) as thread:
            running(machine.vcpu)
            region.close()  # under the running guest
            assert thread.result(SOON_S) == MmioRead(OUTSIDE, 1)
        with pytest.raises(Misuse, match="freed"):
            region.read(0, 1)


def test_a_view_keeps_memory_that_the_guest_lost(kvm: Kvm) -> None:
    with boot(kvm, HALT) as machine:
        region = machine.vm.add_region(OUTSIDE, PAGE)
        view = region.view()[16:32]
        region.close()
        view[0] = 7  # would be a segmentation fault if it were unmapped
        assert view[0] == 7
        with pytest.raises(Misuse, match="freed"):
            region.view()


def test_views_outlive_the_machine(kvm: Kvm) -> None:
    machine = boot(kvm, HALT)
    view = machine.memory.view()
    machine.vm.close()
    del machine
    gc.collect()
    assert bytes(view[0x1000:0x1001]) == HALT


def test_a_place_that_was_freed_can_be_filled_again(kvm: Kvm) -> None:
    with boot(kvm, READ_OUTSIDE.replace(b"\xeb\xf7", b"\xf4"), mode=Mode.LONG) as machine:
        first = machine.vm.add_region(OUTSIDE, PAGE)
        first.write(0, b"\x01")
        first.close()
        first.close()
        second = machine.vm.add_region(OUTSIDE, PAGE)
        second.write(0, b"\x02")
        assert second.slot == first.slot
        assert machine.vcpu.run() == Halt()
        assert machine.vcpu.registers.rax & 0xFF == 2


def test_regions_do_not_overlap(kvm: Kvm) -> None:
    with boot(kvm, HALT) as machine:
        before = machine.vm.regions
        with pytest.raises(KvmError, match="KVM_SET_USER_MEMORY_REGION"):
            machine.vm.add_region(0x1000, PAGE)
        assert machine.vm.regions == before


@pytest.mark.parametrize(("address", "size"), [(1, PAGE), (0, 1), (0, 0), (-PAGE, PAGE)])
def test_regions_are_whole_pages(kvm: Kvm, address: int, size: int) -> None:
    with kvm.create_vm() as vm, pytest.raises(Misuse, match="whole pages"):
        vm.add_region(address, size)


def test_bytes_outside_memory_are_refused(kvm: Kvm) -> None:
    with boot(kvm, HALT) as machine:
        for offset, size in ((-1, 1), (machine.memory.size, 1), (0, machine.memory.size + 1)):
            with pytest.raises(Misuse, match="outside memory"):
                machine.memory.read(offset, size)
        with pytest.raises(Misuse, match="no region holds"):
            machine.vm.write(OUTSIDE, b"x")


def test_dirty_pages_are_logged(kvm: Kvm) -> None:
    code = bytes.fromhex("c604250030000007 f4")  # mov byte [0x3000], 7; hlt, in long mode
    with boot(kvm, code, mode=Mode.LONG) as machine:
        machine.memory.set_flags(MemoryFlags.LOG_DIRTY_PAGES)
        assert machine.memory.flags is MemoryFlags.LOG_DIRTY_PAGES
        assert machine.vcpu.run() == Halt()
        assert 3 in machine.memory.dirty_pages()
        assert machine.memory.dirty_pages() == []


def test_memory_of_a_file(kvm: Kvm) -> None:
    file = os.memfd_create("guest", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(file, 2 * PAGE)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        with kvm.create_vm() as vm:
            vm.add_region(0, 2 * PAGE, file=file)
            vcpu = vm.create_vcpu()
            load(vcpu, b"\xb0\x09\xf4", mode=Mode.REAL, address=0x1000)
            assert vcpu.run() == Halt()
            with pytest.raises(Misuse, match="fewer than"):
                vm.add_region(OUTSIDE, 4 * PAGE, file=file)
        assert os.pread(file, 3, PAGE) == b"\xb0\x09\xf4"
    finally:
        os.close(file)


def test_a_file_that_could_shrink_under_its_mapping_is_refused(kvm: Kvm, tmp_path: Path) -> None:
    """Memory whose file ends before it is a SIGBUS: the end of the interpreter."""
    plain = tmp_path / "memory"
    plain.write_bytes(bytes(PAGE))
    unsealed = os.memfd_create("guest", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, PAGE)
    files = [unsealed, os.open(plain, os.O_RDWR)]
    try:
        with kvm.create_vm() as vm:
            for file in files:
                with pytest.raises(Misuse, match="sealed against shrinking"):
                    vm.add_region(0, PAGE, file=file)
    finally:
        for file in files:
            os.close(file)


def test_guest_memfd_where_there_is_one(kvm: Kvm) -> None:
    with kvm.create_vm() as vm:
        wanted = GuestMemfdFlags.MMAP | GuestMemfdFlags.INIT_SHARED
        if not vm.check(Capability.GUEST_MEMFD):
            with pytest.raises(KvmUnavailable, match="no guest_memfd"):
                vm.create_guest_memfd(PAGE)
            return
        if vm.check(Capability.GUEST_MEMFD_FLAGS) & wanted != wanted:
            assert vm.create_guest_memfd(PAGE).size == PAGE
            return
        memory = vm.create_guest_memfd(0x10000, wanted)
        vm.add_region(0, 0x10000, guest_memfd=memory)
        vcpu = vm.create_vcpu()
        load(vcpu, bytes.fromhex("b007 baf803 ee f4"), mode=Mode.REAL)
        assert vcpu.run() == IoOut(0x3F8, 1, b"\x07")


# threads


def test_a_thread_is_stopped_from_outside(kvm: Kvm) -> None:
    with boot(kvm, FOR_EVER) as machine, VcpuThread(machine.vcpu, VirtualCpu.run) as thread:
        running(machine.vcpu)
        machine.vcpu.stop()
        assert thread.result(SOON_S) == Interrupted()


def test_stopping_again_and_again_loses_no_stop(kvm: Kvm) -> None:
    with boot(kvm, FOR_EVER) as machine:
        for _ in range(300):
            with VcpuThread(machine.vcpu, VirtualCpu.run) as thread:
                machine.vcpu.stop()  # before, at or after the moment it enters
                assert thread.result(SOON_S) == Interrupted()


def test_a_stop_before_the_run_counts(kvm: Kvm) -> None:
    with boot(kvm, FOR_EVER) as machine:
        machine.vcpu.stop()
        assert machine.vcpu.run() == Interrupted()


def test_a_stop_can_be_withdrawn(kvm: Kvm) -> None:
    with boot(kvm, HALT) as machine:
        machine.vcpu.stop()
        machine.vcpu.withdraw_stop()
        assert machine.vcpu.run() == Halt()


def test_a_halted_processor_is_stopped_too(kvm: Kvm) -> None:
    with kvm.create_vm() as vm:
        vm.create_irqchip()
        vm.add_region(0, 0x10000)
        vcpu = vm.create_vcpu()
        load(vcpu, HALT, mode=Mode.REAL)
        with VcpuThread(vcpu, VirtualCpu.run) as thread:
            running(vcpu)
            vcpu.stop()
            assert thread.result(SOON_S) == Interrupted()


def test_several_processors_run_at_once(kvm: Kvm) -> None:
    with kvm.create_vm() as vm:
        vm.add_region(0, 0x10000)
        vcpus = [vm.create_vcpu(number) for number in range(4)]
        for vcpu in vcpus:
            load(vcpu, FOR_EVER, mode=Mode.REAL)
        threads = [VcpuThread(vcpu, VirtualCpu.run) for vcpu in vcpus]
        for vcpu in vcpus:
            running(vcpu)
        for thread in threads:
            thread.stop()
        assert [thread.result() for thread in threads] == [Interrupted()] * 4


def test_nothing_waits_for_a_processor_that_runs(kvm: Kvm) -> None:
    with boot(kvm, FOR_EVER) as machine, VcpuThread(machine.vcpu, VirtualCpu.run):
        running(machine.vcpu)
        for action in (lambda: machine.vcpu.registers, lambda: machine.vcpu.xsave, machine.vcpu.run):
            with pytest.raises(Misuse, match="another thread runs"):
                action()


def test_closing_stops_the_guest_first(kvm: Kvm) -> None:
    machine = boot(kvm, FOR_EVER)
    thread = VcpuThread(machine.vcpu, VirtualCpu.run)
    running(machine.vcpu)
    machine.vm.close()
    assert thread.result(SOON_S) == Interrupted()
    with pytest.raises(Misuse, match="closed"):
        machine.vcpu.run()
    machine.vm.close()


def test_the_signal_stays_out_of_python(kvm: Kvm) -> None:
    """A run in the main thread is stopped without a handler, and an interrupted process would die here."""
    assert threading.current_thread() is threading.main_thread()
    with boot(kvm, FOR_EVER) as machine:
        timer = threading.Timer(0.05, machine.vcpu.stop)
        timer.start()
        assert machine.vcpu.run() == Interrupted()
        timer.join()


# interrupts and events


def interrupting(kvm: Kvm) -> tuple[VirtualMachine, VirtualCpu]:
    """A guest that programs the interrupt controller, waits, and writes 7 to a port when interrupt line 4 comes."""
    handler = bytes.fromhex("b007 baf803 ee f4")
    # ICW1..4 of the first PIC: vectors from 0x20; all lines open; say 0 to the port; sti; hlt; jmp to the hlt
    setup = bytes.fromhex("b011 e620 b020 e621 b004 e621 b001 e621 b000 e621 baf803 ee fb f4 ebfd")
    vm = kvm.create_vm()
    vm.create_irqchip()
    vm.add_region(0, 0x10000)
    vm.write(4 * 0x24, (0x2000).to_bytes(2, "little") + bytes(2))
    vm.write(0x2000, handler)
    vcpu = vm.create_vcpu()
    load(vcpu, setup, mode=Mode.REAL, registers=Registers(rsp=0x8000))
    assert vcpu.run() == IoOut(0x3F8, 1, b"\0")
    return vm, vcpu


def test_an_interrupt_line_wakes_the_guest(kvm: Kvm) -> None:
    vm, vcpu = interrupting(kvm)
    with vm, VcpuThread(vcpu, VirtualCpu.run) as thread:
        vm.irq_line(4, True)
        assert thread.result(SOON_S) == IoOut(0x3F8, 1, b"\x07")


def test_an_eventfd_wakes_the_guest(kvm: Kvm) -> None:
    vm, vcpu = interrupting(kvm)
    event = os.eventfd(0)
    try:
        with vm, vm.irqfd(event, 4), VcpuThread(vcpu, VirtualCpu.run) as thread:
            os.eventfd_write(event, 1)
            assert thread.result(SOON_S) == IoOut(0x3F8, 1, b"\x07")
    finally:
        os.close(event)


def test_routes_of_interrupts(kvm: Kvm) -> None:
    vm, vcpu = interrupting(kvm)
    with vm, VcpuThread(vcpu, VirtualCpu.run) as thread:
        vm.route([IrqchipRoute(gsi=9, irqchip=0, pin=4), MsiRoute(gsi=24, address=0xFEE00000, data=0x24)])
        vm.irq_line(9, True)
        assert thread.result(SOON_S) == IoOut(0x3F8, 1, b"\x07")


def test_a_write_signals_an_eventfd_instead_of_an_exit(kvm: Kvm) -> None:
    code = bytes.fromhex("baf803 b007 ee b008 ee f4")
    event = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        with boot(kvm, code) as machine, machine.vm.ioeventfd(event, 0x3F8, 1, match=7, port=True):
            assert machine.vcpu.run() == IoOut(0x3F8, 1, b"\x08")
            assert select.select([event], [], [], 0)[0]
            assert os.eventfd_read(event) == 1
    finally:
        os.close(event)


def test_an_ioeventfd_that_was_closed_is_an_exit_again(kvm: Kvm) -> None:
    event = os.eventfd(0)
    try:
        with boot(kvm, bytes.fromhex("baf803 b007 ee f4")) as machine:
            machine.vm.ioeventfd(event, 0x3F8, 1, port=True).close()
            assert machine.vcpu.run() == IoOut(0x3F8, 1, b"\x07")
    finally:
        os.close(event)


def test_writes_are_collected(kvm: Kvm) -> None:
    code = bytes.fromhex("b93c000000 c604250000200007 ffc9 75f4 f4")  # 60 times mov byte [0x200000], 7
    with boot(kvm, code, mode=Mode.LONG) as machine:
        machine.vm.coalesce(OUTSIDE, PAGE)
        assert machine.vcpu.run() == Halt()
        assert machine.vcpu.coalesced() == [CoalescedWrite(OUTSIDE, b"\x07", False)] * 60
        assert machine.vcpu.coalesced() == []
        machine.vm.uncoalesce(OUTSIDE, PAGE)


# the end


def test_state_that_was_read_can_be_written(kvm: Kvm) -> None:
    with boot(kvm, HALT, mode=Mode.LONG) as machine:
        vcpu = machine.vcpu
        for name in (
            "registers", "special_registers", "special_registers2", "floating_point", "xsave", "xcrs", "events",
            "debug_registers",
        ):  # fmt: skip
            value = getattr(vcpu, name)
            setattr(vcpu, name, value)
            assert getattr(vcpu, name) == value, name
        vcpu.write_msrs({0xC0000081: 0x1234})
        assert vcpu.read_msrs([0xC0000081]) == {0xC0000081: 0x1234}
        assert vcpu.translate(0x1234).physical_address == 0x1234


def test_machines_that_are_dropped_are_freed(kvm: Kvm) -> None:
    gc.collect()
    before = descriptors()
    for _ in range(50):
        boot(kvm, HALT).vcpu.run()
    assert descriptors() == before


def test_a_question_never_reaches_another_file(kvm: Kvm) -> None:
    """A machine that is closed while a thread asks it: the thread hears that it is closed, and nothing else."""

    def ask(vm: VirtualMachine, asked: threading.Event) -> None:
        while vm.clock_ns >= 0:
            asked.set()

    for _ in range(50):
        vm, asked = kvm.create_vm(), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask, vm, asked)
            assert asked.wait(SOON_S)
            vm.close()
            other = os.open("/dev/null", os.O_RDONLY)  # gets the number that is free now
            with pytest.raises(Misuse, match="closed"):
                asking.result(SOON_S)
            os.close(other)


def test_a_processor_keeps_its_machine(kvm: Kvm) -> None:
    vcpu = boot(kvm, HALT).vcpu
    gc.collect()
    assert vcpu.run() == Halt()


def test_an_interpreter_ends_while_a_guest_runs() -> None:
    """A guest that nobody stopped is stopped at exit, before its memory goes."""
    program = """
import threading, time
from ketuvim import Kvm, boot
machine = boot(Kvm.open(), bytes.fromhex("ebfe"))
threading.Thread(target=machine.vcpu.run, daemon=True).start()
while not machine.vcpu.running:
    time.sleep(0.001)
print("over")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")


def test_a_thread_with_the_number_of_a_former_one_is_stopped_too() -> None:
    """In a process of its own: what is blocked in the main thread, later threads inherit."""
    program = """
import threading
from ketuvim import Interrupted, Kvm, VcpuThread, VirtualCpu, boot
machine = boot(Kvm.open(), bytes.fromhex("ebfe"))
numbers = set()
def work(vcpu):
    numbers.add(threading.get_ident())
    return vcpu.run()
for _ in range(300):
    thread = VcpuThread(machine.vcpu, work)
    machine.vcpu.stop()
    assert thread.result(20) == Interrupted()
    thread.stop()
print("reused" if len(numbers) < 300 else "never reused")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "reused\n", "")


def test_a_signal_that_is_blocked_and_waits_does_not_hold_up_the_guest(kvm: Kvm) -> None:
    with boot(kvm, bytes.fromhex("90 f4 90 f4")) as machine:
        assert machine.vcpu.run() == Halt()
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1,))
        try:
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            assert machine.vcpu.run() == Halt()
            assert signal.sigtimedwait((signal.SIGUSR1,), 0) is not None
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1,))


def test_a_forked_child_leaves_its_parents_guests_alone() -> None:
    program = """
import os, threading, time
from ketuvim import Interrupted, Kvm, boot, VcpuThread, VirtualCpu
machine = boot(Kvm.open(), bytes.fromhex("ebfe"))
thread = VcpuThread(machine.vcpu, VirtualCpu.run)
while not machine.vcpu.running:
    time.sleep(0.001)
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert machine.vcpu.running
    thread.stop()
    assert thread.result() == Interrupted()
    print("parent")
else:
    assert machine.vcpu.closed and machine.vm.closed
    machine.vm.close()
    print("child")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "child\nparent\n", "")


def test_a_handler_of_a_signal_may_stop_the_guest(kvm: Kvm) -> None:
    with boot(kvm, FOR_EVER) as machine:
        before = signal.signal(signal.SIGALRM, lambda *_: machine.vcpu.stop())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert machine.vcpu.run() == Interrupted()
        finally:
            signal.signal(signal.SIGALRM, before)


def test_an_exception_of_a_handler_comes_out_of_the_run(kvm: Kvm) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with boot(kvm, FOR_EVER) as machine:
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                machine.vcpu.run()
        finally:
            signal.signal(signal.SIGALRM, before)
        assert not machine.vcpu.running
        assert machine.vcpu.registers.rip == 0x1000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_machines_leave_nothing_behind(kvm: Kvm) -> None:
    def cycle(count: int) -> None:
        for _ in range(count):
            with boot(kvm, HALT) as machine:
                assert machine.vcpu.run() == Halt()

    cycle(500)
    gc.collect()
    before, maps = descriptors(), len(Path("/proc/self/maps").read_text().splitlines())
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cycle(10_000)
    gc.collect()
    assert descriptors() == before
    assert len(Path("/proc/self/maps").read_text().splitlines()) <= maps + 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 4096  # KiB
