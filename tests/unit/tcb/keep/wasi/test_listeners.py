"""Listeners: slow, silent, broken and many clients (attack A41 and denial of service from the network)."""

from __future__ import annotations

import datetime as dt
import errno
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from enarx.tcb.keep.tls import Credential, self_signed, server_context
from enarx.tcb.keep.wasi import _listeners
from enarx.tcb.keep.wasi._abi import Errno, FdFlags, FileType, Rights, WasiError
from enarx.tcb.keep.wasi._fds import Descriptor, Readiness
from enarx.tcb.keep.wasi._listeners import Acceptor, Listener, TlsListener
from enarx.tcb.keep.wasi._streams import Stream

Make = Callable[..., Listener]
CLIENTS = 100


@pytest.fixture(scope="module")
def credential() -> Credential:
    return self_signed("test", now=dt.datetime.now(dt.UTC))


@pytest.fixture
def address() -> list[tuple[str, int]]:
    """Where the listener of the test listens, once there is one."""
    return []


@pytest.fixture
def make(credential: Credential, address: list[tuple[str, int]]) -> Iterator[Make]:
    made: list[Listener] = []
    acceptors: list[Acceptor] = []

    def make_listener(*, tls: bool = True, timeout_s: float = 10.0) -> Listener:
        sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        address.append(sock.getsockname())
        if tls:
            acceptors.append(Acceptor(shared=False, timeout_s=timeout_s))
            made.append(TlsListener(sock, server_context(credential), acceptors[-1]))
        else:
            made.append(Listener(sock))
        made[-1].set_flags(FdFlags(0))
        return made[-1]

    yield make_listener
    for listener in made:
        listener.close()
    for acceptor in acceptors:
        if acceptor._thread:
            acceptor._thread.join()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def listener(request: pytest.FixtureRequest, make: Make) -> Listener:
    return make(tls=request.param)


def context() -> ssl.SSLContext:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return client


def client_of(listener: Listener, address: tuple[str, int]) -> socket.socket:
    """A client; its handshake, if any, is driven by the acceptor, which must have been started."""
    sock = socket.create_connection(address)
    return context().wrap_socket(sock) if isinstance(listener, TlsListener) else sock


def started(listener: Listener) -> Listener:
    listener.ready(write=False)
    return listener


def read(stream: Descriptor, size: int = 100) -> bytes:
    buffer = memoryview(bytearray(size))
    return bytes(buffer[: stream.read([buffer])])


def fails(call: Callable[[], object]) -> Errno:
    with pytest.raises(WasiError) as error:
        call()
    return error.value.errno


def until_ready(listener: Listener) -> Readiness:
    while (readiness := listener.ready(write=False)) is None:
        poll = select.poll()
        poll.register(listener.waitable(), select.POLLIN)
        assert poll.poll(10_000), "never ready"
    return readiness


def test_a_connection_is_accepted_and_serves(listener: Listener, address: list[tuple[str, int]]) -> None:
    assert listener.filetype is FileType.SOCKET_STREAM
    with client_of(started(listener), address[0]) as client:
        stream = listener.accept(FdFlags(0))
        assert not stream.rights & ~listener.inheriting
        assert Rights.SOCK_ACCEPT not in stream.rights
        client.sendall(b"hello")
        assert read(stream) == b"hello"
        stream.close()


def test_a_blocking_accept_waits_for_a_client(listener: Listener, address: list[tuple[str, int]]) -> None:
    accepted: list[Descriptor] = []
    guest = threading.Thread(target=lambda: accepted.append(listener.accept(FdFlags(0))))
    guest.start()
    with client_of(started(listener), address[0]):
        guest.join()
        accepted[0].close()


def test_a_nonblocking_accept_answers_again(listener: Listener, address: list[tuple[str, int]]) -> None:
    listener.set_flags(FdFlags.NONBLOCK)
    assert fails(lambda: listener.accept(FdFlags(0))) is Errno.AGAIN
    assert listener.ready(write=False) is None
    with client_of(listener, address[0]):
        until_ready(listener)
        listener.accept(FdFlags(0)).close()
    assert fails(lambda: listener.accept(FdFlags(0))) is Errno.AGAIN


