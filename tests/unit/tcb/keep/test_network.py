"""The sockets of a configuration: from an honest host, and from one that hands over something else (A41, A50)."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from enarx.host import relay
from enarx.host.sallyport import Host, Permissions, Scope
from enarx.tcb.errors import EnarxError, Malformed, ProtocolViolation
from enarx.tcb.keep.network import Network, NetworkUnavailable
from enarx.tcb.keep.tls import self_signed
from enarx.tcb.keep.wasi._abi import FdFlags
from enarx.tcb.keep.wasi._listeners import Listener, TlsListener
from enarx.tcb.sallyport import items
from enarx.tcb.sallyport.items import Deliver, Item, Opened, Ready, Reason, Refused
from enarx.tcb.sallyport.socket_channel import ChannelClosed, SocketChannel
from enarx.tcb.workload import Config, Connect, File, Listen, Null, Protocol, Stdin

ANYTHING = Permissions(listen=Scope.ANY, connect=Scope.ANY)
NOTHING = Permissions(listen=frozenset(), connect=frozenset())

Answer = Callable[[SocketChannel, items.Listen | items.Connect], None]


def honest(permissions: Permissions) -> Answer:
    host = Host(permissions)
    host.received(Ready(version="1"), 0)
    host.deliver(Deliver(header=None, size=0))

    def answer(channel: SocketChannel, request: items.Listen | items.Connect) -> None:
        host.received(request, 0)
        relay.answer(host, channel, request)

    return answer


@contextmanager
def host(answer: Answer) -> Iterator[SocketChannel]:
    """The keep's end of a channel to a host that answers with ``answer``."""
    ours, theirs = map(SocketChannel, socket.socketpair())

    def serve() -> None:
        with suppress(ChannelClosed):
            while True:
                request, _ = theirs.receive()
                assert isinstance(request, items.Listen | items.Connect)
                answer(theirs, request)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join()
        theirs.close()


def open_network(answer: Answer, *files: File, roots: bytes = b"") -> Network:
    with host(answer) as channel:
        return Network(channel, Config(files=files), roots=roots)


def listen(protocol: Protocol = Protocol.TCP, *, address: str = "127.0.0.1", port: int = 0) -> Listen:
    return Listen(protocol=protocol, name="front", address=address, port=port)


def connect(protocol: Protocol = Protocol.TCP, *, to: str = "127.0.0.1", port: int = 1) -> Connect:
    return Connect(protocol=protocol, name="db", host=to, port=port)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_descriptors_are_in_the_order_of_the_entries_and_block(server: socket.socket) -> None:
    entry = connect(port=server.getsockname()[1])
    network = open_network(honest(ANYTHING), Stdin(), entry, Null(), listen(), entry)
    first, second, third = network.descriptors
    assert isinstance(second, Listener)
    assert not any(descriptor.flags for descriptor in network.descriptors)
    for descriptor in (first, third):
        with server.accept()[0] as peer:
            descriptor.write([memoryview(b"hello")])
            assert peer.recv(10) == b"hello"
    for descriptor in network.descriptors:
        descriptor.close()


def test_an_entry_for_tls_listens_for_tls_alone() -> None:
    """A41: what is configured as TLS is not served in the clear."""
    (listener,) = open_network(honest(ANYTHING), listen(Protocol.TLS)).descriptors
    assert isinstance(listener, TlsListener)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    listener.ready(write=False)
    with context.wrap_socket(socket.create_connection(listener.sock.getsockname())) as client:
        stream = listener.accept(FdFlags(0))
        assert client.version() == "TLSv1.3"
        stream.close()
    listener.close()


def test_a_refusal_names_entry_endpoint_and_reason() -> None:
    with pytest.raises(
        NetworkUnavailable, match=r"listen entry 'front', \[::\]:443: not-permitted"
    ) as refused:
        open_network(honest(NOTHING), listen(address="::", port=443))
    assert "owner" in refused.value.hint
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(
            NetworkUnavailable, match=rf"'db', 127\.0\.0\.1:{port}: connection-refused"
        ) as refused:
            open_network(honest(ANYTHING), connect(port=port))
    assert "port" in refused.value.hint


def test_a_port_that_cannot_be_connected_to_is_malformed() -> None:
    with pytest.raises(Malformed, match="integer of 1 to 65535"):
        open_network(honest(ANYTHING), connect(port=0))


