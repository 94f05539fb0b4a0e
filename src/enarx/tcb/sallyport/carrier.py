"""The runner of one end of a VM keep's port: moves bytes between the port and sockets, for both ends.

One thread, nothing blocks. What waits for a slow socket is bounded by the credit of its stream. Bytes are read to
where they leave from: a socket's into a frame, a frame's out of what the port gave.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from enarx.tcb.errors import EnarxError
from enarx.tcb.sallyport.mux import (
    CONTROL,
    HEADER,
    MAX_PAYLOAD,
    Arrived,
    Closed,
    Event,
    Mux,
    Opened,
    Reset,
)

READ_BYTES: Final = 256 << 10
"""Taken at once from the port, so that what goes the other way gets its turn."""
PORT_READ: Final = 4 << 10
"""What the guest's driver has in one buffer. It fills as many as it is given in one call, if they are of that size."""
PORT_WRITE: Final = 32 << 10
"""What the guest's driver takes of one buffer; it takes more than one in one call, too."""
WRITE_BYTES: Final = 2 * (HEADER.size + MAX_PAYLOAD)
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_STREAM = select.EPOLLET | select.EPOLLRDHUP | _IN
"""Sockets tell once of what has come: whose turn has not come is not asked again and again."""


class PortClosed(EnarxError):
    """The other end of the port is gone."""


class _Carried:
    """A socket that is a stream."""

    __slots__ = ("box", "call", "hung", "last", "mute", "read", "sock", "stream")

    def __init__(self, stream: int, sock: socket.socket, serve: Callable[[_Carried, int], None]) -> None:
        self.stream = stream
        self.sock = sock
        self.call = partial(serve, self)
        self.box = bytearray()
        """What the socket has not taken yet."""
        self.last = False
        """Nothing will follow what is in the box."""
        self.mute = False
        """The socket takes nothing more; what still comes for it is dropped."""
        self.read = True
        """Whether there is anything left to be read."""
        self.hung = False
        """Its end has been told of, and will not be told again."""


