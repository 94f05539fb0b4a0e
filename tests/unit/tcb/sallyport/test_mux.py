"""The multiplexer of a VM keep's port: order, credit, turns, and what each end refuses (docs/spec/door.md)."""

from __future__ import annotations

import struct

import pytest

from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.sallyport.mux import (
    CONTROL,
    HEADER,
    MAX_PAYLOAD,
    MAX_QUEUE,
    MAX_STREAMS,
    WINDOW,
    Arrived,
    Closed,
    Event,
    Kind,
    Mux,
    Opened,
    Reset,
)

NUMBER = struct.Struct("!I")


def frame(stream: int, kind: int, payload: bytes = b"", *, flags: int = 0, zero: int = 0) -> bytes:
    return HEADER.pack(stream, kind, flags, zero, len(payload)) + payload


def opened(stream: int, request: int = 0) -> bytes:
    return frame(stream, Kind.OPEN, NUMBER.pack(request))


def hear(mux: Mux, data: bytes | bytearray) -> list[tuple[str, int, bytes | int | None]]:
    """Take in ``data`` and give the events by name, so that they outlive their buffer."""
    return [_told(event) for event in mux.receive(data)]


def _told(event: Event) -> tuple[str, int, bytes | int | None]:
    match event:
        case Opened(stream=stream, request=request):
            return "opened", stream, request
        case Arrived(stream=stream, data=data):
            return "arrived", stream, bytes(data)
        case Closed(stream=stream):
            return "closed", stream, None
        case Reset(stream=stream):
            return "reset", stream, None
    raise AssertionError(event)


def pair() -> tuple[Mux, Mux]:
    return Mux(host=True), Mux(host=False)


def test_a_stream_is_opened_carries_bytes_both_ways_and_ends() -> None:
    host, keep = pair()
    stream = host.open(7)
    host.send(stream, b"question")
    host.close(stream)
    assert hear(keep, host.take(1 << 20)) == [
        ("opened", stream, 7),
        ("arrived", stream, b"question"),
        ("closed", stream, None),
    ]
    keep.send(stream, b"answer")
    keep.close(stream)
    assert hear(host, keep.take(1 << 20)) == [("arrived", stream, b"answer"), ("closed", stream, None)]
    assert not host.waiting
    assert not keep.waiting


def test_control_overtakes_streams_and_streams_take_turns() -> None:
    host, keep = pair()
    first, second = host.open(0), host.open(0)
    hear(keep, host.take(1 << 20))
    for _ in range(2):
        host.send(first, b"1" * 1000)
        host.send(second, b"2" * 1000)
    host.send(CONTROL, b"c")
    order = [it[1] for it in hear(keep, host.take(1 << 20))]
    assert order == [CONTROL, first, second, first, second]


