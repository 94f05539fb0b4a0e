"""One workload in this process: from its job to its outcome, on a thread of its own.

1. Lay out file system, streams and sockets.
2. Get the code: from the sealed cache, or compile it.
3. Give up making code executable.
4. Run the workload.

The thread's stack is as large as the workload's limit wants. Whatever goes wrong is an outcome.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, Protocol

from wasmtime import Engine, Module

from enarx.tcb.errors import EnarxError, Malformed, Unavailable
from enarx.tcb.keep.code_cache import CodeCache
from enarx.tcb.keep.engine import CONFIGURATION, Code, check_kind, load_code
from enarx.tcb.keep.lockdown import COMPONENT_FILES, seal_code
from enarx.tcb.keep.runner import Run, Runtime
from enarx.tcb.keep.tables import count_tables
from enarx.tcb.keep.wasi._fds import Descriptor
from enarx.tcb.keep.world import lay_out
from enarx.tcb.record import replace
from enarx.tcb.sallyport.limits import MAX_ITEM_BYTES
from enarx.tcb.sallyport.socket_channel import ChannelClosed, SocketChannel
from enarx.tcb.wire import Value, decode, encode
from enarx.tcb.workload import (
    SEAL_KEY_BYTES,
    Config,
    Connect,
    Ending,
    Job,
    Limits,
    Listen,
    Outcome,
    Tree,
    running_config,
)

HOST_STACK_BYTES: Final = 8 << 20
"""Native stack beyond the workload's, for the compiler and for our functions that the workload calls."""
INCOMPLETE: Final = (
    "see 'enarx platform info' for what this machine lacks; modules also run without --require-sandbox"
)


def _table_elements(job: Job) -> int:
    """Give each table its even share of what all tables may hold; every thread has tables of its own."""
    tables = count_tables(job.module) * (job.limits.threads if job.threads else 1)
    return job.limits.table_elements // max(tables, 1)


class Returning(Protocol):
    """Files that can be given back."""

    def harvest(self, name: str) -> Tree:
        """Give the content of a directory as the workload left it."""


class Reporter(Protocol):
    """Who hears what happens on the workload's thread."""

    talking: threading.Lock
    """Held by whoever uses the channel to the host."""

    def progress(self, text: str) -> None:
        """Tell what is going on, for people."""

    def compiled(self, sealed: bytes) -> None:
        """Take a sealed copy of the code that was compiled."""