def _tls_server(server: socket.socket, tmp_path: Path) -> tuple[threading.Thread, bytes]:
    """Serve one TLS connection under a self-signed certificate for ``localhost``; give its root."""
    credential = self_signed("localhost", now=datetime.now(UTC))
    root = credential.chain[0].public_bytes(Encoding.PEM)
    file = tmp_path / "server.pem"
    file.write_bytes(root + credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    def serve() -> None:
        with suppress(OSError), context.wrap_socket(server.accept()[0], server_side=True) as stream:
            stream.sendall(stream.recv(10))

    thread = threading.Thread(target=serve)
    thread.start()
    return thread, root


def test_a_tls_connection_is_ready_for_use(server: socket.socket, tmp_path: Path) -> None:
    thread, root = _tls_server(server, tmp_path)
    entry = connect(Protocol.TLS, to="localhost", port=server.getsockname()[1])
    (stream,) = open_network(honest(ANYTHING), entry, roots=root).descriptors
    assert stream.write([memoryview(b"secret")]) == 6
    buffer = memoryview(bytearray(10))
    assert stream.read([buffer]) == 6
    assert bytes(buffer[:6]) == b"secret"
    stream.close()
    thread.join()


def test_a_tls_server_that_is_not_trusted_is_no_connection(server: socket.socket, tmp_path: Path) -> None:
    thread, _ = _tls_server(server, tmp_path)
    other_root = self_signed("other", now=datetime.now(UTC)).chain[0].public_bytes(Encoding.PEM)
    port = server.getsockname()[1]
    with pytest.raises(NetworkUnavailable, match=f"'db', localhost:{port}: handshake failed: self-signed"):
        open_network(honest(ANYTHING), connect(Protocol.TLS, to="localhost", port=port), roots=other_root)
    thread.join()


def test_tls_without_roots_is_refused_rather_than_unverified(server: socket.socket) -> None:
    with pytest.raises(NetworkUnavailable, match="nothing to verify the server with"):
        open_network(honest(ANYTHING), connect(Protocol.TLS, port=server.getsockname()[1]))


def hands_over(sock: socket.socket, port: int | None = None) -> Answer:
    """A host that answers every request with ``sock``."""

    def answer(channel: SocketChannel, request: items.Listen | items.Connect) -> None:
        found = request.port if port is None else port
        channel.send(Opened(request=request.request, port=found), [sock.fileno()])

    return answer


def says(item: Item, fds: int = 0) -> Answer:
    return lambda channel, _: channel.send(item, [0] * fds)


def _violation(answer: Answer, entry: File, match: str) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(ProtocolViolation, match=match):
        open_network(answer, entry)
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_listener_on_another_address_is_a_violation(server: socket.socket) -> None:
    port = server.getsockname()[1]
    entry = listen(address="127.0.0.2", port=port)
    _violation(hands_over(server), entry, r"expected address 127\.0\.0\.2, found 127\.0\.0\.1")


def test_a_listener_on_all_addresses_instead_of_one_is_a_violation() -> None:
    with socket.create_server(("0.0.0.0", 0)) as sock:  # noqa: S104 (what the hostile host does)
        port = sock.getsockname()[1]
        _violation(hands_over(sock), listen(port=port), "expected address")


def test_ipv4_alone_is_taken_for_all_addresses() -> None:
    with socket.create_server(("0.0.0.0", 0)) as sock:  # noqa: S104 (a machine without IPv6)
        port = sock.getsockname()[1]
        (listener,) = open_network(hands_over(sock), listen(address="::", port=port)).descriptors
        listener.close()


def test_a_listener_on_another_port_is_a_violation(server: socket.socket) -> None:
    _violation(hands_over(server, 444), listen(port=444), "expected port 444")
    _violation(hands_over(server, 444), listen(port=443), "opened port 444, asked was 443")


def test_a_socket_that_does_not_listen_is_a_violation() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        _violation(hands_over(sock), listen(port=sock.getsockname()[1]), "expected it to listen")


def test_a_listener_for_a_connection_is_a_violation(server: socket.socket) -> None:
    _violation(hands_over(server), connect(port=server.getsockname()[1]), "not to listen")


def test_an_unconnected_socket_is_a_violation() -> None:
    with socket.socket() as sock:
        _violation(hands_over(sock), connect(), "another socket")


def test_a_socket_that_is_not_tcp_is_a_violation() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as datagram:
        datagram.bind(("127.0.0.1", 0))
        _violation(hands_over(datagram), listen(port=datagram.getsockname()[1]), "expected TCP")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _violation(hands_over(ours), connect(), "expected TCP")


def test_a_file_instead_of_a_socket_is_a_violation() -> None:
    with Path("/dev/null").open() as file:

        def answer(channel: SocketChannel, request: items.Listen | items.Connect) -> None:
            channel.send(Opened(request=request.request, port=1), [file.fileno()])

        _violation(answer, connect(), "another socket")


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (says(Opened(request=1, port=1)), "sent 0 descriptors"),
        (says(Opened(request=1, port=1), fds=2), "sent 2 descriptors"),
        (says(Opened(request=2, port=1), fds=1), "not open"),
        (says(Refused(request=1, reason=Reason.LIMIT, detail=""), fds=1), "sent 1 descriptors"),
        (says(Deliver(header=None, size=0)), "where an answer"),
    ],
)
def test_a_wrong_answer_is_a_violation_and_leaves_no_descriptor(answer: Answer, match: str) -> None:
    _violation(answer, connect(), match)


def test_a_host_that_hangs_up_is_an_error() -> None:
    with pytest.raises(EnarxError, match="closed"):
        open_network(lambda channel, _: channel._sock.shutdown(socket.SHUT_RDWR), connect())
