"""The multiplexer: whatever is said in whatever order and pieces, each stream arrives whole, in order and bounded."""

from __future__ import annotations

import contextlib
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.sallyport.mux import (
    HEADER,
    MAX_PAYLOAD,
    MAX_STREAMS,
    MAX_WINDOW,
    Arrived,
    Closed,
    Kind,
    Mux,
    Opened,
    Reset,
)

PATTERN = bytes(range(251))
NUMBERS = st.integers(0, 7)


class End:
    """One end, the bytes on their way to it, and what its user knows."""

    def __init__(self, *, host: bool) -> None:
        self.mux = Mux(host=host)
        self.coming = bytearray()
        self.said: dict[int, bytearray] = defaultdict(bytearray)
        self.left: dict[int, int] = defaultdict(int)
        self.heard: dict[int, bytearray] = defaultdict(bytearray)
        self.held: dict[int, int] = defaultdict(int)
        self.streams = [0]
        self.ended: set[int] = set()
        self.cut: set[int] = set()
        self.shut: set[int] = set()

    def take(self, size: int) -> bytes:
        out = bytearray(size)
        return bytes(out[: self.mux.fill(memoryview(out), self.fetch)])

    def fetch(self, stream: int, place: memoryview) -> tuple[int, bool]:
        data = self.said[stream][self.left[stream] :][: len(place)]
        place[: len(data)] = data
        self.left[stream] += len(data)
        return len(data), self.left[stream] < len(self.said[stream])

    def receive(self, size: int) -> None:
        data = bytes(self.coming[:size])
        del self.coming[:size]
        for event in self.mux.receive(data):
            match event:
                case Opened(stream=stream):
                    self.streams.append(stream)
                case Arrived(stream=stream, data=part):
                    assert stream not in self.ended | self.cut
                    self.heard[stream] += part
                    self.held[stream] += len(part)
                case Closed(stream=stream):
                    self.ended.add(stream)
                case Reset(stream=stream):
                    self.cut.add(stream)


class Conversation(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ends = (End(host=True), End(host=False))

    @rule()
    def open(self) -> None:
        host = self.ends[0]
        host.streams.append(host.mux.open(0))

    @rule(which=st.integers(0, 1), at=NUMBERS, size=st.integers(1, 1 << 18))
    def send(self, which: int, at: int, size: int) -> None:
        end = self.ends[which]
        stream = end.streams[at % len(end.streams)]
        start = len(end.said[stream])
        if stream in end.shut or start > 1 << 20:
            return
        end.said[stream] += (PATTERN * (size // 251 + 2))[start % 251 :][:size]
        end.mux.want(stream)

    @rule(which=st.integers(0, 1), at=NUMBERS)
    def close(self, which: int, at: int) -> None:
        stream = self.ends[which].streams[at % len(self.ends[which].streams)]
        if stream:
            self.ends[which].shut.add(stream)
            self.ends[which].mux.close(stream)

    @rule(which=st.integers(0, 1), at=NUMBERS)
    def reset(self, which: int, at: int) -> None:
        end = self.ends[which]
        stream = end.streams[at % len(end.streams)]
        if stream:
            end.mux.reset(stream)
            end.cut.add(stream)
            end.shut.add(stream)

    @rule(which=st.integers(0, 1), at=NUMBERS)
    def consume(self, which: int, at: int) -> None:
        end = self.ends[which]
        stream = end.streams[at % len(end.streams)]
        end.mux.consumed(stream, end.held.pop(stream, 0))

    @rule(which=st.integers(0, 1), size=st.integers(1, 1 << 19), pieces=st.integers(1, 1 << 18))
    def carry(self, which: int, size: int, pieces: int) -> None:
        self.ends[1 - which].coming += self.ends[which].take(size)
        self.ends[1 - which].receive(pieces)

    @invariant()
    def each_end_has_heard_what_the_other_said(self) -> None:
        for mine, other in (self.ends, self.ends[::-1]):
            for stream, data in mine.heard.items():
                assert other.said[stream].startswith(data)
                assert mine.held[stream] <= MAX_WINDOW

    def teardown(self) -> None:
        """Everything arrives in the end when everybody reads: nobody waits for anybody for ever."""
        for _ in range(1000):
            moved = False
            for mine, other in (self.ends, self.ends[::-1]):
                other.coming += mine.take(1 << 20)
                moved = moved or bool(other.coming)
                other.receive(len(other.coming))
                for stream in other.streams:
                    other.mux.consumed(stream, other.held.pop(stream, 0))
            if not moved:
                break
        host, keep = self.ends
        assert host.streams == keep.streams
        for mine, other in (self.ends, self.ends[::-1]):
            assert not mine.mux.waiting
            for stream, data in mine.said.items():
                if stream not in mine.cut | other.cut:
                    assert other.heard[stream] == data[: mine.left[stream]]
                    assert stream in mine.shut or mine.left[stream] == len(data)
        assert set(host.mux._streams) == set(keep.mux._streams)


TestConversation = Conversation.TestCase

FRAMES = st.builds(
    lambda stream, kind, flags, zero, payload: HEADER.pack(stream, kind, flags, zero, len(payload)) + payload,
    st.integers(0, 4),
    st.sampled_from([*Kind, 0, 6]),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([b"", b"\0\0\0\1", b"\0\4\0\0", b"x", bytes(MAX_PAYLOAD)]),
)


@given(st.booleans(), st.lists(FRAMES | st.binary(max_size=40), max_size=40))
def test_whatever_comes_it_is_refused_or_bounded(host: bool, said: list[bytes]) -> None:
    mux = Mux(host=host)
    if host:
        mux.open(0)
    held = 0
    with contextlib.suppress(ProtocolViolation):
        for data in said:
            for event in mux.receive(data):
                if isinstance(event, Arrived):
                    held += len(event.data)
    assert len(mux._streams) <= MAX_STREAMS + 1
    assert held <= MAX_WINDOW * 6
    assert len(mux._head) <= HEADER.size + 4