class Execution:
    """The one run of this process. ``done`` is an event descriptor, readable once there is an outcome."""

    def __init__(self, runtime: Runtime, channel: SocketChannel, reporter: Reporter) -> None:
        self.required = False
        """Whether a missing layer of the sandbox is an error."""
        self.private_files = False
        """Whether this process sees a file system of its own and no other; components need that."""
        self.streams = False
        """Whether the sockets of the workload are streams of a VM keep's door."""
        self.done = os.eventfd(0, os.EFD_CLOEXEC)
        self.outcome: Outcome | None = None
        self.files: Returning | None = None
        self._runtime = runtime
        self._channel = channel
        self._reporter = reporter
        self._ending = threading.Lock()
        self._ended = False

    def start(self, job: Job, stdio: Sequence[int]) -> None:
        """Run ``job`` with these standard streams, once."""
        threading.stack_size(job.limits.stack_bytes + HOST_STACK_BYTES)
        threading.Thread(target=self._work, args=(job, stdio), daemon=True).start()

    def late(self, time_ms: int) -> Outcome:
        """Give the outcome of a workload that did not end in time."""
        return Outcome(
            ending=Ending.TIME_LIMIT,
            detail=f"the workload runs for more than {time_ms / 1000:g} seconds",
            hint="raise it with --limit time=…",
            memory_bytes=self._runtime.memory.size,
        )

    def _end(self, outcome: Outcome | None) -> None:
        """Take the outcome of whichever thread ends first."""
        with self._ending:
            if not self._ended:
                self.outcome, self._ended = outcome, True
                os.eventfd_write(self.done, 1)

    def _work(self, job: Job, stdio: Sequence[int]) -> None:
        """Do everything from the delivery to the outcome, on the worker's thread."""
        try:
            self._run(job, stdio)
        except ChannelClosed:
            self._end(None)
        except EnarxError as error:
            self._end(refused(error))
        except MemoryError:
            self._end(
                Outcome(ending=Ending.MEMORY_LIMIT, detail="the machine has no memory left for this keep")
            )
        except BaseException as error:
            # whatever the worker meets, the host gets an answer
            detail = f"internal error: {type(error).__name__}: {error}"
            self._end(Outcome(ending=Ending.KEEP_LOST, detail=detail, hint="please report this"))

    def _run(self, job: Job, stdio: Sequence[int]) -> None:
        config = running_config(job)
        if check_kind(job.module):
            self._run_component(job, config, stdio)
            return
        runtime = self._runtime
        runtime.adapt(job.limits, threads=job.threads)
        world = lay_out(job, config, stdio, self._sockets(job, config))
        self.files = world.files
        module = self._load(job, runtime.engine, Module)
        self._seal()
        runtime.guest.set_up(arguments=world.arguments, environment=world.environment, table=world.table)
        limits = replace(job.limits, table_elements=_table_elements(job))
        Run(runtime, module, limits, world.files, self._end).main()

    def _run_component(self, job: Job, config: Config, stdio: Sequence[int]) -> None:
        try:
            from wasmtime.component import Component
        except ImportError:  # it is in no keep image
            hint = "enarx run takes components; for this keep compile to WASI preview 1 (wasm32-wasip1)"
            raise Unavailable("this keep runs modules, and this is a component", hint=hint) from None

        from enarx.tcb.keep.components import ComponentRun, check_supported
        from enarx.tcb.keep.native_files import NativeFiles

        check_supported(job, config)
        if not self.private_files:
            raise Unavailable(
                "a component needs a mount namespace, which this machine does not allow", hint=INCOMPLETE
            )
        files = self.files = NativeFiles(COMPONENT_FILES, job.mounts)
        self._runtime.adapt(job.limits, threads=False)
        engine = self._runtime.engine
        component = self._load(job, engine, Component)
        self._seal()
        ComponentRun(engine, component, job, config, files).main(stdio, self._end)

    def _seal(self) -> None:
        """Give up making code."""
        result = seal_code()
        if self.required and not result.applied:
            raise Unavailable(
                f"the sandbox is incomplete: {result.step.value} ({result.detail})", hint=INCOMPLETE
            )

    def _sockets(self, job: Job, config: Config) -> Sequence[Descriptor]:
        """Have the host open what the configuration names."""
        if not any(isinstance(entry, Listen | Connect) for entry in config.files):
            return ()
        from enarx.tcb.keep.network import Network

        with self._reporter.talking:
            network = Network(
                self._channel, config, roots=job.roots, threads=job.threads, streams=self.streams
            )
            return network.descriptors

    def _load(self, job: Job, engine: Engine, kind: type[Code]) -> Code:
        """Get the code, and leave a sealed copy of what was compiled with the host."""
        cache = CodeCache(key=job.seal_key, sealed=job.code, made_from=_made_from(job))
        code = load_code(engine, job.module, kind, cache, self._compiling(len(job.module)))
        if cache.fresh is not None:
            self._reporter.compiled(cache.fresh)
        return code

    def _compiling(self, size: int) -> Callable[[], None]:
        return lambda: self._reporter.progress(f"compiling {size} bytes of WebAssembly")


def rehearse(runtime: Runtime) -> None:
    """Run a module that does nothing, so that a forked keep has pages of its own before somebody waits for it.

    It calls none of our functions and so leaves nothing behind but memory that was touched.
    """

    def play() -> None:
        empty = Job(module=b"", seal_key=bytes(SEAL_KEY_BYTES))
        header = decode(encode(empty.header()), max_bytes=MAX_ITEM_BYTES)
        job = Job.from_parts(header, memoryview(b""))
        CodeCache(key=job.seal_key, sealed=runtime.rehearsal, made_from=_made_from(job)).open()
        files = lay_out(job, running_config(job), (0, 1, 2), ()).files
        module = Module.deserialize(runtime.engine, runtime.rehearsal)
        Run(runtime, module, job.limits, files, lambda outcome: None).main()

    threading.stack_size(Limits().stack_bytes + HOST_STACK_BYTES)
    player = threading.Thread(target=play)
    player.start()
    player.join()


def refused(error: EnarxError) -> Outcome:
    """Tell an error of ours as an outcome: the sender's fault, or the machine's."""
    ending = Ending.MALFORMED if isinstance(error, Malformed) else Ending.UNAVAILABLE
    return Outcome(ending=ending, detail=str(error), hint=error.hint)


def _made_from(job: Job) -> list[Value]:
    """Name everything that compiled code depends on; the engine itself checks the processor's features."""
    return [
        sha256(job.module).digest(),
        CONFIGURATION,
        platform.machine(),
        job.limits.stack_bytes,
        job.threads,
    ]
