"""Run one workload in a keep on this machine: start the keep, deliver, serve its requests, tell how it ended.

Nothing that happens inside reaches further than the keep's process; this process survives every end of it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from enarx import __version__
from enarx.api.directory_tree import read_tree as copy_directory
from enarx.api.tls_roots import machine_roots
from enarx.host import directories
from enarx.host.code_store import CodeStore
from enarx.host.keep_process import KeepProcess
from enarx.host.keep_start import Interpreter
from enarx.host.relay import answer
from enarx.host.request import DirectoryMode, RunRequest
from enarx.host.sallyport import Host, Permissions
from enarx.tcb.errors import EnarxError, Malformed, ProtocolViolation, Unavailable
from enarx.tcb.record import record
from enarx.tcb.sallyport.items import (
    Changed,
    Compiled,
    Connect,
    Deliver,
    Exited,
    Listen,
    Opened,
    Progress,
    Ready,
)
from enarx.tcb.sallyport.limits import MAX_BLOB_BYTES
from enarx.tcb.sallyport.socket_channel import ChannelClosed
from enarx.tcb.wire import Reader, Value
from enarx.tcb.workload import (
    MAX_CONFIG_BYTES,
    Config,
    Directory,
    Ending,
    Job,
    Outcome,
    Tree,
    parse_config,
    read_tree,
)
from enarx.tcb.workload import Connect as ConnectEntry
from enarx.tcb.workload import Listen as ListenEntry

GRACE_S: Final = 5.0
"""How long after its time limit a keep may take to say so before it is killed."""
_COMPONENT: Final = b"\0asm\x0d\0\x01\0"


@record
class RunResult:
    """How a run ended; ``conflicts`` tell what could not be brought back."""

    outcome: Outcome
    wall_ms: int
    changed: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()


@record(kw_only=False)
class Observer:
    """What somebody who waits may want to know."""

    progress: Callable[[str], None] = lambda text: None
    listening: Callable[[str, int], None] = lambda name, port: None


_NOBODY: Final = Observer()


def run(request: RunRequest, observer: Observer = _NOBODY, *, early: Interpreter | None = None) -> RunResult:
    """Run ``request`` with this process's standard streams. Raises ``EnarxError`` when it cannot even start.

    ``early`` is an interpreter that was started in advance.
    """
    return _Run(request, observer, early).go()


class _Run:
    """One run, from the request to its result."""

    def __init__(self, request: RunRequest, observer: Observer, early: Interpreter | None) -> None:
        self._early = early
        self._request = request
        self._observer = observer
        self._sent: dict[str, Tree] = {}
        self._changed: list[str] = []
        self._conflicts: list[str] = []
        self._ports: list[int] = []
        self._names: dict[tuple[str, int], str] = {}
        self._store: CodeStore | None = None
        self._module = b""

    def go(self) -> RunResult:
        """Start the keep, and while it boots gather what it gets."""
        config_text = _read_config(self._request.config_path)
        started = time.monotonic()
        keep = KeepProcess.start(*self._options(config_text), early=self._early)
        try:
            job, host = self._gather(config_text)
            outcome = keep.await_ready()
            if outcome is None:
                host.received(Ready(version=__version__), 0)
                outcome = self._serve(keep, job, host)
        except ChannelClosed:
            outcome = Outcome(ending=Ending.KEEP_LOST, detail=f"the keep is lost: {keep.describe_end()}")
        except ProtocolViolation as error:
            outcome = Outcome(
                ending=Ending.KEEP_LOST, detail=f"the keep broke the protocol and was ended: {error}"
            )
        finally:
            keep.end()
        return RunResult(
            outcome=outcome,
            wall_ms=round(1000 * (time.monotonic() - started)),
            changed=tuple(self._changed),
            conflicts=tuple(self._conflicts),
            ports=tuple(self._ports),
        )

    def _options(self, config_text: bytes | None) -> list[str]:
        """Say what the keep should load before it locks itself down; a wrong guess costs a refusal, never safety."""
        arguments = []
        with _opened(self._request.wasm_path) as file:
            if file.read(len(_COMPONENT)) == _COMPONENT:
                limits = self._request.limits
                arguments.append(f"--component={limits.storage_bytes},{limits.files}")
        if config_text is not None:
            arguments.append("--config")
        if any(kind in (config_text or b"") for kind in (b"listen", b"connect")):
            arguments.append("--network")
        if self._request.require_sandbox:
            arguments.append("--require-sandbox")
        return arguments

    def _gather(self, config_text: bytes | None) -> tuple[Job, Host]:
        """Read module, configuration and directories into a job, and derive what the keep may ask for."""
        request = self._request
        config = Config() if config_text is None else parse_config(config_text)
        self._module = _read_module(request.wasm_path, request.limits.module_bytes)
        if request.cache_dir is not None:
            self._store = CodeStore(Path(request.cache_dir))
        job = Job(
            module=self._module,
            config=config_text,
            arguments=request.args,
            environment=request.env,
            directories=self._directories(),
            limits=request.limits,
            threads=request.threads,
            terminals=(os.isatty(0), os.isatty(1), os.isatty(2)),
            code=self._store.get(self._module) if self._store else b"",
            seal_key=self._store.key if self._store else b"",
            roots=machine_roots(config),
        )
        listen = [entry for entry in config.files if isinstance(entry, ListenEntry)]
        connect = [entry for entry in config.files if isinstance(entry, ConnectEntry)]
        self._names = {(entry.address, entry.port): entry.name for entry in listen}
        permissions = Permissions(
            listen=frozenset((entry.address, entry.port) for entry in listen),
            connect=frozenset((entry.host, entry.port) for entry in connect),
        )
        return job, Host(permissions, max_bytes=MAX_BLOB_BYTES)

    def _directories(self) -> Sequence[Directory]:
        limits = self._request.limits
        delivered = []
        for it in self._request.directories:
            tree = copy_directory(it.host_path, max_bytes=limits.storage_bytes, max_entries=limits.files)
            self._sent[it.guest_path] = tree
            delivered.append(
                Directory(
                    name=it.guest_path,
                    tree=tree,
                    writable=it.mode is not DirectoryMode.READ_ONLY,
                    returned=it.mode is DirectoryMode.SYNC,
                )
            )
        return delivered

    def _serve(self, keep: KeepProcess, job: Job, host: Host) -> Outcome:
        """Deliver, then answer the keep until it says how the workload ended."""
        with contextlib.suppress(
            ChannelClosed
        ):  # a keep that refuses may have ended; what it said comes next
            keep.channel.send(host.deliver(Deliver(header=job.header(), size=job.size)), (0, 1, 2))
            keep.channel.send_blob(job.blobs())
        if job.limits.time_ms is not None:
            keep.give_time(job.limits.time_ms / 1000 + GRACE_S)
        while True:
            try:
                item, descriptors = keep.channel.receive()
            except TimeoutError:
                return Outcome(
                    ending=Ending.TIME_LIMIT, detail="the keep did not end at its time limit and was killed"
                )
            match host.received(item, len(descriptors)):
                case Listen() | Connect() as wanted:
                    self._answered(wanted, answer(host, keep.channel, wanted))
                case Progress(text=text):
                    self._observer.progress(text)
                case Compiled(size=size):
                    sealed = keep.channel.receive_blob(size, MAX_BLOB_BYTES)
                    if self._store is not None:
                        self._store.put(self._module, sealed)
                case Changed(header=header, size=size):
                    self._bring_back(header, keep.channel.receive_blob(size, MAX_BLOB_BYTES))
                case Exited(outcome=value):
                    return Outcome.from_value(value)

    def _answered(self, wanted: Listen | Connect, reply: object) -> None:
        if isinstance(wanted, Listen) and isinstance(reply, Opened):
            self._ports.append(reply.port)
            self._observer.listening(self._names[wanted.address, wanted.port], reply.port)

    def _bring_back(self, header: Value, body: bytearray) -> None:
        """Write the changes of one directory to where its copy came from; the keep names it, we know the place."""
        match header:
            case [str(name), tree_header]:
                origin = next(
                    (
                        it
                        for it in self._request.directories
                        if it.guest_path == name and it.mode is DirectoryMode.SYNC
                    ),
                    None,
                )
                if origin is not None:
                    reader = Reader(memoryview(body), name="changed directory")
                    after = read_tree(tree_header, reader)
                    reader.end()
                    self._write(origin.host_path, self._sent[name], after)
                    return
        raise ProtocolViolation("the keep returns a directory that it should not")

    def _write(self, path: str, before: Tree, after: Tree) -> None:
        try:
            changes = directories.write_changes(path, before, after)
        except EnarxError as error:
            self._conflicts.append(str(error))  # the workload has run; its end must still be told
            return
        self._changed += [f"{path}/{name}" for name in (*changes.written, *changes.deleted)]
        self._conflicts += [f"{path}/{name}: a link out of the directory" for name in changes.refused]


def _read_config(path: str | None) -> bytes | None:
    if path is None:
        return None
    with _opened(path) as file:
        return file.read(MAX_CONFIG_BYTES + 1)


def _read_module(path: str, limit: int) -> bytes:
    with _opened(path) as file:
        module = file.read(limit + 1)
    if len(module) > limit:
        raise Malformed(
            f"{path}: the module has more than {limit} bytes", hint="raise it with --limit module=…"
        )
    return module


def _opened(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise Unavailable(f"{path}: {(error.strerror or '').lower()}") from None
