"""Streams over real sockets, plain and TLS alike, with Python's own ``ssl`` as the TLS peer."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import os
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from OpenSSL import SSL

from enarx.tcb.keep.tls import Credential, self_signed, server_context
from enarx.tcb.keep.wasi._abi import (
    RI_RECV_PEEK,
    RI_RECV_WAITALL,
    SD_RD,
    SD_WR,
    Errno,
    FdFlags,
    FileType,
    WasiError,
)
from enarx.tcb.keep.wasi._fds import Readiness
from enarx.tcb.keep.wasi._streams import Stream, TlsStream

NOW = dt.datetime.now(dt.UTC)
KINDS = ("plain", "tls", "tls-shared")


@dataclass
class Pair:
    """Our stream, the peer's end, and the bare sockets beneath both."""

    stream: Stream
    peer: socket.socket
    ours: socket.socket
    theirs: socket.socket


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return listener.accept()[0], client


@pytest.fixture(scope="module")
def credential() -> Credential:
    return self_signed("test", now=NOW)


@pytest.fixture
def make(credential: Credential) -> Iterator[Callable[[str], Pair]]:
    made: list[Pair] = []

    def make_pair(kind: str) -> Pair:
        ours, theirs = tcp_pair()
        for sock in (ours, theirs):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if kind == "plain":
            made.append(Pair(Stream(ours), theirs, ours, theirs))
        else:
            made.append(_tls_pair(credential, ours, theirs, shared=kind == "tls-shared"))
        made[-1].stream.set_flags(FdFlags(0))
        return made[-1]

    yield make_pair
    for pair in made:
        for sock in (pair.peer, pair.ours, pair.theirs):
            sock.close()


def _tls_pair(credential: Credential, ours: socket.socket, theirs: socket.socket, *, shared: bool) -> Pair:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = SSL.Connection(server_context(credential), ours)
    connection.set_accept_state()
    server = threading.Thread(target=connection.do_handshake)
    server.start()
    bare = socket.socket(fileno=os.dup(theirs.fileno()))
    peer = context.wrap_socket(theirs)
    server.join()
    peer.settimeout(0.01)
    with pytest.raises(TimeoutError):
        peer.recv(1)  # takes the session tickets, so that closing is no reset
    peer.settimeout(None)
    return Pair(TlsStream(ours, connection, shared=shared), peer, ours, bare)


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, make: Callable[[str], Pair]) -> Pair:
    return make(request.param)


@pytest.fixture(params=KINDS[1:])
def tls_pair(request: pytest.FixtureRequest, make: Callable[[str], Pair]) -> Pair:
    return make(request.param)


def views(*sizes: int) -> list[memoryview]:
    return [memoryview(bytearray(size)) for size in sizes]


def content(*parts: bytes) -> list[memoryview]:
    return [memoryview(part) for part in parts]


