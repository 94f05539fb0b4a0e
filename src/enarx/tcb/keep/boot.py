"""The life of a keep, in order.

1. Say that it is ready, and take the one delivery.
2. Read what was delivered; lay out file system, streams and sockets.
3. Get the code: from the sealed cache, or compile it.
4. Give up making code executable.
5. Run the workload.
6. Send changed directories and the outcome; end.

The process is confined before this begins (``__main__``). From the delivery on, the work is done on a thread whose
stack is as large as the workload's limit wants, while the main thread watches for the time limit and for the host to
go away. Whatever goes wrong is an outcome.
"""

from __future__ import annotations

import os
import platform
import select
import threading
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, Protocol

from wasmtime import Engine, Module

from enarx import __version__
from enarx.tcb.errors import EnarxError, Malformed, Unavailable
from enarx.tcb.keep.code_cache import CodeCache
from enarx.tcb.keep.engine import CONFIGURATION, Code, check_kind, load_code
from enarx.tcb.keep.lockdown import COMPONENT_FILES, seal_code
from enarx.tcb.keep.runner import Run, Runtime
from enarx.tcb.keep.wasi._fds import Descriptor
from enarx.tcb.keep.world import lay_out, read_config
from enarx.tcb.sallyport.guest import Guest
from enarx.tcb.sallyport.items import Changed, Compiled, Exited, Progress, Ready
from enarx.tcb.sallyport.limits import MAX_BLOB_BYTES, MAX_ITEM_BYTES
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
)

HOST_STACK_BYTES: Final = 8 << 20
"""Native stack beyond the workload's, for the compiler and for our functions that the workload calls."""
INCOMPLETE: Final = (
    "see 'enarx platform info' for what this machine lacks; modules also run without --require-sandbox"
)
TALK_TIMEOUT_S: Final = 2.0
"""How long a keep that must end waits for a message on its way."""


class Returning(Protocol):
    """Files that can be given back."""

    def harvest(self, name: str) -> Tree:
        """Give the content of a directory as the workload left it."""