@pytest.mark.parametrize("flags", [FdFlags(0), FdFlags.NONBLOCK])
def test_the_connection_has_the_flags_asked_for(
    listener: Listener, address: list[tuple[str, int]], flags: FdFlags
) -> None:
    listener.set_flags(FdFlags.NONBLOCK)
    with client_of(started(listener), address[0]) as client:
        until_ready(listener)
        stream = listener.accept(flags)
        assert stream.flags == flags
        if flags:
            assert fails(lambda: read(stream)) is Errno.AGAIN
        else:
            timer = threading.Timer(0.02, lambda: client.sendall(b"late"))
            timer.start()
            assert read(stream) == b"late"
            timer.join()
        stream.close()


def test_a_listener_is_no_stream(listener: Listener) -> None:
    assert fails(lambda: read(listener)) is Errno.BADF
    assert fails(lambda: listener.write([memoryview(b"x")])) is Errno.BADF
    assert fails(lambda: listener.ready(write=True)) is Errno.NOTSUP
    assert fails(lambda: listener.set_flags(FdFlags.APPEND)) is Errno.INVAL


def test_connections_do_not_wait_for_acknowledgements(
    listener: Listener, address: list[tuple[str, int]]
) -> None:
    with client_of(started(listener), address[0]):
        stream = listener.accept(FdFlags(0))
        assert isinstance(stream, Stream)
        assert stream._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        stream.close()


def test_silent_and_slow_clients_do_not_hold_up_the_others(
    make: Make, address: list[tuple[str, int]]
) -> None:
    listener = started(make(timeout_s=60))
    hello = _client_hello()
    waiting = []
    for at in range(20):
        sock = socket.create_connection(address[0])
        sock.sendall(hello[: 10 * at])
        waiting.append(sock)
    with client_of(listener, address[0]) as client:
        stream = listener.accept(FdFlags(0))
        client.sendall(b"not stalled")
        assert read(stream) == b"not stalled"
        stream.close()
    for sock in waiting:
        sock.close()


def test_a_silent_client_is_dropped_after_a_while(make: Make, address: list[tuple[str, int]]) -> None:
    listener = started(make(timeout_s=0.05))
    with socket.create_connection(address[0]) as silent:
        silent.settimeout(10)
        assert silent.recv(1) == b""
    listener.set_flags(FdFlags.NONBLOCK)
    assert fails(lambda: listener.accept(FdFlags(0))) is Errno.AGAIN


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00\x05hello", bytes(500)]
)
def test_a_client_that_speaks_no_tls_is_dropped(
    make: Make, address: list[tuple[str, int]], noise: bytes
) -> None:
    """A41: nothing of what a plain client says or hears passes the TLS listener."""
    listener = started(make())
    with socket.create_connection(address[0]) as client:
        client.settimeout(10)
        client.sendall(noise)
        try:
            answer = client.recv(100)
        except ConnectionResetError:
            answer = b""
        assert answer[:1] in (b"", b"\x15")  # at most an alert
    assert listener.ready(write=False) is None
    with client_of(listener, address[0]):
        listener.accept(FdFlags(0)).close()


def test_a_client_that_resets_in_its_handshake_is_forgotten(
    make: Make, address: list[tuple[str, int]]
) -> None:
    listener = started(make())
    for cut in (0, 100):
        sock = socket.create_connection(address[0])
        sock.sendall(_client_hello()[:cut])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    with client_of(listener, address[0]):
        listener.accept(FdFlags(0)).close()


def test_a_hundred_clients_at_once_are_all_served(make: Make, address: list[tuple[str, int]]) -> None:
    listener = started(make())
    answers: list[bytes] = []

    def ask(number: int) -> None:
        with context().wrap_socket(socket.create_connection(address[0])) as client:
            client.sendall(b"%d" % number)
            answers.append(client.recv(100))

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for _ in range(CLIENTS):
        stream = listener.accept(FdFlags(0))
        stream.write([memoryview(read(stream))])
        stream.close()
    for client in clients:
        client.join()
    assert sorted(answers, key=int) == [b"%d" % number for number in range(CLIENTS)]