def test_no_more_than_the_window_is_in_flight_until_the_other_end_has_used_it() -> None:
    host, keep = pair()
    stream = host.open(0)
    hear(keep, host.take(1 << 20))
    sent = 0
    while room := host.room(stream):
        host.send(stream, bytes(min(room, MAX_PAYLOAD)))
        sent += min(room, MAX_PAYLOAD)
        hear(keep, host.take(1 << 20))
    assert sent == WINDOW
    keep.consumed(stream, WINDOW // 2 - 1)
    assert not keep.waiting
    keep.consumed(stream, 1)
    hear(host, keep.take(1 << 20))
    assert host.room(stream) == min(WINDOW // 2, MAX_QUEUE)


def test_one_stream_without_a_reader_holds_up_no_other() -> None:
    host, keep = pair()
    stuck, other = host.open(0), host.open(0)
    while room := host.room(stuck):
        host.send(stuck, bytes(room))
        hear(keep, host.take(1 << 20))
    host.send(other, b"passes")
    host.send(CONTROL, b"passes too")
    assert [it[2] for it in hear(keep, host.take(1 << 20))] == [b"passes too", b"passes"]


def test_what_crosses_a_reset_is_dropped_and_the_stream_is_forgotten() -> None:
    host, keep = pair()
    stream = host.open(0)
    hear(keep, host.take(1 << 20))
    keep.send(stream, b"late")
    keep.consumed(stream, 0)
    host.reset(stream)
    assert host.room(stream) == 0
    crossing = keep.take(1 << 20)
    assert hear(keep, host.take(1 << 20)) == [("reset", stream, None)]
    assert hear(host, crossing) == []
    assert hear(host, keep.take(1 << 20)) == []
    assert hear(host, frame(stream, Kind.CREDIT, NUMBER.pack(1))) == []  # it may have crossed the end, too
    with pytest.raises(ProtocolViolation):
        hear(host, frame(stream, Kind.DATA, b"x"))


def test_a_reset_after_the_close_is_heard() -> None:
    host, keep = pair()
    stream = host.open(0)
    host.close(stream)
    host.take(1 << 20)
    host.reset(stream)
    hear(keep, opened(1) + frame(1, Kind.CLOSE))
    assert hear(keep, host.take(1 << 20)) == [("reset", stream, None)]
    assert keep.take(100) == frame(1, Kind.RESET)


def test_a_frame_may_come_in_any_pieces() -> None:
    keep = Mux(host=False)
    data = opened(1, 5) + frame(1, Kind.DATA, b"abc") + frame(1, Kind.CLOSE)
    found = [event for at in range(len(data)) for event in hear(keep, data[at : at + 1])]
    assert found == [
        ("opened", 1, 5),
        ("arrived", 1, b"a"),
        ("arrived", 1, b"b"),
        ("arrived", 1, b"c"),
        ("closed", 1, None),
    ]


HOSTILE_TO_BOTH = {
    "kind 0": frame(0, 0),
    "kind 6": frame(0, 6),
    "flags": frame(0, Kind.DATA, b"x", flags=1),
    "zero": frame(0, Kind.DATA, b"x", zero=1),
    "data without bytes": frame(0, Kind.DATA),
    "data beyond a frame": HEADER.pack(0, Kind.DATA, 0, 0, MAX_PAYLOAD + 1),
    "data beyond memory": HEADER.pack(0, Kind.DATA, 0, 0, (1 << 32) - 1),
    "data beyond the window": frame(0, Kind.DATA, bytes(MAX_PAYLOAD)) * 4 + frame(0, Kind.DATA, b"x"),
    "data of an unknown stream": frame(2, Kind.DATA, b"x"),
    "credit of an unknown stream": frame(2, Kind.CREDIT, NUMBER.pack(1)),
    "reset of an unknown stream": frame(2, Kind.RESET),
    "credit of nothing": frame(0, Kind.CREDIT, NUMBER.pack(0)),
    "credit beyond the window": frame(0, Kind.CREDIT, NUMBER.pack(1)),
    "credit of another size": frame(0, Kind.CREDIT, b"\0\0\1"),
    "close of control": frame(0, Kind.CLOSE),
    "reset of control": frame(0, Kind.RESET),
    "close with bytes": frame(0, Kind.CLOSE, b"x"),
}


@pytest.mark.parametrize("host", [True, False])
@pytest.mark.parametrize("name", HOSTILE_TO_BOTH)
def test_hostile_frames_are_refused_at_both_ends(name: str, host: bool) -> None:
    mux = Mux(host=host)
    with pytest.raises(ProtocolViolation):
        hear(mux, HOSTILE_TO_BOTH[name])


HOSTILE_TO_A_KEEP = {
    "a stream out of order": opened(2),
    "a stream twice": opened(1) + opened(1),
    "control again": opened(0),
    "an old number": opened(1) + opened(2) + frame(1, Kind.RESET) + opened(1),
    "too many streams": b"".join(opened(number) for number in range(1, MAX_STREAMS + 2)),
    "data after the end": opened(1) + frame(1, Kind.CLOSE) + frame(1, Kind.DATA, b"x"),
    "two ends": opened(1) + frame(1, Kind.CLOSE) * 2,
    "data after a reset": opened(1) + frame(1, Kind.RESET) + frame(1, Kind.DATA, b"x"),
    "open with another size": frame(1, Kind.OPEN, b"\0"),
}


@pytest.mark.parametrize("name", HOSTILE_TO_A_KEEP)
def test_a_keep_refuses_what_its_host_may_not_say(name: str) -> None:
    with pytest.raises(ProtocolViolation):
        hear(Mux(host=False), HOSTILE_TO_A_KEEP[name])


def test_a_keep_opens_no_stream() -> None:
    with pytest.raises(ProtocolViolation, match="OPEN"):
        hear(Mux(host=True), opened(1))
    with pytest.raises(ProtocolViolation, match="no stream can be opened"):
        Mux(host=False).open(0)


def test_a_host_that_resets_for_ever_and_hears_nothing_stops_being_heard() -> None:
    keep = Mux(host=False)
    number = 0
    while not keep.choked:
        number += 1
        hear(keep, opened(number) + frame(number, Kind.RESET))
        assert number < MAX_QUEUE
    keep.take(0)
    assert not keep.choked


def test_more_than_the_room_is_not_taken() -> None:
    host, _ = pair()
    with pytest.raises(ProtocolViolation, match="no room"):
        host.send(CONTROL, bytes(MAX_QUEUE + 1))
    assert host.room(99) == 0
