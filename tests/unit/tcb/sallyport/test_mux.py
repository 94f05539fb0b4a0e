"""The multiplexer of a VM keep's port: order, credit, turns, and what each end refuses (docs/spec/door.md)."""

from __future__ import annotations

import struct

import pytest

from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.sallyport.mux import (
    CONTROL,
    HEADER,
    MAX_ANSWERS,
    MAX_PAYLOAD,
    MAX_STREAMS,
    MAX_WIDE,
    MAX_WINDOW,
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


class End:
    """One end whose user has queued ``said`` for it, and the bytes that it gives its port."""

    def __init__(self, *, host: bool) -> None:
        self.mux = Mux(host=host)
        self.said: dict[int, bytearray] = {}

    def send(self, stream: int, data: bytes) -> None:
        self.said.setdefault(stream, bytearray()).extend(data)
        self.mux.want(stream)

    def take(self, size: int = 1 << 20) -> bytes:
        out = bytearray(size)
        return bytes(out[: self.mux.fill(memoryview(out), self._fetch)])

    def _fetch(self, stream: int, place: memoryview) -> tuple[int, bool]:
        said = self.said[stream]
        size = min(len(said), len(place))
        place[:size] = said[:size]
        del said[:size]
        return size, bool(said)


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


def pair() -> tuple[End, End]:
    return End(host=True), End(host=False)


def test_a_stream_is_opened_carries_bytes_both_ways_and_ends() -> None:
    host, keep = pair()
    stream = host.mux.open(7)
    host.send(stream, b"question")
    sent = host.take()
    host.mux.close(stream)
    assert hear(keep.mux, sent + host.take()) == [
        ("opened", stream, 7),
        ("arrived", stream, b"question"),
        ("closed", stream, None),
    ]
    keep.send(stream, b"answer")
    sent = keep.take()
    keep.mux.close(stream)
    assert hear(host.mux, sent + keep.take()) == [("arrived", stream, b"answer"), ("closed", stream, None)]
    assert not host.mux.waiting
    assert not keep.mux.waiting


def test_control_overtakes_streams_and_streams_take_turns() -> None:
    host, keep = pair()
    first, second = host.mux.open(0), host.mux.open(0)
    hear(keep.mux, host.take())
    for stream in (first, second, CONTROL):
        host.send(stream, bytes(MAX_PAYLOAD + 1000))
    found = [(it[1], len(it[2])) for it in hear(keep.mux, host.take()) if isinstance(it[2], bytes)]
    assert found == [
        (CONTROL, MAX_PAYLOAD),
        (CONTROL, 1000),
        (first, MAX_PAYLOAD),
        (first, 1000),  # one that goes on for one that begins
        (second, MAX_PAYLOAD),
        (second, 1000),
    ]


def test_streams_that_begin_and_streams_that_go_on_take_turns() -> None:
    host, keep = pair()
    going, short = [host.mux.open(0) for _ in range(2)], [host.mux.open(0) for _ in range(3)]
    for stream in going:
        host.send(stream, bytes(WINDOW))
    before = host.take(3 * (MAX_PAYLOAD + HEADER.size) + 5 * (HEADER.size + 4))
    assert [it[1] for it in hear(keep.mux, before) if it[0] == "arrived"] == [going[0], going[0], going[1]]
    for stream in short:
        host.send(stream, b"x")
    order = [it[1] for it in hear(keep.mux, host.take())]
    assert order == [going[0], short[0], going[1], short[1], going[0], short[2], going[1], going[1]]


def test_a_frame_that_has_no_room_waits_and_control_overtakes_it() -> None:
    host, keep = pair()
    stream = host.mux.open(0)
    host.send(stream, bytes(2 * MAX_PAYLOAD))
    whole = HEADER.size + MAX_PAYLOAD
    sent = host.take(HEADER.size + 4 + 2 * whole - 1)
    assert len(sent) == HEADER.size + 4 + whole
    host.send(CONTROL, b"now")
    order = [it[1] for it in hear(keep.mux, sent + host.take(2 * whole)) if it[0] == "arrived"]
    assert order == [stream, CONTROL, stream]


def test_what_is_urgent_leaves_in_pieces_and_before_data() -> None:
    host, keep = pair()
    streams = [host.mux.open(number) for number in range(3)]
    host.send(streams[0], b"data")
    sent = host.take(20) + host.take(20)
    assert sent == b"".join(opened(stream, number) for number, stream in enumerate(streams))[:40]
    assert [it[0] for it in hear(keep.mux, sent + host.take())] == ["opened"] * 3 + ["arrived"]


def fill_up(sender: End, stream: int, receiver: Mux) -> int:
    """Send until nothing leaves; give how much has."""
    sender.send(stream, bytes(2 * MAX_WINDOW))
    before = len(sender.said[stream])
    while data := sender.take():
        hear(receiver, data)
    sent = before - len(sender.said[stream])
    sender.said[stream].clear()
    return sent


def test_no_more_than_the_window_is_in_flight_until_the_other_end_has_used_it() -> None:
    host, keep = pair()
    stream = host.mux.open(0)
    assert fill_up(host, stream, keep.mux) == WINDOW
    keep.mux.consumed(stream, WINDOW // 2 - 1)
    assert not keep.mux.waiting
    keep.mux.consumed(stream, 1)
    hear(host.mux, keep.take())
    assert fill_up(host, stream, keep.mux) == WINDOW // 2 + MAX_WINDOW - WINDOW


def test_only_some_streams_get_a_wide_window_and_give_their_place_back() -> None:
    host, keep = pair()
    streams = [host.mux.open(0) for _ in range(MAX_WIDE + 1)]
    for stream in streams:
        fill_up(host, stream, keep.mux)
        keep.mux.consumed(stream, WINDOW)
        hear(host.mux, keep.take())
    assert [fill_up(host, stream, keep.mux) for stream in streams] == [MAX_WINDOW] * MAX_WIDE + [WINDOW]
    host.mux.reset(streams[0])
    hear(host.mux, keep.take() if hear(keep.mux, host.take()) else b"")
    keep.mux.consumed(streams[-1], WINDOW)
    hear(host.mux, keep.take())
    assert fill_up(host, streams[-1], keep.mux) == MAX_WINDOW


def test_one_stream_without_a_reader_holds_up_no_other() -> None:
    host, keep = pair()
    stuck, other = host.mux.open(0), host.mux.open(0)
    fill_up(host, stuck, keep.mux)
    host.send(stuck, b"waits")
    host.send(other, b"passes")
    host.send(CONTROL, b"passes too")
    assert [it[2] for it in hear(keep.mux, host.take())] == [b"passes too", b"passes"]
    keep.mux.consumed(stuck, WINDOW // 2)
    hear(host.mux, keep.take())
    assert [it[2] for it in hear(keep.mux, host.take())] == [b"waits"]


def test_what_crosses_a_reset_is_dropped_and_the_stream_is_forgotten() -> None:
    host, keep = pair()
    stream = host.mux.open(0)
    hear(keep.mux, host.take())
    keep.send(stream, b"late")
    crossing = keep.take()
    keep.send(stream, b"never")
    host.mux.reset(stream)
    host.send(stream, b"never")
    assert hear(keep.mux, host.take()) == [("reset", stream, None)]
    assert hear(host.mux, crossing) == []
    assert keep.take() == frame(stream, Kind.RESET)
    assert hear(host.mux, frame(stream, Kind.RESET)) == []
    assert (
        hear(host.mux, frame(stream, Kind.CREDIT, NUMBER.pack(1))) == []
    )  # it may have crossed the end, too
    with pytest.raises(ProtocolViolation):
        hear(host.mux, frame(stream, Kind.DATA, b"x"))


def test_a_reset_after_the_close_is_heard() -> None:
    host, keep = pair()
    stream = host.mux.open(0)
    host.mux.close(stream)
    hear(keep.mux, host.take())
    host.mux.reset(stream)
    assert hear(keep.mux, host.take()) == [("reset", stream, None)]
    assert keep.take() == frame(1, Kind.RESET)


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
    "credit beyond the window": frame(0, Kind.CREDIT, NUMBER.pack(MAX_WINDOW - WINDOW)) * 2,
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
        assert number < MAX_ANSWERS
    keep.fill(memoryview(bytearray(MAX_ANSWERS)), lambda stream, place: (0, False))
    assert not keep.choked