class Carrier:
    """Serve ``port``, a descriptor that does not block.

    ``heard`` gets the bytes of the control stream, ``opened`` each new stream with its request: it calls ``carry``,
    or resets the stream. What they raise ends the ``step``.
    """

    def __init__(
        self, port: int, *, host: bool, heard: Callable[[bytes], None], opened: Callable[[int, int], None]
    ) -> None:
        self.mux = Mux(host=host)
        self._port = port
        self._heard = heard
        self._opened = opened
        self._poll = select.epoll()
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._carried: dict[int, _Carried] = {}
        self._said = bytearray()
        self._in = memoryview(bytearray(READ_BYTES))
        self._places = [self._in[at : at + PORT_READ] for at in range(0, READ_BYTES, PORT_READ)]
        self._out = memoryview(bytearray(WRITE_BYTES))
        self._left = self._out[:0]
        """What the port has not taken yet."""

    def watch(self, fd: int, events: int, call: Callable[[int], None]) -> None:
        """Have ``call`` called with the events of ``fd``; with none of them it is left alone from now on."""
        before = self._watched.get(fd)
        if before is None and events:
            self._poll.register(fd, events)
        elif before is not None and not events:
            self._poll.unregister(fd)
            del self._watched[fd]
        elif before is not None and before[0] != events:
            self._poll.modify(fd, events)
        if events:
            self._watched[fd] = (events, call)

    def step(self, timeout_s: float | None) -> None:
        """Wait until something can be done, and do it. Raises ``PortClosed``, ``ProtocolViolation``."""
        hears = 0 if self.mux.choked else _IN
        self.watch(self._port, hears | (_OUT if self._left else 0), self._serve_port)
        at_once = self.mux.waiting and not self._left
        for fd, event in self._poll.poll(0 if at_once else timeout_s):
            found = self._watched.get(fd)
            if found is not None:
                found[1](event)
        self._write()

    def say(self, data: bytes) -> None:
        """Send on the control stream."""
        self._said += data
        self.mux.want(CONTROL)

    @property
    def saying(self) -> bool:
        """Whether there is something said that has not left; who says more makes it grow."""
        return bool(self._said)

    @property
    def streams(self) -> int:
        """How many sockets are carried."""
        return len(self._carried)

    @property
    def delivered(self) -> bool:
        """Whether the sockets have taken all that came for them."""
        return not any(carried.box for carried in self._carried.values())

    @property
    def drained(self) -> bool:
        """Whether all sockets have ended, and everything has left through the port."""
        pending = self._said or self._left or self.mux.waiting
        return not pending and not any(carried.read for carried in self._carried.values())

    def carry(self, stream: int, sock: socket.socket) -> None:
        """Let ``sock`` be ``stream`` from now on."""
        sock.setblocking(False)
        carried = _Carried(stream, sock, self._serve_socket)
        self.watch(sock.fileno(), _STREAM, carried.call)
        self._carried[stream] = carried

    def close(self) -> None:
        """Let go of everything but the port."""
        for carried in list(self._carried.values()):
            self._let_go(carried)
        self._poll.close()

    # The port.

    def _serve_port(self, event: int) -> None:
        if event & ~_OUT:
            self._read()

    def _read(self) -> None:
        try:
            got = os.readv(self._port, self._places)
        except BlockingIOError:
            return
        except OSError as error:
            raise _failed(error) from None
        if not got:
            raise PortClosed("the other end of the port is closed")
        for event in self.mux.receive(self._in[:got]):
            self._do(event)

    def _write(self) -> None:
        if not self._left and self.mux.waiting:
            self._left = self._out[: self.mux.fill(self._out, self._fetch)]
        if not self._left:
            return
        pieces = [self._left[at : at + PORT_WRITE] for at in range(0, len(self._left), PORT_WRITE)]
        try:
            self._left = self._left[os.writev(self._port, pieces) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise _failed(error) from None

    def _do(self, event: Event) -> None:
        match event:
            case Arrived(stream, data):
                if stream == CONTROL:
                    self._heard(bytes(data))
                    self.mux.consumed(CONTROL, len(data))
                elif stream in self._carried:
                    self._put(self._carried[stream], data)
            case Opened(stream, request):
                self._opened(stream, request)
            case Closed(stream) if stream in self._carried:
                carried = self._carried[stream]
                carried.last = True
                self._finish(carried)
            case Reset(stream) if stream in self._carried:
                self._let_go(self._carried[stream])

    # The sockets.

    def _put(self, carried: _Carried, data: memoryview) -> None:
        """Hand on what came, or keep it until the socket takes it."""
        if not carried.box:
            data = data[self._give(carried, data) :]
            if not data:
                return
            self.watch(carried.sock.fileno(), _STREAM | _OUT, carried.call)
        carried.box += data

    def _give(self, carried: _Carried, data: memoryview | bytearray) -> int:
        """Give the socket what it takes; one that takes nothing more may still have something to say."""
        taken = len(data)
        if not carried.mute:
            try:
                taken = carried.sock.send(data)
            except BlockingIOError:
                return 0
            except OSError:
                carried.mute = True
        self.mux.consumed(carried.stream, taken)
        return taken

    def _serve_socket(self, carried: _Carried, event: int) -> None:
        if event & ~_OUT and carried.read:
            carried.hung = carried.hung or bool(event & ~(_OUT | _IN))
            self.mux.want(carried.stream)
        if event & ~_IN and carried.box:
            del carried.box[: self._give(carried, carried.box)]
            if not carried.box:
                self.watch(carried.sock.fileno(), _STREAM, carried.call)
                self._finish(carried)

    def _fetch(self, stream: int, place: memoryview) -> tuple[int, bool]:
        """Read what leaves next: whether more may follow at once is known once a socket gives less than it could."""
        if stream == CONTROL:
            size = min(len(place), len(self._said))
            place[:size] = self._said[:size]
            del self._said[:size]
            return size, bool(self._said)
        carried = self._carried.get(stream)
        if carried is None or not carried.read:
            return 0, False
        try:
            size = carried.sock.recv_into(place)
        except BlockingIOError:
            return 0, False
        except OSError:
            self.mux.reset(stream)
            self._let_go(carried)
            return 0, False
        if not size:
            carried.read = False
            self.mux.close(stream)
            self._finish(carried)
        return size, size == len(place) or bool(size and carried.hung)

    def _finish(self, carried: _Carried) -> None:
        """Pass on the end once everything before it has left; forget a socket that has ended in both directions."""
        if not carried.last or carried.box:
            return
        if not carried.read:
            self._let_go(carried)
            return
        with contextlib.suppress(OSError):  # it takes nothing more anyway
            carried.sock.shutdown(socket.SHUT_WR)

    def _let_go(self, carried: _Carried) -> None:
        self.watch(carried.sock.fileno(), 0, _nothing)
        del self._carried[carried.stream]
        carried.sock.close()


def _failed(error: OSError) -> PortClosed:
    return PortClosed(f"the port has failed: {os.strerror(error.errno or 0).lower()}")


def _nothing(event: int) -> None:
    """What is called for a descriptor that is left alone."""