def test_the_oldest_handshake_gives_way_when_there_are_too_many(
    make: Make, address: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_listeners, "MAX_HANDSHAKES", 3)
    listener = started(make(timeout_s=60))
    silent = [socket.create_connection(address[0]) for _ in range(4)]
    silent[0].settimeout(10)
    assert silent[0].recv(1) == b""
    with client_of(listener, address[0]):
        listener.accept(FdFlags(0)).close()
    for sock in silent:
        sock.close()


def test_a_workload_that_accepts_slowly_leaves_clients_in_the_backlog(
    make: Make, address: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_listeners, "MAX_READY", 2)
    listener = started(make())
    assert isinstance(listener, TlsListener)

    def ask(sock: socket.socket) -> None:
        with context().wrap_socket(sock) as client:
            client.recv(1)

    def clients(number: int) -> list[threading.Thread]:
        socks = [socket.create_connection(address[0]) for _ in range(number)]
        return [threading.Thread(target=ask, args=(sock,)) for sock in socks]

    first = clients(2)
    for client in first:
        client.start()
    while listener.armed:  # until the acceptor has noticed that there is no room
        until_ready(listener)
    more = clients(6)
    for client in more:
        client.start()
    assert len(listener.finished) == 2
    assert not listener._acceptor._handshakes
    for _ in range(8):
        listener.accept(FdFlags(0)).close()
    for client in first + more:
        client.join()


def test_closing_a_listener_ends_its_handshakes_and_frees_its_port(
    make: Make, address: list[tuple[str, int]]
) -> None:
    listener = started(make(timeout_s=60))
    with client_of(listener, address[0]) as finished, socket.create_connection(address[0]) as silent:
        until_ready(listener)
        listener.close()
        silent.settimeout(10)
        assert silent.recv(1) == b""
        finished.settimeout(10)
        assert finished.recv(1) == b""
        assert isinstance(listener, TlsListener)
        thread = listener._acceptor._thread
        assert thread is not None
        thread.join()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address[0])


def test_one_acceptor_serves_several_listeners_until_the_last_is_closed(credential: Credential) -> None:
    acceptor = Acceptor(shared=False)
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    where = [sock.getsockname() for sock in socks]
    listeners = [TlsListener(sock, server_context(credential), acceptor) for sock in socks]
    for at in (1, 0):
        with client_of(started(listeners[at]), where[at]):
            listeners[at].accept(FdFlags(0)).close()
        listeners[at].close()
    assert acceptor._thread is not None
    acceptor._thread.join()
    assert threading.active_count() == 1


def test_a_listener_rests_when_the_system_has_no_descriptor_left(
    make: Make, address: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = make()
    assert isinstance(listener, TlsListener)
    real, failures = listener.sock, [OSError(errno.EMFILE, "too many"), ConnectionAbortedError()]

    class Poor:
        """The listening socket on a system that is short of descriptors."""

        def accept(self) -> tuple[socket.socket, object]:
            if failures:
                raise failures.pop(0)
            return real.accept()

        def fileno(self) -> int:
            return real.fileno()

        def close(self) -> None:
            real.close()

    monkeypatch.setattr(listener, "sock", Poor())
    with client_of(started(listener), address[0]):
        listener.accept(FdFlags(0)).close()
    assert failures == []


def test_an_acceptor_that_fails_leaves_no_workload_waiting(
    make: Make, address: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = make()
    assert isinstance(listener, TlsListener)
    failed = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: failed.set())
    monkeypatch.setattr(Acceptor, "_accept", lambda *_: 1 / 0)
    started(listener)
    with socket.create_connection(address[0]):
        assert fails(lambda: listener.accept(FdFlags(0))) is Errno.IO
    failed.wait(10)
    assert fails(lambda: listener.accept(FdFlags(0))) is Errno.IO
    listener.sock.close()


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context().wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()