def receive_all(peer: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (part := peer.recv(size - len(data))):
        data += part
    return bytes(data)


def until_ready(pair: Pair, *, write: bool = False) -> Readiness:
    """What ``poll_oneoff`` does."""
    while (readiness := pair.stream.ready(write=write)) is None:
        poll = select.poll()
        poll.register(pair.stream.waitable(), select.POLLOUT if write else select.POLLIN)
        assert poll.poll(10_000), "never ready"
    return readiness


def fails(call: Callable[[], object]) -> Errno:
    with pytest.raises(WasiError) as error:
        call()
    return error.value.errno


def fill(stream: Stream, piece: bytes) -> int:
    """Write ``piece`` again and again until it would block; give how much was taken."""
    stream.set_flags(FdFlags.NONBLOCK)
    taken = 0

    def go_on() -> None:
        nonlocal taken
        while True:
            taken += stream.write(content(piece))

    assert fails(go_on) is Errno.AGAIN
    return taken


def test_bytes_go_both_ways(pair: Pair) -> None:
    assert pair.stream.filetype is FileType.SOCKET_STREAM
    pair.peer.sendall(b"question")
    (buffer,) = views(100)
    assert pair.stream.read([buffer]) == 8
    assert bytes(buffer[:8]) == b"question"
    assert pair.stream.write(content(b"answer")) == 6
    assert pair.peer.recv(100) == b"answer"
    assert pair.stream.send(content(b"more")) == 4
    assert pair.peer.recv(100) == b"more"


def test_a_read_is_scattered_and_a_write_gathered(pair: Pair) -> None:
    pair.peer.sendall(b"abcdefgh")
    buffers = views(3, 0, 2, 10)
    assert pair.stream.read(buffers) == 8
    assert [bytes(buffer) for buffer in buffers] == [b"abc", b"", b"de", b"fgh" + bytes(7)]
    assert pair.stream.write(content(b"uvw", b"", b"xyz")) == 6
    assert pair.peer.recv(100) == b"uvwxyz"


def test_nothing_is_read_into_no_room_and_no_content_is_written(pair: Pair) -> None:
    pair.peer.sendall(b"x")
    assert pair.stream.read(views(0)) == pair.stream.read(views(0, 0)) == pair.stream.read([]) == 0
    assert (
        pair.stream.write(content(b"")) == pair.stream.write(content(b"", b"")) == pair.stream.write([]) == 0
    )
    assert pair.stream.read(views(5)) == 1


def test_the_end_is_zero_bytes_again_and_again(pair: Pair) -> None:
    pair.peer.sendall(b"last")
    if isinstance(pair.peer, ssl.SSLSocket):
        closer = threading.Thread(target=pair.peer.unwrap)
        closer.start()
    else:
        pair.peer.shutdown(socket.SHUT_WR)
    (buffer,) = views(9)
    assert pair.stream.read([buffer]) == 4
    assert pair.stream.read([buffer]) == pair.stream.read([buffer]) == 0
    assert until_ready(pair).hangup
    pair.stream.close()
    if isinstance(pair.peer, ssl.SSLSocket):
        closer.join()


def test_a_stream_that_is_cut_off_is_reset_not_ended(tls_pair: Pair) -> None:
    tls_pair.theirs.shutdown(socket.SHUT_RDWR)
    assert fails(lambda: tls_pair.stream.read(views(9))) is Errno.CONNRESET


def test_garbage_between_records_is_an_error(tls_pair: Pair) -> None:
    tls_pair.theirs.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert until_ready(tls_pair).hangup
    assert fails(lambda: tls_pair.stream.read(views(9))) is Errno.PROTO
    assert fails(lambda: tls_pair.stream.read(views(9))) is Errno.PROTO
    assert until_ready(tls_pair).hangup


def test_a_call_that_fails_after_it_waited_lets_go_of_the_guests_memory_at_once(tls_pair: Pair) -> None:
    """A cycle through the error would leave buffers of OpenSSL's calls to the garbage collector, which crashed."""
    memory = bytearray(9)
    later = threading.Timer(0.2, tls_pair.theirs.send, [b"\x17\x03\x03\x00\x20" + bytes(32)])
    gc.disable()
    later.start()
    try:
        with contextlib.suppress(WasiError):  # pytest.raises would hold the error in a cycle of its own
            tls_pair.stream.read([memoryview(memory)])
        memory.append(0)  # not possible while a buffer of it is held
    finally:
        gc.enable()
        later.join()
    assert len(memory) == 10


def test_a_reset_is_a_reset(make: Callable[[str], Pair]) -> None:
    pair = make("plain")
    pair.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.peer.close()
    assert fails(lambda: pair.stream.read(views(9))) is Errno.CONNRESET


def test_writing_to_nobody_is_a_broken_pipe(pair: Pair) -> None:
    for sock in (pair.peer, pair.theirs):
        sock.close()

    def write() -> None:
        for _ in range(1000):  # the first write only learns of it
            pair.stream.write(content(b"x" * 1000))

    assert fails(write) in (Errno.PIPE, Errno.CONNRESET)


def test_a_large_blocking_write_arrives_whole(pair: Pair) -> None:
    data = os.urandom(5 << 20)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(receive_all(pair.peer, len(data))))
    reader.start()
    sent = 0
    while sent < len(data):
        sent += pair.stream.write(content(data[sent : sent + 10], data[sent + 10 :]))
    reader.join()
    assert received == [data]


def test_a_large_blocking_read_arrives_whole(pair: Pair) -> None:
    data = os.urandom(5 << 20)
    writer = threading.Thread(target=pair.peer.sendall, args=(data,))
    writer.start()
    (buffer,) = views(len(data))
    got = 0
    while got < len(data):
        got += pair.stream.read([buffer[got : got + 100_000]])
    writer.join()
    assert buffer == data


def test_a_nonblocking_stream_answers_again(pair: Pair) -> None:
    pair.stream.set_flags(FdFlags.NONBLOCK)
    assert pair.stream.flags is FdFlags.NONBLOCK
    assert fails(lambda: pair.stream.read(views(9))) is Errno.AGAIN
    pair.peer.sendall(b"x")
    until_ready(pair)
    assert pair.stream.read(views(9)) == 1


@pytest.mark.parametrize("flags", [FdFlags.APPEND, FdFlags.SYNC, FdFlags.NONBLOCK | FdFlags.DSYNC])
def test_other_flags_are_invalid(pair: Pair, flags: FdFlags) -> None:
    assert fails(lambda: pair.stream.set_flags(flags)) is Errno.INVAL


