"""What a workload finds when it starts: descriptors, file system, command line, environment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from enarx.tcb.keep.runner import LimitReached
from enarx.tcb.keep.wasi._fds import Descriptor, Table
from enarx.tcb.keep.wasi._stdio import Input, Null, Output
from enarx.tcb.keep.wasi._vfs import FileSystem
from enarx.tcb.record import record
from enarx.tcb.workload import Config, Ending, Job, Stderr, Stdin, Stdout
from enarx.tcb.workload import Null as NullFile

PROGRAM_NAME: Final = "main.wasm"
"""``argv[0]`` of every workload, as it always was."""


class OutputBudget:
    """The bytes that standard output and error may carry together; the guest ends when it wants more."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._left = limit or 0

    def spend(self, size: int) -> None:
        """Account for ``size`` bytes about to be written."""
        if self._limit is None:
            return
        self._left -= size
        if self._left < 0:
            raise LimitReached(
                Ending.OUTPUT_LIMIT,
                f"the workload writes more than {self._limit} bytes to standard output and error",
                hint="raise it with --limit output=…",
            )


@record
class World:
    """Everything that the guest can reach."""

    config: Config
    files: FileSystem
    table: Table
    arguments: Sequence[str]
    environment: Sequence[tuple[str, str]]


def lay_out(job: Job, config: Config, stdio: Sequence[int], sockets: Sequence[Descriptor]) -> World:
    """Make the world of ``job``. ``stdio`` are the standard streams, ``sockets`` those of ``config`` in its order.

    The configuration's entries are the first descriptors; the standard numbers that it leaves free read nothing and
    swallow everything; then come the directories, and last ``/``, writable and gone with the keep.
    """
    budget = OutputBudget(job.limits.output_bytes)
    waiting = list(sockets)
    table = Table(limit=job.limits.descriptors)
    for fd, entry in enumerate(config.files):
        match entry:
            case NullFile():
                table.place(fd, Null())
            case Stdin():
                table.place(fd, Input(stdio[0], terminal=job.terminals[0]))
            case Stdout():
                table.place(fd, Output(stdio[1], terminal=job.terminals[1], spend=budget.spend))
            case Stderr():
                table.place(fd, Output(stdio[2], terminal=job.terminals[2], spend=budget.spend))
            case _:
                table.place(fd, waiting.pop(0))
    for fd in range(3):
        if fd not in table:
            table.place(fd, Null())
    files = _file_system(job, table)
    environment = [_pair(variable) for variable in config.environ]
    return World(
        config=config,
        files=files,
        table=table,
        arguments=[PROGRAM_NAME, *config.args],
        environment=environment,
    )


def _file_system(job: Job, table: Table) -> FileSystem:
    files = FileSystem(max_nodes=job.limits.files, max_bytes=job.limits.storage_bytes, now=time.time_ns)
    for directory in job.mounts:
        files.mount(directory.tree, directory.name, directory.writable)
        table.add(files.preopen(directory.name, directory.name))
    if all(directory.name != "/" for directory in job.mounts):
        table.add(files.preopen("/", "/"))
    return files


def _pair(variable: str) -> tuple[str, str]:
    name, _, value = variable.partition("=")
    return name, value
