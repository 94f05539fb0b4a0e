"""The fork server: one warm process that makes keeps by forking.

The server loads the engine, checks it, and runs nothing else; so a child finds everything in memory and nothing
left over. Requests are single bytes with descriptors beside each: the keep's end of its channel, and for a keep that
attests its port to the platform. The answer is the keep's process number in four bytes. What the children share is
what was public before any of them: code. Keys are made after the fork.
"""

from __future__ import annotations

import array
import contextlib
import gc
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

from enarx.tcb.keep.attested import AttestedKeep
from enarx.tcb.keep.boot import Keep
from enarx.tcb.keep.confinement import NO_CHANCE, Resident, become_keep
from enarx.tcb.keep.lockdown import Profile, adopt_orphans, isolate
from enarx.tcb.keep.runner import Runtime
from enarx.tcb.sallyport.socket_channel import SocketChannel

REQUESTS: Final = {b"k": False, b"r": True}
"""Make a keep; make one that refuses to live without its whole sandbox."""
ANSWER: Final = struct.Struct("!i")


def serve(control: socket.socket, runtime: Runtime, *, attested: bool) -> None:
    """Make keeps until the host closes ``control``; then end, and with this process end all keeps.

    They are all of one kind: those that take the host's delivery, or those that attest and take a tenant's.
    """
    adopt_orphans()
    gc.collect()
    gc.freeze()  # a collection in a child would copy the pages of all these objects
    while True:
        message, ancillary, _, _ = control.recvmsg(1, socket.CMSG_LEN(8), socket.MSG_CMSG_CLOEXEC)
        if not message:
            return
        descriptors = array.array("i")
        for _, _, data in ancillary:
            descriptors.frombytes(data)
        if message in REQUESTS and len(descriptors) == 1 + attested:
            pid = _make(descriptors, runtime, required=REQUESTS[message])
        else:
            pid = -1
        for fd in descriptors:
            os.close(fd)
        control.sendall(ANSWER.pack(pid))
        _reap()


def new_keep(descriptors: Sequence[int], runtime: Runtime, *, required: bool) -> Resident:
    """Make a keep on its channel; with a port to a platform, one that attests."""
    channel = SocketChannel(socket.socket(fileno=descriptors[0]))
    if len(descriptors) == 1:
        return Keep(channel, runtime, required=required)
    return AttestedKeep(channel, descriptors[1], runtime, required=required)


def _make(descriptors: Sequence[int], runtime: Runtime, *, required: bool) -> int:
    """Fork a process that isolates itself and forks the keep; adopt the keep and give its number."""
    known, tell = os.pipe()
    adopted, adopt = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            isolated = isolate(Profile.MODULE)
            child = os.fork()
            if child:
                os.write(tell, ANSWER.pack(child))
                os._exit(0)
            os.read(adopted, 1)  # until the server is the parent: the keep dies with the one it has then
            keep = new_keep(descriptors, runtime, required=required)
            become_keep(keep, Profile.MODULE, isolated, warm=True)
        finally:
            os._exit(NO_CHANCE)
    os.close(tell)
    os.close(adopted)
    os.waitpid(middle, 0)
    answer = os.read(known, ANSWER.size)
    with contextlib.suppress(BrokenPipeError):
        os.write(adopt, b"g")
    os.close(known)
    os.close(adopt)
    return ANSWER.unpack(answer)[0] if len(answer) == ANSWER.size else -1


def _reap() -> None:
    """Take note of keeps that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
