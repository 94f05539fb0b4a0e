"""What one call from the guest into the keep costs, beside the same function over the engine's checked path."""

from __future__ import annotations

import time
from typing import Any, Final

from wasmtime import Func, FuncType, Linker, Module, Store, ValType

from bench._report import line
from enarx.tcb.keep.runner import Runtime, prepare
from enarx.tcb.keep.wasi._preview1 import MODULE, SIGNATURES
from enarx.tcb.keep.world import lay_out
from enarx.tcb.workload import Directory, Entry, EntryKind, Job, Tree, running_config

CALLS: Final = 20_000
CONFIG: Final = b'[[files]]\nkind = "null"\n'
ARGUMENTS: Final = {
    "sched_yield": "",
    "clock_time_get": "(i32.const 1) (i64.const 0) (i32.const 64)",
    "random_get": "(i32.const 64) (i32.const 16)",
    "fd_fdstat_get": "(i32.const 0) (i32.const 64)",
    "fd_write": "(i32.const 0) (i32.const 0) (i32.const 1) (i32.const 64)",
    "fd_read": "(i32.const 4) (i32.const 0) (i32.const 1) (i32.const 64)",
    "fd_seek": "(i32.const 4) (i64.const 0) (i32.const 0) (i32.const 64)",
    "fd_pread": "(i32.const 4) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 64)",
    "path_filestat_get": "(i32.const 3) (i32.const 0) (i32.const 16) (i32.const 4) (i32.const 128)",
}
"""Arguments of each measured call; at address 0 lies a vector of 64 bytes at 1024, at 16 the name of a file."""


def program(name: str) -> str:
    """Give a module that opens ``file`` as descriptor 5 and makes the call many times."""
    letters = SIGNATURES[name]
    params = " ".join("i32" if letter == "i" else "i64" for letter in letters)
    return f"""(module
      (import "{MODULE}" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (import "{MODULE}" "{name}" (func $call (param {params}) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) "\\00\\04\\00\\00\\40\\00\\00\\00")
      (data (i32.const 16) "file")
      (func (export "open") (result i32)
        (drop (call $open (i32.const 3) (i32.const 0) (i32.const 16) (i32.const 4) (i32.const 0)
          (i64.const 0x3fffffff) (i64.const 0) (i32.const 0) (i32.const 256)))
        (i32.load (i32.const 256)))
      (func (export "run") (param $n i32) (result i32) (local $e i32)
        (loop $l
          (local.set $e (i32.or (local.get $e) (call $call {ARGUMENTS[name]})))
          (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
        (local.get $e)))"""


def main() -> None:
    """Print the cost of each call in microseconds."""
    runtime = prepare()
    tree = Tree((Entry(path="file", kind=EntryKind.FILE, data=bytes(65536)),))
    job = Job(module=b"", config=CONFIG, directories=[Directory(name="/", tree=tree)])
    for name in ARGUMENTS:
        world = lay_out(job, running_config(job), (0, 1, 2), ())
        runtime.guest.set_up(arguments=(), environment=(), table=world.table)
        ours = cost(runtime, runtime.linker, name)
        world = lay_out(job, running_config(job), (0, 1, 2), ())
        runtime.guest.set_up(arguments=(), environment=(), table=world.table)
        checked = cost(runtime, checked_linker(runtime), name)
        line(name, f"{ours:.2f} us", peer="the checked path", ratio=ours / checked)


def checked_linker(runtime: Runtime) -> Linker:
    """Define the same methods as ordinary host functions of the Python package."""
    linker = Linker(runtime.engine)
    for name, letters in SIGNATURES.items():
        method: Any = getattr(runtime.guest, name)
        types = [ValType.i32() if letter == "i" else ValType.i64() for letter in letters]
        unsigned = lambda *arguments, call=method: call(*[value & 0xFFFFFFFFFFFFFFFF for value in arguments])  # noqa: E731
        linker.define_func(MODULE, name, FuncType(types, [ValType.i32()]), unsigned)
    return linker


def cost(runtime: Runtime, linker: Linker, name: str) -> float:
    """Give the microseconds of one call, the best of five."""
    runtime.memory.__init__()  # type: ignore[misc] # another instance, another memory
    store = Store(runtime.engine)
    module = Module(runtime.engine, program(name))
    exports = linker.instantiate(store, module).exports(store)
    memory: Any = exports["memory"]
    runtime.memory.attach(lambda: (address(memory, store), memory.data_len(store)))
    opened, run = exports["open"], exports["run"]
    assert isinstance(opened, Func)
    assert isinstance(run, Func)
    fd = opened(store)
    assert fd == 4, fd
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        error = run(store, CALLS)
        best = min(best, time.perf_counter() - started)
        assert error == 0, (name, error)
    return best / CALLS * 1e6


def address(memory: Any, store: Store) -> int:
    """Give where a memory lies."""
    import ctypes

    return ctypes.addressof(memory.data_ptr(store).contents)


if __name__ == "__main__":
    main()
