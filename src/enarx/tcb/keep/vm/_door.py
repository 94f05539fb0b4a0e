"""The first process of a VM keep as the other end of the door (docs/spec/door.md), before the keep's process.

It gives the keep's process what a host gives a process keep: a channel with descriptors beside its items. It sees no
secret: what passes is TLS between tenant and keep.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import signal
import socket
import time
from typing import Final

from enarx.tcb.errors import EnarxError, ProtocolViolation
from enarx.tcb.keep.vm._machine import killed_for_memory
from enarx.tcb.sallyport.carrier import Carrier, PortClosed
from enarx.tcb.sallyport.items import Admit, Connect, Exited, Item, Listen, Opened, Refused, decode, encode
from enarx.tcb.sallyport.mux import MAX_WIDE
from enarx.tcb.sallyport.socket_channel import ChannelClosed, SocketChannel
from enarx.tcb.wire import FrameDecoder, frame
from enarx.tcb.workload import Ending, Outcome

MAX_CONTROL_BYTES: Final = 64 << 10
BACKLOG: Final = 128
SOCKET_BYTES: Final = 208 << 10
"""What is asked for in both directions between here and the keep for streams with a wide window: the kernel's usual
measure, of which it gives twice as much to who asks.
"""
FAREWELL_S: Final = 5.0
"""How long the last bytes may take to leave."""


class Door:
    """Serve ``port`` for the keep's process ``pid`` behind ``channel``.

    That process, and what it will start, runs as before but no longer interrupts this one whenever it is given a
    piece: where they share a processor it takes the pieces together.
    """

    def __init__(self, port: int, channel: socket.socket, pid: int) -> None:
        self._carrier = Carrier(port, host=False, heard=self._heard, opened=self._opened)
        self._channel = SocketChannel(channel)
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._items = FrameDecoder(max_bytes=MAX_CONTROL_BYTES)
        self._door: socket.socket | None = None
        self._asked: dict[int, Listen | Connect] = {}
        self._listeners: dict[int, str | bytes] = {}
        self._connected: dict[int, socket.socket] = {}
        self._last: Exited | None = None
        self._silent = False
        """The keep's process says nothing more."""
        self._ended = False
        with contextlib.suppress(ProcessLookupError):
            os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))

    def serve(self) -> None:
        """Serve until the keep's process has ended and its last words have left, or the host is gone."""
        self._carrier.watch(self._pidfd, select.EPOLLIN, self._process_ended)
        try:
            while not self._ended:
                hears = 0 if self._silent or self._carrier.saying else select.EPOLLIN
                self._carrier.watch(self._channel.fileno(), hears, self._spoken)
                self._carrier.step(None)
            said = select.poll()
            said.register(self._channel.fileno(), select.POLLIN)
            while not self._silent and said.poll(1000 * FAREWELL_S):  # what it said before it ended
                self._spoken(0)
            self._flush()
            last = self._last or Exited(outcome=self._obituary().value())
            self._carrier.say(frame(encode(last)))
            self._flush()
            self._await_host()
        except PortClosed:
            return

    def report(self, error: EnarxError) -> None:
        """Tell the host what it did wrong, if it still listens."""
        outcome = Outcome(ending=Ending.KEEP_LOST, detail=str(error), hint=error.hint)
        with contextlib.suppress(EnarxError, OSError):
            self._carrier.say(frame(encode(Exited(outcome=outcome.value()))))
            self._flush()

    def _flush(self) -> None:
        deadline = time.monotonic() + FAREWELL_S
        while not self._carrier.drained and (left := deadline - time.monotonic()) > 0:
            self._carrier.step(left)

    def _await_host(self) -> None:
        """Let the host take everything and shut the port, so that the end of the machine cuts nothing off."""
        deadline = time.monotonic() + FAREWELL_S
        while (left := deadline - time.monotonic()) > 0:
            self._carrier.step(left)

    # What the keep's process says.

    def _spoken(self, event: int) -> None:
        """Pass on an item of the keep."""
        try:
            item, descriptors = self._channel.receive()
        except (ChannelClosed, OSError):
            self._silent = True
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(item, Exited):
            self._last, self._silent = item, True
            return
        if isinstance(item, Listen | Connect):
            self._asked[item.request] = item
        self._carrier.say(frame(encode(item)))

    def _process_ended(self, event: int) -> None:
        self._carrier.watch(self._pidfd, 0, self._process_ended)
        self._ended = True

    def _obituary(self) -> Outcome:
        """Say why the keep's process ended without a word."""
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        detail = f"the keep ended with status {code} and without a word"
        hint = ""
        if killed_for_memory():
            detail, hint = "the keep's machine ran out of memory", "give it more memory"
        elif code < 0:
            detail = f"the keep was killed by {signal.Signals(-code).name}"
        return Outcome(ending=Ending.KEEP_LOST, detail=detail, hint=hint)

    # What the host says.

    def _heard(self, data: bytes) -> None:
        self._items.feed(data)
        for body in self._items.frames():
            with contextlib.suppress(ChannelClosed):
                self._answered(decode(body))

    def _answered(self, item: Item) -> None:
        """Put the sockets beside the host's answers that a keep expects there."""
        match item:
            case Admit() if self._door is None:
                self._door, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            case Opened(request=request) if request in self._asked:
                inner = self._socket(request, self._asked.pop(request))
            case Refused(request=request) if self._asked.pop(request, None):
                self._channel.send(item)
                return
            case _:
                raise ProtocolViolation(f"host sent {type(item).__name__}, which nobody expects")
        with inner:
            self._channel.send(item, [inner.fileno()])

    def _socket(self, request: int, asked: Listen | Connect) -> socket.socket:
        if isinstance(asked, Connect):
            if request not in self._connected:
                raise ProtocolViolation(
                    f"host says that request {request} is connected, and opened no stream"
                )
            return self._connected.pop(request)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind("")  # a name that nobody has, and that is in no file system
        listener.listen(BACKLOG)
        self._listeners[request] = listener.getsockname()
        return listener

    def _opened(self, stream: int, request: int) -> None:
        """Bring a new stream to who waits for it; without anybody, or without room there, it ends."""
        try:
            self._carrier.carry(stream, self._end_for(request))
        except OSError:
            self._carrier.mux.reset(stream)

    def _end_for(self, request: int) -> socket.socket:
        if request in self._listeners:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.connect(self._listeners[request])
            except OSError:
                sock.close()
                raise
            return sock
        waits = isinstance(self._asked.get(request), Connect) and request not in self._connected
        if not waits and (request or self._door is None):
            raise ConnectionRefusedError
        ours, inner = socket.socketpair()
        if self._carrier.streams < MAX_WIDE:
            for end in (ours, inner):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        if waits:
            self._connected[request] = inner
            return ours
        with inner:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [inner.fileno()]))]
            try:
                assert self._door is not None  # noqa: S101 (the condition above)
                self._door.sendmsg([b"t"], rights, socket.MSG_DONTWAIT)
            except OSError:
                ours.close()
                raise
        return ours
