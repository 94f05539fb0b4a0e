"""Real sockets: dual stack, fall-back, reasons for refusal, and the hand-over."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from enarx.host import relay
from enarx.host.sallyport import Host, Permissions, Scope
from enarx.tcb.sallyport.items import Connect, Deliver, Item, Listen, Opened, Ready, Reason, Refused
from enarx.tcb.sallyport.socket_channel import SocketChannel


def running(permissions: Permissions) -> Host:
    host = Host(permissions)
    host.received(Ready(version="1"), 0)
    host.deliver(Deliver(header=None, size=0))
    return host


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def refusing_port() -> Iterator[int]:
    """A port of 127.0.0.1 that is taken and on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def opened(request: Listen | Connect) -> socket.socket:
    reply, sock = relay.fulfil(request)
    assert isinstance(reply, Opened), reply
    assert sock is not None
    return sock


def test_a_listener_on_all_addresses_serves_ipv6_and_ipv4() -> None:
    with opened(Listen(request=1, address="::", port=0)) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port)), listener.accept()[0]:
                pass


def test_a_machine_without_ipv6_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_ipv6(family: int = -1, *arguments: Any, **named: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *arguments, **named)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    with opened(Listen(request=1, address="::", port=0)) as listener:
        assert listener.family == socket.AF_INET
    reply, _ = relay.fulfil(Listen(request=1, address="::1", port=0))
    assert isinstance(reply, Refused)


def test_localhost_is_ipv4_loopback_for_both() -> None:
    with opened(Listen(request=1, address="localhost", port=0)) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        with opened(Connect(request=2, host="localhost", port=port)) as client:
            assert client.getpeername() == ("127.0.0.1", port)


def test_a_port_in_use_is_refused_as_such() -> None:
    with opened(Listen(request=1, address="127.0.0.1", port=0)) as listener:
        port = listener.getsockname()[1]
        reply, sock = relay.fulfil(Listen(request=2, address="127.0.0.1", port=port))
    assert sock is None
    assert reply == Refused(request=2, reason=Reason.ADDRESS_IN_USE, detail="address already in use")


def test_a_port_is_free_again_at_once() -> None:
    with opened(Listen(request=1, address="127.0.0.1", port=0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            listener.accept()[0].close()  # leaves the connection waiting on our side
    opened(Listen(request=2, address="127.0.0.1", port=port)).close()


def test_a_refused_connection_says_so(refusing_port: int) -> None:
    reply, _ = relay.fulfil(Connect(request=1, host="127.0.0.1", port=refusing_port))
    assert reply == Refused(request=1, reason=Reason.CONNECTION_REFUSED, detail="connection refused")


@pytest.mark.parametrize("name", ["a..b", "x" * 64, "xn--\x7f"])
def test_what_is_no_name_is_not_found(name: str) -> None:
    reply, _ = relay.fulfil(Connect(request=1, host=name, port=1))
    assert isinstance(reply, Refused)
    assert reply.reason is Reason.NAME_NOT_FOUND


def test_a_resolver_that_hangs_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60) and [])
    reply, _ = relay.fulfil(Connect(request=1, host="slow.example", port=1), timeout_s=0.05)
    over.set()
    assert isinstance(reply, Refused)
    assert reply.reason is Reason.TIMED_OUT


def _names(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    found = [
        (
            socket.AF_INET6 if ":" in address else socket.AF_INET,
            socket.SOCK_STREAM,
            6,
            "",
            (address, port),
        )
        for address, port in addresses
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def _full(listener: socket.socket) -> list[socket.socket]:
    """Fill the backlog of ``listener``, so that a further connection hangs."""
    listener.listen(0)
    clients = []
    for _ in range(2):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        clients.append(client)
    return clients


def test_an_address_that_refuses_is_followed_by_the_next(
    monkeypatch: pytest.MonkeyPatch, server: socket.socket, refusing_port: int
) -> None:
    _names(monkeypatch, ("::1", refusing_port), ("127.0.0.1", refusing_port), server.getsockname())
    with opened(Connect(request=1, host="two.example", port=1)) as client:
        assert client.getpeername() == server.getsockname()


def test_an_address_that_is_silent_is_overtaken_by_the_next(
    monkeypatch: pytest.MonkeyPatch, server: socket.socket
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        clients = _full(silent)
        _names(monkeypatch, silent.getsockname(), server.getsockname())
        with opened(Connect(request=1, host="two.example", port=1)) as client:
            assert client.getpeername() == server.getsockname()
        for waiting in clients:
            waiting.close()


def test_silence_on_all_addresses_times_out(monkeypatch: pytest.MonkeyPatch, refusing_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        clients = _full(silent)
        _names(monkeypatch, ("127.0.0.1", refusing_port), silent.getsockname())
        reply, _ = relay.fulfil(Connect(request=1, host="two.example", port=1), timeout_s=0.1)
        for waiting in clients:
            waiting.close()
    assert isinstance(reply, Refused)
    assert reply.reason is Reason.TIMED_OUT


def test_families_take_turns() -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    addresses: list[relay.Address] = [(six, ("a", 1)), (six, ("b", 1)), (four, ("c", 1))]
    assert [where[0] for _, where in relay._alternate(addresses)] == ["a", "c", "b"]


def _exchange(permissions: Permissions, request: Listen | Connect) -> tuple[Item, list[int]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        relay.answer(running(permissions), SocketChannel(ours), request)
        return SocketChannel(theirs).receive()


def test_the_keep_gets_the_listening_socket_itself() -> None:
    anything = Permissions(listen=Scope.ANY, connect=Scope.ANY)
    item, fds = _exchange(anything, Listen(request=1, address="127.0.0.1", port=0))
    assert isinstance(item, Opened)
    address = ("127.0.0.1", item.port)
    with socket.socket(fileno=fds[0]) as listener, socket.create_connection(address), listener.accept()[0]:
        pass
    with pytest.raises(ConnectionRefusedError):  # the host has kept no copy
        socket.create_connection(address)


def test_what_is_not_permitted_is_not_even_tried(server: socket.socket) -> None:
    nothing = Permissions(listen=frozenset(), connect=frozenset())
    item, fds = _exchange(nothing, Connect(request=1, host="127.0.0.1", port=server.getsockname()[1]))
    assert isinstance(item, Refused)
    assert item.reason is Reason.NOT_PERMITTED
    assert fds == []
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.accept()


def test_a_refusal_leaves_no_descriptor_behind(refusing_port: int) -> None:
    before = set(os.listdir("/proc/self/fd"))
    relay.fulfil(Connect(request=1, host="127.0.0.1", port=refusing_port))
    relay.fulfil(Listen(request=1, address="127.0.0.1", port=refusing_port))
    assert set(os.listdir("/proc/self/fd")) == before