@pytest.mark.parametrize("piece", [1 << 20, 40_000, 16384, 1000])
def test_what_a_nonblocking_write_takes_arrives_whole(pair: Pair, piece: int) -> None:
    data = os.urandom(6 << 20)
    received: list[bytes] = []
    pair.stream.set_flags(FdFlags.NONBLOCK)
    reader = threading.Thread(target=lambda: received.append(receive_all(pair.peer, len(data))))
    sent = again = 0
    while sent < len(data):
        size = piece if again % 2 == 0 else max(1, piece // 3)  # after AGAIN it may offer less than before
        try:
            sent += pair.stream.write(content(data[sent : sent + size]))
        except WasiError:
            again += 1
            if again == 1:
                assert pair.stream.ready(write=True) is None
                reader.start()
            until_ready(pair, write=True)
    reader.join()
    assert again > 0
    assert received == [data]


def test_a_sealed_record_is_never_passed_off_as_other_content(tls_pair: Pair) -> None:
    """The guest was told that a record is not sent, but it is sealed: other content must not count as sent."""
    fill(tls_pair.stream, b"a" * 16384)
    assert fails(lambda: tls_pair.stream.write(content(b"b" * 16384))) is Errno.IO
    assert fails(lambda: tls_pair.stream.write(content(b"a" * 16384))) is Errno.AGAIN


def test_peek_leaves_the_bytes_where_they_are(pair: Pair) -> None:
    pair.peer.sendall(b"abcdef")
    until_ready(pair)
    buffers = views(2, 2)
    assert pair.stream.receive(buffers, RI_RECV_PEEK) == (4, 0)
    assert [bytes(buffer) for buffer in buffers] == [b"ab", b"cd"]
    (buffer,) = views(9)
    assert pair.stream.receive([buffer], 0) == (6, 0)
    assert bytes(buffer[:6]) == b"abcdef"


def test_waitall_waits_for_all(pair: Pair) -> None:
    def send() -> None:
        for part in (b"ab", b"cde", b"fghi"):
            pair.peer.sendall(part)

    sender = threading.Thread(target=send)
    sender.start()
    buffers = views(4, 5)
    assert pair.stream.receive(buffers, RI_RECV_WAITALL) == (9, 0)
    assert [bytes(buffer) for buffer in buffers] == [b"abcd", b"efghi"]
    sender.join()


def test_waitall_gives_what_there_is_when_the_stream_ends(pair: Pair) -> None:
    pair.peer.sendall(b"abc")
    pair.theirs.shutdown(socket.SHUT_WR)
    assert pair.stream.receive(views(2, 5), RI_RECV_WAITALL) == (3, 0)


def test_waitall_does_not_make_a_nonblocking_stream_wait(pair: Pair) -> None:
    pair.stream.set_flags(FdFlags.NONBLOCK)
    assert fails(lambda: pair.stream.receive(views(2, 5), RI_RECV_WAITALL)) is Errno.AGAIN
    pair.peer.sendall(b"abc")
    until_ready(pair)
    assert pair.stream.receive(views(2, 5), RI_RECV_WAITALL) == (3, 0)


def test_unknown_receive_flags_are_invalid(pair: Pair) -> None:
    assert fails(lambda: pair.stream.receive(views(1), 4)) is Errno.INVAL


def test_shutting_writing_down_tells_the_peer_and_leaves_reading(pair: Pair) -> None:
    pair.stream.write(content(b"bye"))
    pair.stream.shutdown(SD_WR)
    assert receive_all(pair.peer, 100) == b"bye"
    assert fails(lambda: pair.stream.write(content(b"x"))) is Errno.PIPE
    pair.peer.sendall(b"still here")
    assert pair.stream.read(views(100)) == 10


def test_shutting_reading_down_is_the_end_for_us(pair: Pair) -> None:
    pair.stream.shutdown(SD_RD)
    assert pair.stream.read(views(9)) == 0
    assert pair.stream.receive(views(9), RI_RECV_PEEK) == (0, 0)
    assert pair.stream.write(content(b"still here")) == 10
    assert pair.peer.recv(100) == b"still here"


def test_shutting_down_both_is_both(pair: Pair) -> None:
    pair.stream.shutdown(SD_RD | SD_WR)
    assert pair.stream.read(views(9)) == 0
    assert fails(lambda: pair.stream.write(content(b"x"))) is Errno.PIPE
    assert receive_all(pair.peer, 1) == b""


def test_shutting_down_what_is_not_connected_says_so(make: Callable[[str], Pair]) -> None:
    pair = make("plain")
    pair.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.peer.close()
    assert fails(lambda: pair.stream.read(views(1))) is Errno.CONNRESET
    assert fails(lambda: pair.stream.shutdown(SD_WR)) is Errno.NOTCONN


def test_closing_says_goodbye(tls_pair: Pair) -> None:
    tls_pair.stream.write(content(b"last words"))
    tls_pair.stream.close()
    assert (
        receive_all(tls_pair.peer, 100) == b"last words"
    )  # and then the end, not an error: it was announced


def test_closing_never_waits_for_the_peer(pair: Pair) -> None:
    fill(pair.stream, b"x" * 65536)
    pair.stream.set_flags(FdFlags(0))
    pair.stream.close()
    assert pair.ours.fileno() == -1


def test_readiness_tells_how_much_there_is(pair: Pair) -> None:
    assert pair.stream.ready(write=False) is None
    assert pair.stream.ready(write=True) == Readiness(1)
    pair.peer.sendall(b"12345")
    assert until_ready(pair) == Readiness(5)
    assert pair.stream.read(views(2)) == 2
    assert pair.stream.ready(write=False) == Readiness(3)
    assert pair.stream.read(views(9)) == 3
    assert pair.stream.ready(write=False) is None


def test_half_a_record_is_not_readable_and_does_not_keep_poll_busy(make: Callable[[str], Pair]) -> None:
    pair = make("tls")
    outgoing = ssl.MemoryBIO()
    relay, far = socket.socketpair()
    with relay, far:
        pair.peer.sendall(b"x" * 1000)
        poll = select.poll()
        poll.register(pair.ours, select.POLLIN)
        poll.poll()
        record = pair.ours.recv(5000)
        outgoing.write(record)
        # the stream now reads from a socket to which the record arrives in two halves
        os.dup2(far.fileno(), pair.ours.fileno())
        relay.send(outgoing.read(500))
        assert pair.stream.ready(write=False) is None
        assert poll.poll(0) == []
        relay.send(outgoing.read())
        assert pair.stream.ready(write=False) == Readiness(1000)


def test_a_host_that_makes_a_socket_nonblocking_does_not_disturb_a_blocking_guest(pair: Pair) -> None:
    os.set_blocking(pair.ours.fileno(), False)
    timer = threading.Timer(0.05, lambda: pair.peer.sendall(b"late"))
    timer.start()
    assert pair.stream.read(views(9)) == 4
    data = os.urandom(4 << 20)
    os.set_blocking(pair.ours.fileno(), False)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(receive_all(pair.peer, len(data))))
    reader.start()
    sent = 0
    while sent < len(data):
        sent += pair.stream.write(content(data[sent:]))
    reader.join()
    assert received == [data]


