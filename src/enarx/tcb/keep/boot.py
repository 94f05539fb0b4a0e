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
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

import wasmtime

from enarx import __version__
from enarx.tcb.errors import EnarxError, Malformed, ProtocolViolation
from enarx.tcb.keep.code_cache import CodeCache
from enarx.tcb.keep.engine import CONFIGURATION, check_kind, load_module
from enarx.tcb.keep.lockdown import seal_code
from enarx.tcb.keep.network import Network
from enarx.tcb.keep.runner import Runtime
from enarx.tcb.keep.world import World, lay_out, read_config
from enarx.tcb.sallyport.items import Changed, Compiled, Deliver, Exited, Progress, Ready
from enarx.tcb.sallyport.limits import MAX_BLOB_BYTES
from enarx.tcb.sallyport.socket_channel import ChannelClosed, SocketChannel
from enarx.tcb.wire import Value
from enarx.tcb.workload import Ending, Job, Outcome

HOST_STACK_BYTES: Final = 8 << 20
"""Native stack beyond the workload's, for the compiler and for our functions that the workload calls."""
TALK_TIMEOUT_S: Final = 2.0
"""How long a keep that must end waits for a message on its way."""


class Keep:
    """One keep: it serves one delivery and ends with the process."""

    def __init__(self, channel: SocketChannel, runtime: Runtime) -> None:
        self._channel = channel
        self._runtime = runtime
        self._talking = threading.Lock()
        self._outcome: Outcome | None = None
        self._done = os.eventfd(0, os.EFD_CLOEXEC)

    def serve(self) -> None:
        """Live, and return when the process may end."""
        try:
            self._channel.send(Ready(version=__version__))
            item, stdio = self._channel.receive()
            if not isinstance(item, Deliver) or len(stdio) != 3:
                raise ProtocolViolation("expected a delivery with standard input, output and error")
            body = self._channel.receive_blob(item.size, MAX_BLOB_BYTES)
            job = Job.from_parts(item.header, memoryview(body))
        except ChannelClosed:
            return
        except EnarxError as error:
            self._finish(_refused(error))
            return
        threading.stack_size(job.limits.stack_bytes + HOST_STACK_BYTES)
        worker = threading.Thread(target=self._work, args=(job, stdio), daemon=True)
        worker.start()
        self._finish(self._watch(job.limits.time_ms))

    def _watch(self, time_ms: int | None) -> Outcome | None:
        """Wait for the worker, the time limit or the end of the host; None when there is nobody to tell."""
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
            self._outcome = self._run(job, stdio)
        except ChannelClosed:
            self._outcome = None
        except EnarxError as error:
            self._outcome = _refused(error)
        except MemoryError:
            self._outcome = Outcome(ending=Ending.MEMORY_LIMIT, detail="the machine has no memory left for this keep")
        except BaseException as error:
            # the worker is the process's purpose: nothing that it meets may leave the host without an answer
            detail = f"internal error: {type(error).__name__}: {error}"
            self._outcome = Outcome(ending=Ending.KEEP_LOST, detail=detail, hint="please report this")
        finally:
            os.eventfd_write(self._done, 1)

    def _run(self, job: Job, stdio: Sequence[int]) -> Outcome:
        check_kind(job.module)
        config = read_config(job)
        runtime = self._runtime
        if not runtime.suits(job.limits, threads=job.threads):
            runtime = Runtime(stack_bytes=job.limits.stack_bytes, threads=job.threads)
            self._runtime = runtime
        with self._talking:
            network = Network(self._channel, config, roots=job.roots)
        world = lay_out(job, config, stdio, network.descriptors)
        cache = CodeCache(key=job.seal_key, sealed=job.code, made_from=_made_from(job))
        module = load_module(runtime.engine, job.module, cache, self._compiling(len(job.module)))
        if cache.fresh is not None:
            with self._talking:
                self._channel.send(Compiled(size=len(cache.fresh)))
                self._channel.send_blob([cache.fresh])
        seal_code()
        runtime.guest.set_up(arguments=world.arguments, environment=world.environment, table=world.table)
        outcome = runtime.run(module, job.limits)
        self._give_back(job, world)
        return outcome

    def _compiling(self, size: int) -> Callable[[], None]:
        def tell() -> None:
            with self._talking:
                self._channel.send(Progress(text=f"compiling {size} bytes of WebAssembly"))

        return tell

    def _give_back(self, job: Job, world: World) -> None:
        """Send the directories whose changes the sender wants."""
        for directory in job.directories:
            if directory.returned:
                tree = world.files.harvest(directory.name)
                with self._talking:
                    self._channel.send(Changed(header=[directory.name, tree.header()], size=tree.size))
                    self._channel.send_blob(tree.blobs())


def _refused(error: EnarxError) -> Outcome:
    """Tell an error of ours as an outcome: the sender's fault, or the machine's."""
    ending = Ending.MALFORMED if isinstance(error, Malformed) else Ending.UNAVAILABLE
    return Outcome(ending=ending, detail=str(error), hint=error.hint)


def _made_from(job: Job) -> list[Value]:
    """Name everything that compiled code depends on; the engine itself checks the processor's features."""
    return [
        sha256(job.module).digest(),
        wasmtime.__version__,
        CONFIGURATION,
        platform.machine(),
        job.limits.stack_bytes,
        job.threads,
    ]
