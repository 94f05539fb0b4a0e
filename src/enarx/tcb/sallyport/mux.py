"""Many streams over one serial port, for both ends (docs/spec/door.md). Bytes in, events out; no I/O.

Stream 0 is the control stream and always there. All others are opened by the host. What a stream may have in flight is
bounded by credit that its receiver gives, so no stream waits for the reader of another.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.record import record

CONTROL: Final = 0
WINDOW: Final = 256 << 10
"""Bytes that one direction of a stream may have in flight: 64 of them fit into a small guest."""
MAX_PAYLOAD: Final = 64 << 10
"""More would make other streams wait."""
MAX_QUEUE: Final = 64 << 10
"""What one stream may have queued here: enough for one frame while the other streams have their turns."""
MAX_STREAMS: Final = 256
MAX_STREAM: Final = (1 << 32) - 1
HEADER: Final = struct.Struct("!IBBHI")
_NUMBER: Final = struct.Struct("!I")


class Kind(IntEnum):
    """What a frame is."""

    OPEN = 1
    DATA = 2
    CREDIT = 3
    CLOSE = 4
    RESET = 5


_SIZES: Final = {
    Kind.OPEN: range(_NUMBER.size, _NUMBER.size + 1),
    Kind.DATA: range(1, MAX_PAYLOAD + 1),
    Kind.CREDIT: range(_NUMBER.size, _NUMBER.size + 1),
    Kind.CLOSE: range(1),
    Kind.RESET: range(1),
}


class Event:
    """What has happened at the other end."""

    __slots__ = ()


@record
class Opened(Event):
    """The host has opened ``stream`` for ``request``, or for a tenant (0)."""

    stream: int
    request: int


@record
class Arrived(Event):
    """Bytes of ``stream``, good until the next event. Tell ``consumed`` when they have left."""

    stream: int
    data: memoryview


@record
class Closed(Event):
    """No more will come on ``stream``."""

    stream: int


@record
class Reset(Event):
    """``stream`` is over in both directions."""

    stream: int


class _Stream:
    """One stream, as this end sees it."""

    __slots__ = ("credit", "deaf", "given", "heard", "queue", "queued", "said", "used")

    def __init__(self) -> None:
        self.credit = WINDOW
        """Bytes that we may send, those in the queue among them."""
        self.queue: deque[bytes] = deque()
        """What waits for its turn; an empty entry is the end."""
        self.queued = 0
        self.given = WINDOW
        """Bytes that the other end may still send."""
        self.used = 0
        """Bytes that have left this end and are not given back yet."""
        self.said = False
        """Nothing more is queued here."""
        self.heard = False
        """The other end has sent its last."""
        self.deaf = False
        """It was reset here: what still comes is dropped."""


class Mux:
    """One end of a port. After ``ProtocolViolation`` the port must be shut: nothing that follows has a meaning."""

    def __init__(self, *, host: bool) -> None:
        self._host = host
        self._streams = {CONTROL: _Stream()}
        self._last = 0
        self._urgent = bytearray()
        self._turns: deque[int] = deque()
        self._head = bytearray()
        self._need = HEADER.size
        self._payload = (CONTROL, 0)
        """The stream whose payload is coming, and how many bytes of it are still to come."""

    # What this end says.

    def open(self, request: int) -> int:
        """Open a stream for ``request``, or for a tenant (0), and give its number; only the host may."""
        if not self._host or len(self._streams) > MAX_STREAMS or self._last == MAX_STREAM:
            raise ProtocolViolation(f"no stream can be opened, {len(self._streams) - 1} are open")
        self._last += 1
        self._streams[self._last] = _Stream()
        self._say(self._last, Kind.OPEN, _NUMBER.pack(request))
        return self._last

    def room(self, stream: int) -> int:
        """Give how many bytes ``send`` takes now."""
        found = self._streams.get(stream)
        return 0 if found is None or found.said else min(found.credit, MAX_QUEUE) - found.queued

    def send(self, stream: int, data: bytes) -> None:
        """Queue at most ``room`` bytes."""
        if len(data) > self.room(stream):
            raise ProtocolViolation(f"{len(data)} bytes for stream {stream}, which has no room for them")
        if data:
            self._queue(stream, self._streams[stream], data)

    def close(self, stream: int) -> None:
        """Send no more than what is queued; what comes is still heard."""
        found = self._streams.get(stream)
        if found is not None and not found.said:
            found.said = True
            self._queue(stream, found, b"")

    def reset(self, stream: int) -> None:
        """Send nothing more, not even what is queued, and hear nothing more."""
        found = self._streams.get(stream)
        if found is not None and not found.deaf:
            found.deaf = True
            self._cut(stream, found)
            self._forget(stream, found)

    def consumed(self, stream: int, size: int) -> None:
        """Let the other end send again as much as has left this end."""
        found = self._streams.get(stream)
        if found is None or found.heard or found.deaf:
            return
        found.used += size
        if found.used >= WINDOW // 2:
            self._say(stream, Kind.CREDIT, _NUMBER.pack(found.used))
            found.given += found.used
            found.used = 0

    @property
    def waiting(self) -> bool:
        """Whether ``take`` gives something."""
        return bool(self._urgent or self._turns)

    @property
    def choked(self) -> bool:
        """Whether so many answers wait for the port that nothing more should be read from it."""
        return len(self._urgent) >= MAX_QUEUE

    def take(self, size: int) -> bytearray:
        """Give ``size`` bytes for the port, or some more: what is urgent, then control, then all in turn."""
        out, self._urgent = self._urgent, bytearray()
        while self._turns and len(out) < size:
            stream = self._turns.popleft()
            found = self._streams.get(stream)
            if found is None or not found.queue:
                continue  # it was reset
            data = found.queue.popleft()
            if found.queue:
                self._turn(stream)
            out += HEADER.pack(stream, Kind.DATA if data else Kind.CLOSE, 0, 0, len(data))
            out += data
            found.queued -= len(data)
            found.credit -= len(data)
            self._forget(stream, found)
        return out

    # What the other end says.

    def receive(self, data: bytes | bytearray | memoryview) -> Iterator[Event]:
        """Read what came through the port. Raises ``ProtocolViolation``."""
        view = memoryview(data)
        while view:
            stream, left = self._payload
            if left:
                part, view = view[:left], view[left:]
                self._payload = (stream, left - len(part))
                if not self._streams[stream].deaf:
                    yield Arrived(stream=stream, data=part)
                continue
            missing = self._need - len(self._head)
            self._head += view[:missing]
            view = view[missing:]
            if len(self._head) == self._need:
                yield from self._frame()

    def _frame(self) -> Iterator[Event]:
        """Go on after a header, or after a header with its number."""
        stream, kind, flags, zero, size = HEADER.unpack_from(self._head)
        if flags or zero or kind not in _SIZES or size not in _SIZES[kind]:
            raise ProtocolViolation(f"a frame of kind {kind}, flags {flags}, {zero}, with {size} bytes")
        if kind != Kind.DATA and self._need < HEADER.size + size:
            self._need = HEADER.size + size
            return
        number = int.from_bytes(self._head[HEADER.size :], "big")
        self._head.clear()
        self._need = HEADER.size
        if kind == Kind.OPEN:
            yield self._opened(stream, number)
        elif stream in self._streams:
            yield from self._heard(stream, self._streams[stream], kind, size if kind == Kind.DATA else number)
        elif stream > self._last or kind not in (
            Kind.CREDIT,
            Kind.RESET,
        ):  # these two may have crossed the end
            raise ProtocolViolation(f"{Kind(kind).name} on stream {stream}, which is not open")

    def _opened(self, stream: int, request: int) -> Event:
        if self._host or stream != self._last + 1 or len(self._streams) > MAX_STREAMS:
            raise ProtocolViolation(
                f"OPEN of stream {stream} after {self._last}, {len(self._streams) - 1} are open"
            )
        self._last = stream
        self._streams[stream] = _Stream()
        return Opened(stream=stream, request=request)

    def _heard(self, stream: int, found: _Stream, kind: int, number: int) -> Iterator[Event]:
        if kind == Kind.CREDIT:
            found.credit += number
            if not number or found.credit > WINDOW:
                raise ProtocolViolation(f"CREDIT of {number} bytes on stream {stream}, beyond its window")
        elif kind == Kind.DATA:
            found.given -= number
            if found.heard or found.given < 0:
                raise ProtocolViolation(f"DATA on stream {stream} after its end or beyond its window")
            self._payload = (stream, number)
        elif stream == CONTROL or (found.heard and kind == Kind.CLOSE):
            raise ProtocolViolation(f"{Kind(kind).name} on stream {stream}, where it cannot be")
        else:
            found.heard = True
            if kind == Kind.RESET and not found.deaf:
                self._cut(stream, found)
            self._forget(stream, found)
            if not found.deaf:
                yield Closed(stream=stream) if kind == Kind.CLOSE else Reset(stream=stream)

    # How it is kept.

    def _say(self, stream: int, kind: Kind, payload: bytes = b"") -> None:
        self._urgent += HEADER.pack(stream, kind, 0, 0, len(payload)) + payload

    def _queue(self, stream: int, found: _Stream, data: bytes) -> None:
        if not found.queue:
            self._turn(stream)
        found.queue.append(data)
        found.queued += len(data)

    def _turn(self, stream: int) -> None:
        """Line up; the control stream comes first."""
        if stream == CONTROL:
            self._turns.appendleft(stream)
        else:
            self._turns.append(stream)

    def _cut(self, stream: int, found: _Stream) -> None:
        """Say that nothing more comes; a stream whose last frame has left needs that only if it goes deaf."""
        if found.deaf or not found.said or found.queue:
            self._say(stream, Kind.RESET)
        found.queue.clear()
        found.queued = 0
        found.said = True

    def _forget(self, stream: int, found: _Stream) -> None:
        """Forget a stream on which both ends have sent their last."""
        if found.said and found.heard and not found.queue:
            del self._streams[stream]
