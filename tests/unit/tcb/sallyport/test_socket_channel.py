"""The channel: frames, raw bytes and descriptors, and a peer that sends them wrongly (attacks A49 and A50)."""

from __future__ import annotations

import array
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from enarx.tcb.errors import EnarxError, Malformed, ProtocolViolation
from enarx.tcb.sallyport import limits
from enarx.tcb.sallyport.items import Changed, Compiled, Opened, Ready, encode
from enarx.tcb.sallyport.socket_channel import ChannelClosed, SocketChannel


@pytest.fixture
def pair() -> Iterator[tuple[SocketChannel, socket.socket]]:
    """Our end as a channel, the peer's as a bare socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield SocketChannel(ours), theirs


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def send_with(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_items_and_raw_bytes_alternate(pair: tuple[SocketChannel, socket.socket]) -> None:
    channel, theirs = pair
    peer = SocketChannel(theirs)
    blob = os.urandom(3 << 20)
    item = Changed(header=["data"], size=len(blob))

    def send() -> None:
        peer.send(item)
        peer.send_blob([blob[:1], memoryview(blob)[1:100], bytearray(blob[100:])])
        peer.send(Ready(version="after"))

    sender = threading.Thread(target=send)
    sender.start()
    assert channel.receive() == (item, [])
    assert channel.receive_blob(item.size, limits.MAX_BLOB_BYTES) == blob
    assert channel.receive() == (Ready(version="after"), [])
    sender.join()


def test_a_frame_may_arrive_byte_by_byte(pair: tuple[SocketChannel, socket.socket]) -> None:
    channel, theirs = pair
    data = frame(encode(Opened(request=1, port=80)))

    def send() -> None:
        for byte in data:
            theirs.send(bytes([byte]))

    sender = threading.Thread(target=send)
    sender.start()
    assert channel.receive()[0] == Opened(request=1, port=80)
    sender.join()


def test_descriptors_travel_in_order_and_are_not_inherited(pair: tuple[SocketChannel, socket.socket]) -> None:
    channel, theirs = pair
    pipes = [os.pipe() for _ in range(3)]
    SocketChannel(theirs).send(Ready(version="1"), [write for _, write in pipes])
    _, fds = channel.receive()
    for number, fd in enumerate(fds):
        assert not os.get_inheritable(fd)
        os.write(fd, bytes([number]))
        os.close(fd)
    assert [os.read(read, 9) for read, _ in pipes] == [b"\0", b"\1", b"\2"]
    for ends in pipes:
        for fd in ends:
            os.close(fd)


def test_descriptors_stay_with_their_item(pair: tuple[SocketChannel, socket.socket]) -> None:
    channel, theirs = pair
    peer = SocketChannel(theirs)
    peer.send(Ready(version="1"))
    peer.send(Opened(request=1, port=1), [0])
    peer.send(Ready(version="2"))
    counts = []
    for _ in range(3):
        _, fds = channel.receive()
        counts.append(len(fds))
        for fd in fds:
            os.close(fd)
    assert counts == [0, 1, 0]


@pytest.mark.parametrize("count", [4, 5, 100])
def test_surplus_descriptors_are_closed_and_refused(
    pair: tuple[SocketChannel, socket.socket], count: int
) -> None:
    channel, theirs = pair
    before = open_descriptors()
    send_with(theirs, frame(encode(Ready(version="1"))), [0] * count)
    with pytest.raises(ProtocolViolation, match="descriptors"):
        channel.receive()
    assert open_descriptors() == before


def test_descriptors_in_the_middle_of_an_item_are_refused(pair: tuple[SocketChannel, socket.socket]) -> None:
    channel, theirs = pair
    before = open_descriptors()
    data = frame(encode(Ready(version="1")))
    theirs.send(data[:5])
    send_with(theirs, data[5:], [0])
    with pytest.raises(ProtocolViolation, match="descriptors"):
        channel.receive()
    assert open_descriptors() == before


def test_descriptors_beside_raw_bytes_are_refused(pair: tuple[SocketChannel, socket.socket]) -> None:
    channel, theirs = pair
    before = open_descriptors()
    send_with(theirs, b"raw bytes", [0])
    with pytest.raises(ProtocolViolation, match="descriptors"):
        channel.receive_blob(9, 9)
    assert open_descriptors() == before


def test_descriptors_beside_a_malformed_item_are_closed(pair: tuple[SocketChannel, socket.socket]) -> None:
    channel, theirs = pair
    before = open_descriptors()
    send_with(theirs, frame(b"\xff"), [0, 1, 2])
    with pytest.raises(Malformed):
        channel.receive()
    assert open_descriptors() == before


def test_an_oversized_frame_is_refused_before_it_is_read(pair: tuple[SocketChannel, socket.socket]) -> None:
    channel, theirs = pair
    theirs.send((limits.MAX_ITEM_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(Malformed, match="announces"):
        channel.receive()


def test_raw_bytes_above_the_callers_limit_are_refused(pair: tuple[SocketChannel, socket.socket]) -> None:
    with pytest.raises(Malformed, match="11 raw bytes"):
        pair[0].receive_blob(11, 10)


@pytest.mark.parametrize("cut", [0, 1, 4, 6])
def test_a_truncated_item_is_the_end(pair: tuple[SocketChannel, socket.socket], cut: int) -> None:
    channel, theirs = pair
    theirs.send(frame(encode(Ready(version="1")))[:cut])
    theirs.close()
    with pytest.raises(ChannelClosed):
        channel.receive()


def test_truncated_raw_bytes_are_the_end(pair: tuple[SocketChannel, socket.socket]) -> None:
    channel, theirs = pair
    theirs.send(b"half")
    theirs.close()
    with pytest.raises(ChannelClosed):
        channel.receive_blob(8, 8)


def test_sending_to_nobody_says_so(pair: tuple[SocketChannel, socket.socket]) -> None:
    channel, theirs = pair
    theirs.close()
    with pytest.raises(ChannelClosed):
        channel.send(Compiled(size=3))
    with pytest.raises(ChannelClosed):
        channel.send_blob([b"abc"])


def test_four_descriptors_are_not_sent(pair: tuple[SocketChannel, socket.socket]) -> None:
    with pytest.raises(EnarxError, match="4 descriptors"):
        pair[0].send(Ready(version="1"), [0, 0, 0, 0])


def test_an_empty_part_after_all_bytes_needs_no_peer_any_more(
    pair: tuple[SocketChannel, socket.socket],
) -> None:
    """A keep that refuses what it got may be gone before the sender has come to the end of its list."""
    channel, theirs = pair

    def parts() -> Iterator[bytes]:
        yield b"all of it"
        assert theirs.recv(16) == b"all of it"
        theirs.close()
        yield b""

    channel.send_blob(parts())
