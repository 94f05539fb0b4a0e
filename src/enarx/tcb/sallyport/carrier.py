"""The runner of one end of a VM keep's port: moves bytes between the port and sockets, for both ends.

One thread, nothing blocks. What waits for a slow socket is bounded by the credit of its stream.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable
from typing import Final

from enarx.tcb.errors import EnarxError
from enarx.tcb.sallyport.mux import CONTROL, MAX_PAYLOAD, Arrived, Closed, Event, Mux, Opened, Reset

READ_BYTES: Final = 256 << 10
"""Taken at once from the port, so that what goes the other way gets its turn."""
WRITE_BYTES: Final = 64 << 10
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class PortClosed(EnarxError):
    """The other end of the port is gone."""


class _Carried:
    """A socket that is a stream."""

    __slots__ = ("box", "last", "mute", "read", "sock", "stream")

    def __init__(self, stream: int, sock: socket.socket) -> None:
        self.stream = stream
        self.sock = sock
        self.box = bytearray()
        """What the socket has not taken yet."""
        self.last = False
        """Nothing will follow what is in the box."""
        self.mute = False
        """The socket takes nothing more; what still comes for it is dropped."""
        self.read = True
        """Whether there is anything left to be read."""


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
        self._starved: set[int] = set()
        """Streams that are not read because there is no room."""
        self._said = bytearray()
        self._out = memoryview(b"")
        self._buffer = bytearray(READ_BYTES)

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
        self._utter()
        hears = 0 if self.mux.choked else _IN
        self.watch(self._port, hears | (_OUT if self._out or self.mux.waiting else 0), self._serve_port)
        for fd, event in self._poll.poll(timeout_s):
            found = self._watched.get(fd)
            if found is not None:
                found[1](event)
        for stream in [stream for stream in self._starved if self.mux.room(stream)]:
            self._starved.discard(stream)
            self._rewatch(self._carried[stream])

    def say(self, data: bytes) -> None:
        """Send on the control stream."""
        self._said += data

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
        pending = self._said or self._out or self.mux.waiting
        return not pending and not any(carried.read for carried in self._carried.values())

    def carry(self, stream: int, sock: socket.socket) -> None:
        """Let ``sock`` be ``stream`` from now on."""
        sock.setblocking(False)
        carried = self._carried[stream] = _Carried(stream, sock)
        self._rewatch(carried)

    def close(self) -> None:
        """Let go of everything but the port."""
        for carried in list(self._carried.values()):
            self._let_go(carried)
        self._poll.close()

    # The port.

    def _serve_port(self, event: int) -> None:
        if event & _OUT:
            self._write()
        if event & ~_OUT:
            self._read()

    def _read(self) -> None:
        view, got = memoryview(self._buffer), 0
        while got < READ_BYTES:
            try:
                more = os.readv(self._port, [view[got:]])
            except BlockingIOError:
                break
            except OSError as error:
                raise PortClosed(f"the port has failed: {os.strerror(error.errno or 0).lower()}") from None
            if not more:
                if not got:
                    raise PortClosed("the other end of the port is closed")
                break
            got += more
        for event in self.mux.receive(view[:got]):
            self._do(event)

    def _write(self) -> None:
        if not self._out:
            self._out = memoryview(self.mux.take(WRITE_BYTES))
        try:
            while self._out:
                self._out = self._out[os.write(self._port, self._out) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise PortClosed(f"the port has failed: {os.strerror(error.errno or 0).lower()}") from None

    def _utter(self) -> None:
        room = self.mux.room(CONTROL) if self._said else 0
        if room:
            self.mux.send(CONTROL, bytes(self._said[:room]))
            del self._said[:room]

    def _do(self, event: Event) -> None:
        match event:
            case Arrived(stream=stream, data=data):
                if stream == CONTROL:
                    self._heard(bytes(data))
                    self.mux.consumed(CONTROL, len(data))
                elif stream in self._carried:
                    self._put(self._carried[stream], data)
            case Opened(stream=stream, request=request):
                self._opened(stream, request)
            case Closed(stream=stream) if stream in self._carried:
                self._carried[stream].last = True
                self._put(self._carried[stream], memoryview(b""))
            case Reset(stream=stream) if stream in self._carried:
                self._let_go(self._carried[stream])

    # The sockets.

    def _put(self, carried: _Carried, data: memoryview) -> None:
        """Hand on what came, or keep it until the socket takes it."""
        if not carried.box and data:
            data = data[self._give(carried, data) :]
        carried.box += data
        self._finish(carried)

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
        if event & _OUT and carried.box:
            taken = self._give(carried, carried.box)
            del carried.box[:taken]
        if event & ~_OUT and carried.read and (room := self.mux.room(carried.stream)):
            try:
                data = carried.sock.recv(min(room, MAX_PAYLOAD))
            except BlockingIOError:
                data = None
            except OSError:
                self.mux.reset(carried.stream)
                self._let_go(carried)
                return
            if data:
                self.mux.send(carried.stream, data)
            elif data is not None:
                carried.read = False
                self.mux.close(carried.stream)
        self._finish(carried)

    def _finish(self, carried: _Carried) -> None:
        """Pass on the end once everything before it has left; forget a socket that has ended in both directions."""
        if carried.last and not carried.box:
            if not carried.read:
                self._let_go(carried)
                return
            with contextlib.suppress(OSError):  # it takes nothing more anyway
                carried.sock.shutdown(socket.SHUT_WR)
        self._rewatch(carried)

    def _rewatch(self, carried: _Carried) -> None:
        events = _OUT if carried.box else 0
        if carried.read:
            if self.mux.room(carried.stream):
                events |= _IN
            else:
                self._starved.add(carried.stream)
        self.watch(carried.sock.fileno(), events, lambda event: self._serve_socket(carried, event))

    def _let_go(self, carried: _Carried) -> None:
        self.watch(carried.sock.fileno(), 0, _nothing)
        self._starved.discard(carried.stream)
        del self._carried[carried.stream]
        carried.sock.close()


def _nothing(event: int) -> None:
    """What is called for a descriptor that is left alone."""
