"""Run one WebAssembly module to its end and say how it ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from wasmtime import Engine, Func, Linker, Module, Store, Trap, TrapCode, WasmtimeError

from enarx.tcb.errors import EnarxError
from enarx.tcb.keep.engine import DEFAULT_STACK_BYTES, first_line, new_engine
from enarx.tcb.keep.threads import (
    MEMORY,
    SPAWN,
    START_EXPORT,
    ThreadGroup,
    no_threads,
    one_at_a_time,
    shared_memory,
)
from enarx.tcb.keep.wasi._link import HostFunctions, self_test
from enarx.tcb.keep.wasi._memory import GuestMemory
from enarx.tcb.keep.wasi._preview1 import MODULE, SIGNATURES, GuestExit, Preview1
from enarx.tcb.keep.wasi._vfs import FileSystem
from enarx.tcb.workload import Ending, Limits, Outcome

ENTRY_POINTS: Final = ("", "_start")
"""Exports that start a program, in the order in which they are looked for."""

MAX_TABLES: Final = 128
MAX_FRAMES: Final = 8
RAISE: Final = "raise the limit with --limit NAME=VALUE"

_Ended = TypeVar("_Ended", Outcome, Outcome | None)


class LimitReached(EnarxError):
    """The workload used up something that its limits give; ``ending`` says what."""

    def __init__(self, ending: Ending, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.ending = ending


class Runtime:
    """Engine and host functions, made before a workload is known so that a fork server makes them once."""

    def __init__(self, *, rehearsal: bytes) -> None:
        self.rehearsal = rehearsal
        """The machine code of a module that does nothing."""
        self.memory = GuestMemory()
        self.functions = HostFunctions(self.memory)
        self.guest = Preview1(self.memory)
        for name, signature in SIGNATURES.items():
            self.functions.define(
                MODULE, name, signature, getattr(self.guest, name), result=name != "proc_exit"
            )
        self.functions.define(*SPAWN, no_threads)
        self.stack_bytes = DEFAULT_STACK_BYTES
        self.threads = False
        self._make()

    def adapt(self, limits: Limits, *, threads: bool) -> None:
        """Make another engine if these settings need one."""
        if (limits.stack_bytes, threads) != (self.stack_bytes, self.threads):
            self.stack_bytes, self.threads = limits.stack_bytes, threads
            self._make()

    def _make(self) -> None:
        self.engine: Engine = new_engine(stack_bytes=self.stack_bytes, threads=self.threads)
        self.linker: Linker = self.functions.link(self.engine, without="" if self.threads else SPAWN[0])


class Run:
    """One module from its instance to its end. The first thread that ends, ends it; ``end`` is told how."""

    def __init__(
        self,
        runtime: Runtime,
        module: Module,
        limits: Limits,
        files: FileSystem,
        end: Callable[[Outcome], None],
    ) -> None:
        self._runtime = runtime
        self._module = module
        self._limits = limits
        self._files = files
        self._end = end
        self._group = ThreadGroup(limit=limits.threads, enter=self._thread)

    def main(self) -> None:
        """Instantiate the module and run its entry point."""
        outcome = self._guarded(self._start)
        self._runtime.guest.table.close_all()
        self._end(outcome)

    def _thread(self, number: int, argument: int) -> None:
        """Run one more thread of the workload; its return ends nothing."""

        def start() -> Outcome | None:
            store = self._store()
            instance = self._runtime.linker.instantiate(store, self._module)
            entry = instance.exports(store).get(START_EXPORT)
            if not isinstance(entry, Func):
                return Outcome(
                    ending=Ending.UNLINKABLE, detail=f"the module exports no function '{START_EXPORT}'"
                )
            entry(store, number, argument)
            return None

        outcome = self._guarded(start)
        if outcome is not None:
            self._end(outcome)

    def _store(self) -> Store:
        limits = self._limits
        store = Store(self._runtime.engine)
        store.set_limits(
            memory_size=limits.memory_bytes,
            table_elements=limits.table_elements,
            tables=MAX_TABLES,
            memories=1,
        )
        return store

    def _start(self) -> Outcome:
        store = self._store()
        if self._runtime.threads:
            self._allow_threads(store)
        exports = self._runtime.linker.instantiate(store, self._module).exports(store)
        entry = next((exports[name] for name in ENTRY_POINTS if name in exports), None)
        if not isinstance(entry, Func) or entry.type(store).params:
            return Outcome(
                ending=Ending.UNLINKABLE,
                detail="the module has no entry point: it exports neither '_start' nor '' as a function of nothing",
                hint="build a command (the default of most compilers), not a library",
            )
        initialize = exports.get("_initialize")
        if isinstance(initialize, Func) and "_start" not in exports:
            initialize(store)
        entry(store)
        return self._ended(0)

    def _allow_threads(self, store: Store) -> None:
        functions = self._runtime.functions
        for name, method in one_at_a_time(self._runtime.guest, SIGNATURES).items():
            functions.replace(MODULE, name, method)
        functions.replace(*SPAWN[:2], self._group.spawn)
        memory = shared_memory(store, self._module, self._limits.memory_bytes)
        if memory is not None:
            self._runtime.linker.define(store, *MEMORY, memory)

    def _guarded(self, start: Callable[[], _Ended]) -> Outcome | _Ended:
        try:
            return start()
        except (Trap, WasmtimeError) as error:
            return self._why(error)

    def _ended(self, code: int) -> Outcome:
        """Tell a program's own end. One that fails after it met a limit has ended because of it."""
        memory = self._runtime.memory.measure()
        met = self._met() if code else None
        if met is None:
            return Outcome(ending=Ending.EXITED, code=code, memory_bytes=memory)
        detail = f"the workload failed with exit code {code} after it met its limit of {met[1]}"
        return Outcome(ending=met[0], code=code, detail=detail, hint=RAISE, memory_bytes=memory)

    def _met(self) -> tuple[Ending, str] | None:
        """Say which limit the workload was told of by an error that it could handle."""
        if self._files.hit:
            return Ending.STORAGE_LIMIT, self._files.hit
        if self._group.refused:
            return Ending.THREAD_LIMIT, f"{self._limits.threads} threads"
        return None

    def _why(self, error: Trap | WasmtimeError) -> Outcome:
        """Tell the end that ``error`` means; what our own functions raised comes first."""
        match self._runtime.functions.failure:
            case GuestExit(code=code) if code <= 255:
                return self._ended(code)
            case GuestExit(code=code):
                # only the low byte crosses a process boundary; never let that turn a failure into a success
                return Outcome(
                    ending=Ending.EXITED,
                    code=code & 255 or 1,
                    detail=f"the exit code {code} is not portable, it becomes {code & 255 or 1}",
                    memory_bytes=self._runtime.memory.measure(),
                )
            case LimitReached() as reached:
                return Outcome(ending=reached.ending, detail=str(reached), hint=reached.hint)
            case BaseException() as failure:
                detail = f"internal error: {type(failure).__name__}: {failure}"
                return Outcome(ending=Ending.KEEP_LOST, detail=detail, hint="please report this")
        if isinstance(error, Trap):
            return self._trapped(error)
        return unlinkable(first_line(error))

    def _trapped(self, trap: Trap) -> Outcome:
        used = self._runtime.memory.measure()
        met = self._met()
        if met and trap.trap_code != TrapCode.STACK_OVERFLOW:
            detail = f"{_trap_text(trap)}, after the workload met its limit of {met[1]}"
            return Outcome(ending=met[0], detail=detail, hint=RAISE, memory_bytes=used)
        return trapped(trap, self._limits, memory_bytes=used)


