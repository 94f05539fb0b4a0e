"""The way to a keep: a connection of its own to the host agent, upgraded, then bytes that only the keep understands."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from typing import Final

import h11

from enarx.api.agent import PROTOCOL
from enarx.tenant.agent_calls import HostAddress, HostMisbehaved, HostUnreachable, keep_path, refusal
from enarx.tenant.agent_client import CONNECT_TIMEOUT_S, host_tls

ANSWER_TIMEOUT_S: Final = 30.0
MAX_HEAD_BYTES: Final = 16 << 10
MAX_PROBLEM_BYTES: Final = 64 << 10
_READ_BYTES: Final = 1 << 17


def open_channel(address: HostAddress, keep: str) -> socket.socket:
    """Connect to a keep. Raises ``HostUnreachable``, ``HostRefused``, ``HostMisbehaved``.

    With https the connection is carried by a thread, which ends with it.
    """
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    path = f"{keep_path(keep)}/channel"
    try:
        sock = socket.create_connection((address.host, address.port), timeout=CONNECT_TIMEOUT_S)
    except OSError as error:
        raise HostUnreachable(f"{address.url}: {_reason(error)}") from None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.scheme == "https":
            sock = host_tls(address).wrap_socket(sock, server_hostname=address.host)
        _upgrade(sock, address, path, deadline)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise HostUnreachable(f"{address.url}: {_reason(error)}") from None
        raise
    return _carried(sock) if isinstance(sock, ssl.SSLSocket) else sock


def _upgrade(sock: socket.socket, address: HostAddress, path: str, deadline: float) -> None:
    """Ask for the channel. Nothing may follow the answer: the keep is silent until it is spoken to."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    headers = [
        ("Host", address.authority),
        ("Connection", "Upgrade"),
        ("Upgrade", PROTOCOL),
        *address.headers().items(),
    ]
    request = h11.Request(method="GET", target=path, headers=headers)
    sock.sendall((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
    try:
        event = _next(http, sock, deadline)
        if isinstance(event, h11.InformationalResponse):
            upgrade = dict(event.headers).get(b"upgrade", b"").decode("latin-1").lower()
            if event.status_code != 101 or upgrade != PROTOCOL or http.trailing_data[0]:
                raise HostMisbehaved("the host grants another upgrade than the one asked for")
            return
        if not isinstance(event, h11.Response):
            raise HostMisbehaved("the host closed the connection without an answer")
        status, kind = event.status_code, dict(event.headers).get(b"content-type", b"").decode("latin-1")
        body = b""
        while isinstance(part := _next(http, sock, deadline), h11.Data) and len(body) <= MAX_PROBLEM_BYTES:
            body += part.data
    except h11.RemoteProtocolError:
        raise HostMisbehaved(f"{address.url}: the host does not speak HTTP properly") from None
    raise refusal(status, kind, body)


def _next(http: h11.Connection, sock: socket.socket, deadline: float) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        http.receive_data(sock.recv(_READ_BYTES))
    return event


def _carried(outer: ssl.SSLSocket) -> socket.socket:
    """Give a plain socket whose bytes travel inside the host's TLS."""
    ours, theirs = socket.socketpair()
    threading.Thread(target=_carry, args=(outer, theirs), daemon=True, name="host TLS").start()
    return ours


def _carry(outer: ssl.SSLSocket, inner: socket.socket) -> None:
    """Move bytes both ways until either end is over; what one side does not take, the other does not send."""
    outer.setblocking(False)
    inner.setblocking(False)
    up, down = bytearray(), bytearray()
    with outer, inner, contextlib.suppress(OSError):
        while True:
            if not up and not _moved(inner, up):
                return
            if not down and not _moved(outer, down):
                return
            wants_write = _push(outer, up)
            _push(inner, down)
            poll = select.poll()
            poll.register(
                outer, (0 if down else select.POLLIN) | (select.POLLOUT if up or wants_write else 0)
            )
            poll.register(inner, (0 if up else select.POLLIN) | (select.POLLOUT if down else 0))
            if not (outer.pending() and not down):
                poll.poll()


def _moved(source: socket.socket, buffer: bytearray) -> bool:
    """Take what has come; false at the end."""
    try:
        data = source.recv(_READ_BYTES)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return True
    buffer += data
    return bool(data)


def _push(sink: socket.socket, buffer: bytearray) -> bool:
    """Send what fits; true if the sink must be waited for."""
    if buffer:
        try:
            del buffer[: sink.send(buffer)]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
    return False


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "the host did not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the host's certificate is not accepted: {error.verify_message}"
    return (error.strerror or str(error) or "connection failed").lower()
