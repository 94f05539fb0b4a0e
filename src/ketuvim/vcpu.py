"""A virtual processor: run it from one thread at a time, stop it from any other.

Rules of this file:

- The kernel serialises requests to a processor, and a request that waits may hold up the whole interpreter. So a
  request while another thread runs the guest is refused here, never sent.
- ``stop`` interrupts the thread by a signal that is blocked in it except inside ``KVM_RUN``
  (``KVM_SET_SIGNAL_MASK``): no handler is needed, none is installed, and the signal never reaches Python.
- The signal is sent under the lock, while the running thread cannot leave ``enter``: it never goes to a dead thread.
- Nothing refers to the shared page but this object, and only under the lock or from the thread that runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import signal
import threading
from errno import EAGAIN, EFAULT, EINTR
from typing import TYPE_CHECKING, Final, Self

from ketuvim import _numbers as n
from ketuvim import _structs as s
from ketuvim import errors
from ketuvim._ioctl import Descriptor, Request
from ketuvim.capabilities import Capability
from ketuvim.coalesced import CoalescedWrite, drain
from ketuvim.cpu_state import CpuState
from ketuvim.errors import KvmError, Misuse
from ketuvim.exits import (
    HYPERCALL_RESULT,
    INTERRUPTED,
    IO,
    MMIO_DATA,
    MSR_DATA,
    REASON_MEMORY_FAULT,
    Event,
    Exit,
    FailEntry,
    Failure,
    Hypercall,
    InternalError,
    IoIn,
    MmioRead,
    ReadMsr,
    Shutdown,
    Unknown,
    WriteMsr,
    decode,
)
from ketuvim.registers import Registers, SpecialRegisters
from ketuvim.state import CpuEvents, RunFlags, SyncFields, SyncRegisters

if TYPE_CHECKING:
    from ketuvim.vm import VirtualMachine

KICK: Final = signal.SIGRTMAX - 1
"""The signal that takes a thread out of the guest."""
_EHWPOISON: Final = 133
_RUN: Final = n.RUN.number


class _Thread(threading.local):
    """This thread, as an object: numbers of threads are used again, and what one blocked the next has not."""

    def __init__(self) -> None:
        self.token = object()


_thread: Final = _Thread()


class VirtualCpu(CpuState):
    """One processor of a machine; ``VirtualMachine.create_vcpu`` makes it.

    It keeps its machine alive, so that dropping both in any order is safe. Every method but ``stop`` and ``close``
    raises ``Misuse`` while another thread runs the guest.
    """

    __slots__ = (
        "__weakref__", "_closing", "_descriptor", "_idle", "_lock", "_masked_in", "_page", "_pending", "_running",
        "_stopping", "_vm", "id",
    )  # fmt: skip

    def __init__(self, vm: VirtualMachine, id_: int) -> None:
        self.id = id_
        self._vm = vm
        self._lock = threading.RLock()  # a signal handler may call ``stop`` in the midst of a call
        self._idle = threading.Condition(self._lock)
        self._running: int | None = None
        self._masked_in: object = None
        self._stopping = False
        self._closing = False
        self._pending: Exit | None = None
        self._descriptor = Descriptor(vm.descriptor.ioctl(n.CREATE_VCPU, id_))
        try:
            self._page = mmap.mmap(self._descriptor.fileno(), vm.kvm.vcpu_mmap_size)
        except BaseException:
            self._descriptor.close()
            raise

    @property
    def vm(self) -> VirtualMachine:
        """The machine it belongs to."""
        return self._vm

    @property
    def closed(self) -> bool:
        """Say whether it was closed."""
        return self._descriptor.closed

    @property
    def running(self) -> bool:
        """Say whether some thread runs the guest right now."""
        return self._running is not None

    # running

    def run(self) -> Event:
        """Run the guest until it needs the host; raise the ``GuestFailed`` that fits where it cannot go on."""
        found = self.enter()
        if isinstance(found, Failure):
            raise self.failure(found)
        return found

    def enter(self) -> Exit:
        """Run the guest until it comes back for whatever reason.

        Raises ``MemoryGone`` where the memory behind a region cannot be had, and ``KvmError`` for what else the kernel
        refuses. A read of the guest that nobody answers gives all ones, as on a bus where nobody drives the lines.
        """
        with self._lock:
            self._check()
            if self._masked_in is not _thread.token:
                self._take_over()
            self._running = threading.get_ident()
        try:
            return self._run()
        finally:
            with self._lock:
                self._running = None
                if self._closing:
                    self._idle.notify_all()

    def stop(self) -> None:
        """Make the run that is under way return ``Interrupted``, or the next one if none is; from any thread."""
        with self._lock:
            if not self.closed:
                self._interrupt()

    def withdraw_stop(self) -> None:
        """Forget a ``stop`` that no run has served yet."""
        with self._lock:
            if not self._closing:
                self._stopping = False
                self._page[s.RUN_IMMEDIATE_EXIT] = 0

    def complete(self) -> None:
        """Finish the instruction for which the guest came back, and run no further (``immediate_exit``)."""
        with self._lock:
            self._check()
            self._page[s.RUN_IMMEDIATE_EXIT] = 1
            try:
                self._descriptor.ioctl(n.RUN)
            except KvmError as error:
                if error.errno != EINTR:
                    raise
            finally:
                self._page[s.RUN_IMMEDIATE_EXIT] = self._stopping
                self._pending = None

    def answer(self, data: bytes) -> None:
        """Give the guest what it reads: to the last exit, an ``IoIn`` or a ``MmioRead``, in its exact length."""
        with self._lock:
            self._check()
            pending = self._pending
            if not isinstance(pending, IoIn | MmioRead):
                raise Misuse(f"the guest does not wait for data, its last exit is {pending}")
            if len(data) != _expected(pending):
                raise Misuse(f"the guest reads {_expected(pending)} bytes, not {len(data)}")
            self._put(data)

    def answer_hypercall(self, result: int) -> None:
        """Give the result of the ``Hypercall`` that was the last exit."""
        with self._lock:
            self._check()
            if not isinstance(self._pending, Hypercall):
                raise Misuse(f"the guest does not wait for a hypercall, its last exit is {self._pending}")
            s.U64.pack_into(self._page, HYPERCALL_RESULT, result)

    def answer_msr(self, value: int | None) -> None:
        """Give the value to a ``ReadMsr``, let a ``WriteMsr`` pass with any; ``None`` is a fault for the guest."""
        with self._lock:
            self._check()
            if not isinstance(self._pending, ReadMsr | WriteMsr):
                raise Misuse(f"the guest does not wait for an MSR, its last exit is {self._pending}")
            self._page[s.RUN_EXIT] = value is None
            if value is not None and isinstance(self._pending, ReadMsr):
                s.U64.pack_into(self._page, MSR_DATA, value)

    def failure(self, found: Failure) -> errors.GuestFailed:
        """Make the error for an exit after which the guest cannot go on."""
        match found:
            case Shutdown():
                return self.failed(errors.TripleFault, "the guest shut down after a triple fault", found)
            case InternalError(suberror=suberror):
                message = f"KVM cannot go on, internal error {suberror}"
                return self.failed(errors.EmulationFailed, message, found)
            case FailEntry(hardware_reason=reason):
                message = f"the processor refused to enter the guest, reason {reason:#x}"
                return self.failed(errors.EntryFailed, message, found)
            case Unknown(reason=number):
                message = f"the guest came back for an unknown reason, {number}"
                return self.failed(errors.UnknownExit, message, found)

    def failed(
        self, kind: type[errors.GuestFailed], message: str, found: Failure | None = None
    ) -> errors.GuestFailed:
        """Make an error of ``kind`` that holds the registers."""
        return kind(message, exit_=found, registers=self.registers, special_registers=self.special_registers)

    # the page that is shared with the kernel

    @property
    def run_flags(self) -> RunFlags:
        """What KVM says about the processor at the last exit."""
        return RunFlags(int.from_bytes(self._shared(s.RUN_FLAGS, 2), "little"))

    def request_interrupt_window(self, wanted: bool) -> None:
        """Ask for ``IrqWindowOpen`` as soon as the guest would take an interrupt."""
        with self._lock:
            self._check()
            self._page[0] = wanted

    def synchronise(self, fields: SyncFields) -> None:
        """Choose what KVM writes to the shared page at each exit (``Capability.SYNC_REGS``)."""
        with self._lock:
            self._check()
            s.U64.pack_into(self._page, s.RUN_SYNC, fields)

    @property
    def sync_registers(self) -> SyncRegisters:
        """The registers in the shared page."""
        special, events = s.REGS.size, s.REGS.size + s.SREGS.size
        data = self._shared(s.RUN_SYNC_REGS, events + s.EVENTS.size)
        return SyncRegisters(
            registers=Registers.unpack(data[:special]),
            special_registers=SpecialRegisters.unpack(data[special:events]),
            events=CpuEvents.unpack(data[events:]),
        )

    def coalesced(self) -> list[CoalescedWrite]:
        """Take the writes that KVM collected for the whole machine, oldest first."""
        offset = self._vm.check(Capability.COALESCED_MMIO) * mmap.PAGESIZE
        with self._lock, self._vm.ring_lock:
            self._check()
            return drain(self._page, offset)

    # the end

    def close(self) -> None:
        """Stop the guest wherever it runs, wait until it has come out, and free the processor."""
        with self._lock:
            if self._running == threading.get_ident():
                raise Misuse("a processor cannot be closed by the thread that runs it")
            self._closing = True
            while self._running is not None:
                self._interrupt()
                self._idle.wait(1)
            self._page.close()
            self._descriptor.close()
        self._vm.forget(self)

    def disown(self) -> None:
        """Let go of a processor that belongs to the process from which this one was forked."""
        self._lock = threading.RLock()  # the old one may be held by a thread that does not exist here
        self._idle = threading.Condition(self._lock)
        self._running = None
        self._closing = True
        with contextlib.suppress(BufferError):
            self._page.close()
        self._descriptor.disown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        """Refuse what would wait for another thread, or reach a processor that is gone."""
        if self._closing:
            raise Misuse("the processor is closed")
        if self._running is not None:
            raise Misuse("another thread runs this processor")

    def _ask(self, request: Request, argument: int | bytearray) -> int:
        with self._lock:
            self._check()
            return self._descriptor.ioctl(request, argument)

    def _shared(self, offset: int, size: int) -> bytes:
        with self._lock:
            self._check()
            return self._page[offset : offset + size]

    def _xsave_size(self) -> int:
        return max(self._vm.check(Capability.XSAVE2), s.XSAVE.size)

    def _run(self) -> Exit:
        """Enter the guest, as the one thread that may."""
        fd, page, self._pending = self._descriptor.fileno(), self._page, None
        while True:
            try:
                fcntl.ioctl(fd, _RUN, 0)
                break
            except InterruptedError:
                if self._was_stopped():
                    return INTERRUPTED
            except OSError as error:
                return self._refused(error.errno or 0)
        found = decode(int.from_bytes(page[s.RUN_REASON : s.RUN_REASON + 4], "little"), page)
        self._pending = found
        if type(found) is IoIn or type(found) is MmioRead:
            self._put(b"\xff" * _expected(found))
        return found

    def _was_stopped(self) -> bool:
        """Take the signal that interrupted the guest, and say whether ``stop`` sent it."""
        with self._lock:
            signal.sigtimedwait((KICK,), 0)
            asked, self._stopping = self._stopping, False
            self._page[s.RUN_IMMEDIATE_EXIT] = 0
            if not asked:
                self._take_over()  # a signal that was blocked since would interrupt every run from now on
            return asked

    def _refused(self, errno: int) -> Exit:
        """Say what a refusal of the kernel means for the guest."""
        if errno == EAGAIN:
            return INTERRUPTED
        if errno not in (EFAULT, _EHWPOISON):
            raise KvmError(n.RUN.name, errno)
        reason = int.from_bytes(self._page[s.RUN_REASON : s.RUN_REASON + 4], "little")
        if reason == REASON_MEMORY_FAULT:
            return decode(reason, self._page)
        regs, sregs = bytearray(s.REGS.size), bytearray(s.SREGS.size)
        self._descriptor.ioctl(n.GET_REGS, regs)
        self._descriptor.ioctl(n.GET_SREGS, sregs)
        raise errors.MemoryGone(
            "the guest used memory that the host cannot give",
            exit_=None,
            registers=Registers.unpack(regs),
            special_registers=SpecialRegisters.unpack(sregs),
        )

    def _put(self, data: bytes) -> None:
        """Write what the guest reads to where KVM takes it from."""
        where = MMIO_DATA
        if isinstance(self._pending, IoIn):
            where = IO.unpack_from(self._page, s.RUN_EXIT)[4]
        self._page[where : where + len(data)] = data

    def _take_over(self) -> None:
        """Block the signal in this thread, and let KVM unblock it while the guest runs."""
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (KICK,))
        mask = sum(1 << (number - 1) for number in blocked if number != KICK)
        self._descriptor.ioctl(n.SET_SIGNAL_MASK, bytearray(s.SIGNAL_MASK.pack(s.U64.size, mask)))
        self._masked_in = _thread.token

    def _interrupt(self) -> None:
        """Ask for the end of the run, under the lock."""
        self._stopping = True
        self._page[s.RUN_IMMEDIATE_EXIT] = 1
        if self._running is not None:
            signal.pthread_kill(self._running, KICK)


def _expected(found: IoIn | MmioRead) -> int:
    """Give how many bytes the guest reads."""
    return found.size * found.count if isinstance(found, IoIn) else found.size
