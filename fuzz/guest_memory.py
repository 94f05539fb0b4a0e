"""Fuzz target: a guest that calls whatever it likes with whatever numbers it likes."""

from __future__ import annotations

import ctypes
import struct

from enarx.tcb.keep.wasi._abi import WasiError
from enarx.tcb.keep.wasi._memory import GuestMemory
from enarx.tcb.keep.wasi._poll import Poll
from enarx.tcb.keep.wasi._preview1 import SIGNATURES, GuestExit, Preview1
from enarx.tcb.keep.world import lay_out
from enarx.tcb.workload import Directory, Entry, EntryKind, Job, Limits, Tree, running_config

SIZE = 1 << 16
CONFIG = b'[[files]]\nkind = "null"\n'
TREE = Tree(
    (
        Entry(path="file", kind=EntryKind.FILE, data=b"content"),
        Entry(path="folder", kind=EntryKind.DIRECTORY),
        Entry(path="link", kind=EntryKind.SYMLINK, data=b"folder/../file"),
    )
)
JOB = Job(
    module=b"",
    config=CONFIG,
    arguments=["a"],
    directories=[Directory(name="/", tree=TREE), Directory(name="ro", tree=TREE, writable=False)],
    limits=Limits(files=64, storage_bytes=1 << 20, descriptors=32),
)
CALLS = tuple(SIGNATURES)


def one(data: bytes) -> None:
    """Take the first bytes as the guest's memory, and the rest as calls: a function and its arguments each."""
    backing = ctypes.create_string_buffer(SIZE)
    filled = data[: len(data) // 2]
    ctypes.memmove(backing, filled, min(len(filled), SIZE))
    memory = GuestMemory()
    memory.attach(lambda: (ctypes.addressof(backing), SIZE))
    guest = Preview1(memory)
    world = lay_out(JOB, running_config(JOB), (0, 1, 2), ())
    guest.set_up(arguments=world.arguments, environment=world.environment, table=world.table)
    calls = data[len(data) // 2 :]
    at = 0
    while at < len(calls):
        name = CALLS[calls[at] % len(CALLS)]
        at += 1
        arguments = []
        for letter in SIGNATURES[name]:
            width = 8 if letter == "I" else 4
            arguments.append(int.from_bytes(calls[at : at + width], "little"))
            at += width
        call(guest, memory, name, arguments)
    assert world.files.bytes <= JOB.limits.storage_bytes
    assert world.files.nodes <= JOB.limits.files


def call(guest: Preview1, memory: GuestMemory, name: str, arguments: list[int]) -> None:
    """Make one call as the engine would; a wait is read but not waited for."""
    try:
        if name == "poll_oneoff":
            Poll(memory, arguments[0], arguments[2], guest.table)
        else:
            getattr(guest, name)(*arguments)
    except (WasiError, GuestExit, OSError):
        return  # an errno for the guest, or its end
    except struct.error as error:
        raise AssertionError(f"{name} writes a number that does not fit") from error
