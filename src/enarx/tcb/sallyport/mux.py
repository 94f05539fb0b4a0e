"""Many streams over one serial port, for both ends (docs/spec/door.md). Bytes in, events out; no I/O.

Stream 0 is the control stream and always there. All others are opened by the host. What a stream may have in flight is
bounded by credit that its receiver gives, so no stream waits for the reader of another. Nothing is queued here: whose
turn it is says so when the port takes something, and then reads its bytes to where they leave from.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from enarx.tcb.errors import ProtocolViolation

CONTROL: Final = 0
WINDOW: Final = 256 << 10
"""Bytes that one direction of a stream may have in flight at first: 64 of them fit into a small guest."""
MAX_WINDOW: Final = 1 << 20
"""What a receiver may raise it to: the less often a sender waits, the less often processes change."""
MAX_WIDE: Final = 16
"""For so many streams at a time this end does."""
MAX_PAYLOAD: Final = 64 << 10
"""More would make other streams wait."""
MAX_ANSWERS: Final = 64 << 10
"""What may wait here for the port before nothing more is read from it."""
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
_OPEN, _DATA, _CREDIT, _CLOSE, _RESET = (int(kind) for kind in Kind)


class Opened(NamedTuple):
    """The host has opened ``stream`` for ``request``, or for a tenant (0)."""

    stream: int
    request: int


class Arrived(NamedTuple):
    """Bytes of ``stream``, good until the next event. Tell ``consumed`` when they have left."""

    stream: int
    data: memoryview


class Closed(NamedTuple):
    """No more will come on ``stream``."""

    stream: int


class Reset(NamedTuple):
    """``stream`` is over in both directions."""

    stream: int


Event = Opened | Arrived | Closed | Reset
"""What has happened at the other end. Named tuples: a record takes ten times as long to make."""
Fetch = Callable[[int, memoryview], tuple[int, bool]]
"""Puts bytes of a stream where they leave from; gives how many, and whether more may follow at once."""


class _Stream:
    """One stream, as this end sees it."""

    __slots__ = ("credit", "deaf", "given", "heard", "said", "used", "wants", "window")

    def __init__(self) -> None:
        self.credit = WINDOW
        """Bytes that we may send."""
        self.wants = False
        """It has something to send: in its turn, or as soon as there is credit."""
        self.given = WINDOW
        """Bytes that the other end may still send."""
        self.window = WINDOW
        """What that may be at most."""
        self.used = 0
        """Bytes that have left this end and are not given back yet."""
        self.said = False
        """Nothing more is sent from here."""
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
        self._wide = 0
        self._urgent = bytearray()
        self._fresh: deque[int] = deque()
        """Streams that have begun to want; control is the first."""
        self._going: deque[int] = deque()
        """Streams that go on."""
        self._overtook = False
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

    def want(self, stream: int) -> None:
        """Have ``fill`` ask for bytes of ``stream`` when its turn comes."""
        found = self._streams.get(stream)
        if found is not None and not found.wants and not found.said:
            found.wants = True
            if found.credit:
                self._line_up(stream, self._fresh)

    def close(self, stream: int) -> None:
        """Send no more; what comes is still heard."""
        found = self._streams.get(stream)
        if found is not None and not found.said:
            self._say(stream, Kind.CLOSE)
            found.said, found.wants = True, False
            self._forget(stream, found)

    def reset(self, stream: int) -> None:
        """Send nothing more, and hear nothing more."""
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
        if found.used < found.window // 2:
            return
        if found.window == WINDOW and self._wide < MAX_WIDE:
            self._wide += 1
            found.window = MAX_WINDOW
            found.used += MAX_WINDOW - WINDOW
        self._say(stream, Kind.CREDIT, _NUMBER.pack(found.used))
        found.given += found.used
        found.used = 0

    @property
    def waiting(self) -> bool:
        """Whether ``fill`` may have something."""
        return bool(self._urgent or self._fresh or self._going)

    @property
    def choked(self) -> bool:
        """Whether so many answers wait for the port that nothing more should be read from it."""
        return len(self._urgent) >= MAX_ANSWERS

    def fill(self, out: memoryview, fetch: Fetch) -> int:
        """Put into ``out`` what the port gets next: what is urgent, then control, then a frame of each in turn.

        Of those that have begun to want and those that go on it takes one each. Ends when there is no room for a
        whole frame, or nothing to say. Gives the number of bytes.
        """
        at = min(len(self._urgent), len(out))
        out[:at] = self._urgent[:at]
        del self._urgent[:at]
        while (self._fresh or self._going) and at + HEADER.size + MAX_PAYLOAD <= len(out):
            stream = self._next()
            found = self._streams.get(stream)
            if found is None or found.said:
                continue
            start = at + HEADER.size
            size, found.wants = fetch(stream, out[start : start + min(found.credit, MAX_PAYLOAD)])
            if size:
                HEADER.pack_into(out, at, stream, Kind.DATA, 0, 0, size)
                found.credit -= size
                at = start + size
            if found.wants and found.credit:
                self._line_up(stream, self._going)
        return at

    # What the other end says.

    def receive(self, data: bytes | bytearray | memoryview) -> Iterator[Event]:
        """Read what came through the port. Raises ``ProtocolViolation``."""
        view, at = memoryview(data), 0
        while at < len(view):
            stream, left = self._payload
            if left:
                part = view[at : at + left]
                at += len(part)
                self._payload = (stream, left - len(part))
                if not self._streams[stream].deaf:
                    yield Arrived(stream, part)
                continue
            missing = self._need - len(self._head)
            self._head += view[at : at + missing]
            at += missing
            if len(self._head) == self._need and (event := self._frame()) is not None:
                yield event

    def _frame(self) -> Event | None:
        """Go on after a header, or after a header with its number."""
        stream, kind, flags, zero, number = HEADER.unpack_from(self._head)
        if flags or zero or kind not in _SIZES or number not in _SIZES[kind]:
            raise ProtocolViolation(f"a frame of kind {kind}, flags {flags}, {zero}, with {number} bytes")
        if kind != _DATA:
            if self._need < HEADER.size + number:
                self._need = HEADER.size + number
                return None
            number = int.from_bytes(self._head[HEADER.size :], "big")
        self._head.clear()
        self._need = HEADER.size
        found = self._streams.get(stream)
        if kind == _OPEN:
            return self._opened(stream, number)
        if found is not None:
            return self._heard(stream, found, kind, number)
        if stream > self._last or kind not in (_CREDIT, _RESET):  # these two may have crossed the end
            raise ProtocolViolation(f"{Kind(kind).name} on stream {stream}, which is not open")
        return None

    def _opened(self, stream: int, request: int) -> Event:
        if self._host or stream != self._last + 1 or len(self._streams) > MAX_STREAMS:
            raise ProtocolViolation(
                f"OPEN of stream {stream} after {self._last}, {len(self._streams) - 1} are open"
            )
        self._last = stream
        self._streams[stream] = _Stream()
        return Opened(stream, request)

    def _heard(self, stream: int, found: _Stream, kind: int, number: int) -> Event | None:
        if kind == _DATA:
            found.given -= number
            if found.heard or found.given < 0:
                raise ProtocolViolation(f"DATA on stream {stream} after its end or beyond its window")
            self._payload = (stream, number)
            return None
        if kind == _CREDIT:
            if found.wants and not found.credit:
                self._line_up(stream, self._going)
            found.credit += number
            if not number or found.credit > MAX_WINDOW:
                raise ProtocolViolation(f"CREDIT of {number} bytes on stream {stream}, beyond its window")
            return None
        if stream == CONTROL or (found.heard and kind == _CLOSE):
            raise ProtocolViolation(f"{Kind(kind).name} on stream {stream}, where it cannot be")
        found.heard = True
        if kind == _RESET and not found.deaf:
            self._cut(stream, found)
        self._forget(stream, found)
        if found.deaf:
            return None
        return Closed(stream) if kind == _CLOSE else Reset(stream)

    # How it is kept.

    def _say(self, stream: int, kind: Kind, payload: bytes = b"") -> None:
        self._urgent += HEADER.pack(stream, kind, 0, 0, len(payload)) + payload

    def _line_up(self, stream: int, line: deque[int]) -> None:
        """Line up; the control stream comes first."""
        if stream == CONTROL:
            self._fresh.appendleft(stream)
        else:
            line.append(stream)

    def _next(self) -> int:
        """Whose turn it is: control's, else of both lines in turn, so that what is short passes what is long."""
        control = self._fresh and self._fresh[0] == CONTROL
        overtakes = self._fresh and (control or not self._going or not self._overtook)
        if not control:
            self._overtook = bool(overtakes)
        return (self._fresh if overtakes else self._going).popleft()

    def _cut(self, stream: int, found: _Stream) -> None:
        """Say that nothing more comes; a stream that has ended already says it only if it goes deaf."""
        if found.deaf or not found.said:
            self._say(stream, Kind.RESET)
        found.said, found.wants = True, False

    def _forget(self, stream: int, found: _Stream) -> None:
        """Forget a stream on which both ends have sent their last."""
        if found.said and found.heard:
            self._wide -= found.window > WINDOW
            del self._streams[stream]