class Keep:
    """One keep: it serves one delivery and ends with the process."""

    def __init__(self, channel: SocketChannel, runtime: Runtime, *, required: bool) -> None:
        self.required = required
        """Whether a missing layer of the sandbox is an error."""
        self.private_files = False
        """Whether this process sees a file system of its own and no other; components need that."""
        self._channel = channel
        self._runtime = runtime
        self._talking = threading.Lock()
        self._ending = threading.Lock()
        self._outcome: Outcome | None = None
        self._ended = False
        self._files: Returning | None = None

    def fileno(self) -> int:
        """Give the channel's descriptor, the only one that a keep starts with."""
        return self._channel.fileno()

    def serve(self) -> None:
        """Live, and return when the process may end."""
        self._done = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            self._channel.send(Ready(version=__version__))
            item, stdio = self._channel.receive()
            delivery = Guest(sockets=True).delivered(item, len(stdio))
            body = self._channel.receive_blob(delivery.size, MAX_BLOB_BYTES)
            job = Job.from_parts(delivery.header, memoryview(body))
            del body
        except ChannelClosed:
            return
        except EnarxError as error:
            self._finish(_refused(error))
            return
        threading.stack_size(job.limits.stack_bytes + HOST_STACK_BYTES)
        threading.Thread(target=self._work, args=(job, stdio), daemon=True).start()
        outcome = self._watch(job.limits.time_ms)
        if outcome is not None and self._files is not None:
            self._give_back(job, self._files)
        self._finish(outcome)

    def rehearse(self) -> None:
        """Run a module that does nothing, so that a forked keep has pages of its own before somebody waits for it.

        It calls none of our functions and so leaves nothing behind but memory that was touched.
        """

        def play() -> None:
            empty = Job(module=b"", seal_key=bytes(SEAL_KEY_BYTES))
            header = decode(encode(empty.header()), max_bytes=MAX_ITEM_BYTES)
            job = Job.from_parts(header, memoryview(b""))
            CodeCache(key=job.seal_key, sealed=self._runtime.rehearsal, made_from=_made_from(job)).open()
            files = lay_out(job, read_config(job), (0, 1, 2), ()).files
            module = Module.deserialize(self._runtime.engine, self._runtime.rehearsal)
            Run(self._runtime, module, job.limits, files, lambda outcome: None).main()

        threading.stack_size(Limits().stack_bytes + HOST_STACK_BYTES)
        player = threading.Thread(target=play)
        player.start()
        player.join()

    def refuse(self, missing: str) -> None:
        """End before there is anything to run, because layers of the sandbox are ``missing``."""
        detail = f"the sandbox is incomplete: {missing}"
        self._finish(Outcome(ending=Ending.UNAVAILABLE, detail=detail, hint=INCOMPLETE))

    def _watch(self, time_ms: int | None) -> Outcome | None:
        """Wait for the workload's end, the time limit or the end of the host; None when there is nobody to tell."""
        poll = select.poll()
        poll.register(self._done, select.POLLIN)
        poll.register(self._channel.fileno(), select.POLLRDHUP)
        events = dict(poll.poll(time_ms))
        if self._done in events:
            return self._outcome
        if events:
            return None
        return Outcome(
            ending=Ending.TIME_LIMIT,
            detail=f"the workload runs for more than {(time_ms or 0) / 1000:g} seconds",
            hint="raise it with --limit time=…",
            memory_bytes=self._runtime.memory.size,
        )

    def _end(self, outcome: Outcome | None) -> None:
        """Take the outcome of whichever thread ends first."""
        with self._ending:
            if not self._ended:
                self._outcome, self._ended = outcome, True
                os.eventfd_write(self._done, 1)

    def _give_back(self, job: Job, files: Returning) -> None:
        """Send the directories whose changes the sender wants."""
        for directory in job.directories:
            if directory.returned:
                tree = files.harvest(directory.name)
                with self._talking:
                    self._channel.send(Changed(header=[directory.name, tree.header()], size=tree.size))
                    self._channel.send_blob(tree.blobs())

    def _finish(self, outcome: Outcome | None) -> None:
        if outcome is None or not self._talking.acquire(timeout=TALK_TIMEOUT_S):
            return
        try:
            self._channel.send(Exited(outcome=outcome.value()))
        except ChannelClosed:
            return  # the host is gone, and with it everybody who could be told

    def _work(self, job: Job, stdio: Sequence[int]) -> None:
        """Do everything from the delivery to the outcome, on the worker's thread."""
        try:
            self._run(job, stdio)
        except ChannelClosed:
            self._end(None)
        except EnarxError as error:
            self._end(_refused(error))
        except MemoryError:
            self._end(
                Outcome(ending=Ending.MEMORY_LIMIT, detail="the machine has no memory left for this keep")
            )
        except BaseException as error:
            # whatever the worker meets, the host gets an answer
            detail = f"internal error: {type(error).__name__}: {error}"
            self._end(Outcome(ending=Ending.KEEP_LOST, detail=detail, hint="please report this"))

    def _run(self, job: Job, stdio: Sequence[int]) -> None:
        config = read_config(job)
        if check_kind(job.module):
            self._run_component(job, config, stdio)
            return
        runtime = self._runtime
        runtime.adapt(job.limits, threads=job.threads)
        world = lay_out(job, config, stdio, self._sockets(job, config))
        self._files = world.files
        module = self._load(job, runtime.engine, Module)
        self._seal()
        runtime.guest.set_up(arguments=world.arguments, environment=world.environment, table=world.table)
        Run(runtime, module, job.limits, world.files, self._end).main()

    def _run_component(self, job: Job, config: Config, stdio: Sequence[int]) -> None:
        from wasmtime.component import Component

        from enarx.tcb.keep.components import ComponentRun, check_supported
        from enarx.tcb.keep.native_files import NativeFiles

        check_supported(job, config)
        if not self.private_files:
            raise Unavailable(
                "a component needs a mount namespace, which this machine does not allow", hint=INCOMPLETE
            )
        files = self._files = NativeFiles(COMPONENT_FILES, job.directories)
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

        with self._talking:
            return Network(self._channel, config, roots=job.roots, threads=job.threads).descriptors

    def _load(self, job: Job, engine: Engine, kind: type[Code]) -> Code:
        """Get the code, and leave a sealed copy of what was compiled with the host."""
        cache = CodeCache(key=job.seal_key, sealed=job.code, made_from=_made_from(job))
        code = load_code(engine, job.module, kind, cache, self._compiling(len(job.module)))
        if cache.fresh is not None:
            with self._talking:
                self._channel.send(Compiled(size=len(cache.fresh)))
                self._channel.send_blob([cache.fresh])
        return code

    def _compiling(self, size: int) -> Callable[[], None]:
        def tell() -> None:
            with self._talking:
                self._channel.send(Progress(text=f"compiling {size} bytes of WebAssembly"))

        return tell


def _refused(error: EnarxError) -> Outcome:
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