def test_threads_read_and_write_one_stream_at_once(make: Callable[[str], Pair]) -> None:
    """A thread that waits for content does not keep another from sending; nothing is lost or mixed up."""
    pair = make("tls-shared")
    data = os.urandom(3 << 20)

    def echo() -> None:
        left = len(data)
        while left:
            part = pair.peer.recv(65536)
            pair.peer.sendall(part)
            left -= len(part)

    (buffer,) = views(len(data))

    def read() -> None:
        got = 0
        while got < len(data):
            got += pair.stream.read([buffer[got:]])

    threads = [threading.Thread(target=echo), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    sent = 0
    while sent < len(data):
        sent += pair.stream.write(content(data[sent : sent + 30_000]))
    for thread in threads:
        thread.join()
    assert buffer == data


def test_a_plain_stream_that_another_thread_closed_is_no_descriptor(make: Callable[[str], Pair]) -> None:
    pair = make("plain")
    pair.stream.close()
    assert fails(lambda: pair.stream.read(views(9))) is Errno.BADF
    assert fails(lambda: pair.stream.write(content(b"x"))) is Errno.BADF


def test_a_tls_stream_that_another_thread_closed_enters_no_other_socket(tls_pair: Pair) -> None:
    """OpenSSL remembers the number of the socket, which the system gives to the next one."""
    number = tls_pair.ours.fileno()
    ours, theirs = socket.socketpair()
    tls_pair.stream.close()
    with ours, theirs:
        os.dup2(ours.fileno(), number)
        theirs.send(b"of another stream")
        assert tls_pair.stream.read(views(9)) == 0
        assert fails(lambda: tls_pair.stream.write(content(b"x"))) is Errno.PIPE
        assert ours.recv(100) == b"of another stream"
        os.close(number)


def test_a_stream_does_not_accept(pair: Pair) -> None:
    assert fails(lambda: pair.stream.accept(FdFlags(0))) is Errno.INVAL
