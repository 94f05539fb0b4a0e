"""The host's end of a VM keep's door (docs/spec/door.md): streams on one side, on the other what a process keep has.

The agent sees a channel and a door as of any keep; every socket that it hands over becomes a stream here.
"""

from __future__ import annotations

import array
import contextlib
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.sallyport.carrier import Carrier, PortClosed
from enarx.tcb.sallyport.items import (
    Admit,
    Connect,
    Exited,
    Item,
    Listen,
    Opened,
    Ready,
    Reason,
    Refused,
    decode,
    encode,
)
from enarx.tcb.sallyport.mux import MAX_STREAMS
from enarx.tcb.sallyport.socket_channel import ChannelClosed, SocketChannel
from enarx.tcb.wire import FrameDecoder, frame

MAX_CONTROL_BYTES: Final = 64 << 10
FAREWELL_S: Final = 5.0
"""How long tenants may take for the last bytes."""
KEPT_FREE: Final = 16
"""Streams that who connects over the network does not get: the tenant, and what the keep itself asks for, need some."""
REST_S: Final = 0.1
"""How long nobody is accepted after that has failed: without descriptors it would fail again at once."""


class Door:
    """Serve the port ``port`` for the agent behind ``channel``; both are this object's.

    ``ready`` is told once; with ``announce`` the channel is, too.
    """

    def __init__(
        self,
        port: socket.socket,
        channel: socket.socket,
        ready: Callable[[Ready], None],
        *,
        announce: bool = False,
    ) -> None:
        port.setblocking(False)
        self._port = port
        self._carrier = Carrier(port.fileno(), host=True, heard=self._heard, opened=_never)
        self._channel = SocketChannel(channel)
        self._ready = ready
        self._announce = announce
        self._booted = False
        self._items = FrameDecoder(max_bytes=MAX_CONTROL_BYTES)
        self._door: socket.socket | None = None
        self._asked: dict[int, Listen | Connect] = {}
        self._listeners: dict[int, socket.socket] = {}
        self._rests_until = 0.0
        self.last: Exited | None = None
        """The keep's last word."""

    def serve(self) -> None:
        """Serve until the keep has said its last word.

        Raises ``PortClosed``, ``ChannelClosed``, ``ProtocolViolation``.
        """
        while self.last is None:
            free = not self._carrier.saying
            self._carrier.watch(self._channel.fileno(), select.EPOLLIN if free else 0, self._told)
            room = MAX_STREAMS - self._carrier.streams if free else 0
            if self._door is not None:
                self._carrier.watch(self._door.fileno(), select.EPOLLIN if room > 0 else 0, self._visited)
            rests = time.monotonic() < self._rests_until
            accepts = select.EPOLLIN if room > KEPT_FREE and not rests else 0
            for request, listener in self._listeners.items():
                self._carrier.watch(listener.fileno(), accepts, self._acceptor(request, listener))
            self._carrier.step(REST_S if rests else None)
        deadline = time.monotonic() + FAREWELL_S
        with contextlib.suppress(PortClosed):
            while not self._carrier.delivered and (left := deadline - time.monotonic()) > 0:
                self._carrier.step(left)

    def say(self, item: Exited) -> None:
        """Tell the agent how the keep ended."""
        with contextlib.suppress(ChannelClosed, OSError):
            self._channel.send(item)

    def close(self) -> None:
        """Close everything."""
        self._carrier.close()
        for listener in self._listeners.values():
            listener.close()
        if self._door is not None:
            self._door.close()
        self._channel.close()
        self._port.close()

    # What the keep says.

    def _heard(self, data: bytes) -> None:
        self._items.feed(data)
        for body in self._items.frames():
            self._spoken(decode(body))

    def _spoken(self, item: Item) -> None:
        """Pass on what the agent judges; it needs descriptors for none of it."""
        if self.last is not None:
            raise ProtocolViolation(f"keep sent {type(item).__name__} after its last word")
        match item:
            case Ready() if not self._booted:
                self._booted = True
                self._ready(item)
                if not self._announce:
                    return
            case Exited():
                self.last = item
                return
            case Listen() | Connect() if item.request not in self._asked:
                self._asked[item.request] = item
        self._channel.send(item)

    # What the agent says, and who comes.

    def _told(self, event: int) -> None:
        item, descriptors = self._channel.receive()
        sockets = [socket.socket(fileno=fd) for fd in descriptors]
        match item, sockets:
            case Admit(), [door]:
                door.setblocking(False)
                self._door = door
            case Opened(request=request), [sock]:
                item = self._adopt(item, self._asked.pop(request), sock)
            case Refused(request=request), []:
                self._asked.pop(request, None)
            case _:
                raise ProtocolViolation(f"agent sent {type(item).__name__} with {len(sockets)} descriptors")
        self._carrier.say(frame(encode(item)))

    def _adopt(self, item: Opened, asked: Listen | Connect, sock: socket.socket) -> Opened | Refused:
        """Take the socket that was asked for, if the keep has room for it."""
        if isinstance(asked, Listen):
            sock.setblocking(False)
            self._listeners[item.request] = sock
        elif not self._open(item.request, sock):
            detail = f"a keep in a machine has {MAX_STREAMS} connections at most"
            return Refused(request=item.request, reason=Reason.LIMIT, detail=detail)
        return item

    def _acceptor(self, request: int, listener: socket.socket) -> Callable[[int], None]:
        def accept(_event: int) -> None:
            if self._carrier.streams >= MAX_STREAMS - KEPT_FREE:
                return  # others of the same moment have taken the rest
            try:
                self._open(request, listener.accept()[0])
            except OSError:  # who came is gone again, or there is no descriptor for it now
                self._rests_until = time.monotonic() + REST_S

        return accept

    def _visited(self, event: int) -> None:
        """Take a tenant's connection from the agent."""
        if self._door is None:
            return
        message, ancillary, _, _ = self._door.recvmsg(1, socket.CMSG_LEN(4), socket.MSG_CMSG_CLOEXEC)
        if not message:
            raise ChannelClosed("the agent has shut the door")
        for _, _, data in ancillary:
            for fd in array.array("i", data):
                self._open(0, socket.socket(fileno=fd))

    def _open(self, request: int, sock: socket.socket) -> bool:
        """Make a stream of ``sock``; say so: a keep that has all that it may have gets no more."""
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            stream = self._carrier.mux.open(request)
        except ProtocolViolation:
            sock.close()
            return False
        self._carrier.carry(stream, sock)
        return True


def _never(stream: int, request: int) -> None:
    """What the host's end never gets: a keep opens no streams."""


def interrupt(channel: socket.socket) -> None:
    """Have ``serve`` end with ``ChannelClosed``, from any thread; ``channel`` is the agent's end."""
    with contextlib.suppress(OSError):
        channel.shutdown(socket.SHUT_RDWR)
