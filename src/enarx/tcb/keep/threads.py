"""Threads of a workload (``wasi-threads``): one memory, one table of descriptors, an instance and a store for each.

The engine runs the guest's threads at the same time; our own functions take turns (``one_at_a_time``) unless they may
wait for somebody else. The first thread that exits or traps ends the workload.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

from wasmtime import Limits as MemoryLimits
from wasmtime import MemoryType, Module, SharedMemory, Store
from wasmtime import _ffi as ffi

from enarx.tcb.errors import Malformed
from enarx.tcb.keep.wasi._files import OpenFile
from enarx.tcb.keep.wasi._preview1 import Preview1

SPAWN: Final = ("wasi", "thread-spawn", "i")
MEMORY: Final = ("env", "memory")
START_EXPORT: Final = "wasi_thread_start"
MAX_THREAD_ID: Final = (1 << 29) - 1
"""The proposal's range, so that an answer is never taken for an error."""
REFUSED: Final = 0xFFFFFFFF
PAGE: Final = 1 << 16

_MAY_WAIT: Final = frozenset({"poll_oneoff", "sock_accept", "sock_recv", "sock_send"})
_MAY_WAIT_UNLESS_FILE: Final = frozenset({"fd_read", "fd_write"})
_STATELESS: Final = frozenset({"sched_yield", "proc_exit", "clock_time_get", "clock_res_get", "random_get"})


def one_at_a_time(guest: Preview1, names: Mapping[str, str]) -> dict[str, Callable[..., int]]:
    """Give the functions of ``guest`` such that no two that change our state run at once."""
    lock = threading.Lock()

    def in_turn(method: Callable[..., int]) -> Callable[..., int]:
        def function(*arguments: int) -> int:
            with lock:
                return method(*arguments)

        return function

    def in_turn_for_files(method: Callable[..., int]) -> Callable[..., int]:
        locked = in_turn(method)

        def function(fd: int, *rest: int) -> int:
            return (locked if isinstance(guest.table.get(fd), OpenFile) else method)(fd, *rest)

        return function

    functions = {}
    for name in names:
        method = getattr(guest, name)
        if name in _MAY_WAIT_UNLESS_FILE:
            method = in_turn_for_files(method)
        elif name not in _MAY_WAIT | _STATELESS:
            method = in_turn(method)
        functions[name] = method
    return functions


class SharedMemoryImport(SharedMemory):
    """A shared memory that a linker takes; the engine's own class lacks the conversion."""

    def _as_extern(self) -> ffi.wasmtime_extern_t:
        union = ffi.wasmtime_extern_union(sharedmemory=self.ptr())
        return ffi.wasmtime_extern_t(ffi.WASMTIME_EXTERN_SHAREDMEMORY, union)


def shared_memory(store: Store, module: Module, limit_bytes: int) -> SharedMemoryImport | None:
    """Make the memory that ``module`` imports, if it imports one. Raises ``Malformed`` when it is too large."""
    for imported in module.imports:
        if (imported.module, imported.name) == MEMORY and isinstance(imported.type, MemoryType):
            declared = imported.type.limits
            if declared.min * PAGE > limit_bytes:
                raise Malformed(
                    f"the shared memory starts with {declared.min * PAGE} bytes, the limit is {limit_bytes}",
                    hint="raise it with --limit memory=…",
                )
            most = min(limit_bytes // PAGE, declared.max if declared.max is not None else limit_bytes // PAGE)
            return SharedMemoryImport(store.engine, MemoryType(MemoryLimits(declared.min, most), shared=True))
    return None


def no_threads(_argument: int) -> int:
    """``wasi.thread-spawn`` before there is a workload that may use it."""
    return REFUSED


class ThreadGroup:
    """The threads of one workload. ``enter`` runs one of them: it takes the thread's number and its argument."""

    def __init__(self, *, limit: int, enter: Callable[[int, int], None]) -> None:
        self._limit = limit
        self._enter = enter
        self._lock = threading.Lock()
        self._alive = 1
        self._last = 0
        self.refused = False
        """Whether a thread was refused because there were too many."""

    def spawn(self, argument: int) -> int:
        """``wasi.thread-spawn``: give the new thread's number, or a negative one."""
        with self._lock:
            if self._alive >= self._limit or self._last >= MAX_THREAD_ID:
                self.refused = True
                return REFUSED
            self._alive += 1
            self._last += 1
            number = self._last
        try:
            threading.Thread(target=self._run, args=(number, argument), daemon=True).start()
        except RuntimeError:  # the operating system has no thread left
            with self._lock:
                self._alive -= 1
                self.refused = True
            return REFUSED
        return number

    def _run(self, number: int, argument: int) -> None:
        try:
            self._enter(number, argument)
        finally:
            with self._lock:
                self._alive -= 1