def trapped(trap: Trap, limits: Limits, *, memory_bytes: int = 0) -> Outcome:
    """Tell a trap, and the limit that probably caused it.

    A program whose allocation fails usually traps. The engine does not tell which growth it refused, so more than
    half of a limit that is below what 32 bits can address is taken for the cause.
    """
    if trap.trap_code == TrapCode.STACK_OVERFLOW:
        return Outcome(
            ending=Ending.STACK_OVERFLOW,
            detail=f"the workload needs more than {limits.stack_bytes} bytes of stack",
            hint="raise it with --limit stack=…, or look for endless recursion",
            memory_bytes=memory_bytes,
        )
    what = _trap_text(trap)
    if memory_bytes > limits.memory_bytes // 2 and limits.memory_bytes < 1 << 32:
        return Outcome(
            ending=Ending.MEMORY_LIMIT,
            detail=f"{what}, with {memory_bytes} of {limits.memory_bytes} bytes of memory in use",
            hint="raise it with --limit memory=…",
            memory_bytes=memory_bytes,
        )
    return Outcome(ending=Ending.TRAPPED, detail=what, memory_bytes=memory_bytes)


def _trap_text(trap: Trap) -> str:
    """Give the cause and the innermost functions, where the module names them."""
    cause = trap.message.splitlines()
    reason = next((line.partition("wasm trap: ")[2] for line in cause if "wasm trap: " in line), cause[0])
    names = [frame.func_name or f"function {frame.func_index}" for frame in trap.frames[:MAX_FRAMES]]
    return f"trap: {reason}" + (f" in {' < '.join(names)}" if names else "")


def unlinkable(message: str) -> Outcome:
    if "exceeds memory limits" in message:
        return Outcome(ending=Ending.MEMORY_LIMIT, detail=message, hint="raise it with --limit memory=…")
    if "exceeds table limits" in message:
        return Outcome(ending=Ending.TABLE_LIMIT, detail=message, hint="raise it with --limit table=…")
    hint = "a keep offers wasi_snapshot_preview1 only; link the program for wasm32-wasi"
    if "wasi_unstable" in message:
        hint = "the module was built for an old draft of WASI; rebuild it for wasi_snapshot_preview1"
    elif '"wasi"::"thread-spawn"' in message or "wasi::thread-spawn" in message:
        hint = "allow threads with --threads"
    return Outcome(ending=Ending.UNLINKABLE, detail=message, hint=hint)


# (module (func (export "_start")))
REHEARSAL_MODULE: Final = bytes.fromhex(
    "0061736d0100000001040160000003020100070a01065f737461727400000a040102000b"
)


def prepare() -> Runtime:
    """Check the engine's calling convention in this process and make the runtime for the default settings.

    The check compiles on one processor, so that the process can fork afterwards; nothing else is compiled here.
    """
    engine = new_engine(parallel=False)
    self_test(engine)
    return Runtime(rehearsal=bytes(Module(engine, REHEARSAL_MODULE).serialize()))
