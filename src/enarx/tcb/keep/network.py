"""The sockets of a configuration: asked of the host, held against what was asked, and made descriptors."""

from __future__ import annotations

import ipaddress
import os
import socket
import tomllib  # noqa: F401 (sockets come from a configuration, which a confined keep reads, and that loads nothing)
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from OpenSSL import SSL

from enarx.tcb.errors import EnarxError, ProtocolViolation
from enarx.tcb.keep.tls import (
    HANDSHAKE_TIMEOUT_S,
    Credential,
    HandshakeError,
    client_context,
    connect,
    rehearse,
    self_signed,
    server_context,
)
from enarx.tcb.keep.wasi._abi import FdFlags
from enarx.tcb.keep.wasi._fds import Descriptor
from enarx.tcb.keep.wasi._listeners import Acceptor, Listener, TlsListener
from enarx.tcb.keep.wasi._streams import Stream, TlsStream
from enarx.tcb.sallyport import items
from enarx.tcb.sallyport.guest import Guest
from enarx.tcb.sallyport.items import Reason
from enarx.tcb.sallyport.socket_channel import SocketChannel
from enarx.tcb.workload._config import Config, Connect, Listen, Protocol

_HINTS: Final[Mapping[Reason, str]] = {
    Reason.ADDRESS_IN_USE: "another program on the host listens there: choose another `port`",
    Reason.NOT_PERMITTED: "the owner of the host has to allow it",
    Reason.CONNECTION_REFUSED: "nothing listens there: is the service up, and is `port` right?",
    Reason.NAME_NOT_FOUND: "the host's resolver does not know the name",
}


def load() -> None:
    """Load what sockets need on first use; a confined keep cannot."""
    rehearse(datetime.now(UTC))


class NetworkUnavailable(EnarxError):
    """An entry of the configuration cannot be had."""


class Network:
    """All listen and connect entries of ``config``, opened. ``descriptors`` are in the order of the entries.

    Connections are made, and their TLS handshakes done, when the constructor returns. ``roots`` are the PEM
    certificates under which servers are trusted. Without ``credential`` TLS entries have their own, self-signed.
    ``threads`` says whether the guest may have several; with one alone TLS takes fewer system calls.
    ``streams`` says that sockets are what a VM keep's first process makes of the host's streams.
    Raises ``NetworkUnavailable`` when an entry fails, ``ProtocolViolation`` when the host lies.
    """

    def __init__(
        self,
        channel: SocketChannel,
        config: Config,
        *,
        roots: bytes,
        threads: bool = True,
        credential: Credential | None = None,
        streams: bool = False,
    ) -> None:
        self.descriptors: list[Descriptor] = []
        self._channel = channel
        self._guest = Guest(sockets=True)
        self._roots = roots
        self._credential = credential
        self._threads = threads
        self._check = _check_stream if streams else _check
        self._acceptor: Acceptor | None = None
        for entry in config.files:
            if isinstance(entry, Listen):
                self.descriptors.append(self._listen(entry))
            elif isinstance(entry, Connect):
                self.descriptors.append(self._connect(entry))

    def _listen(self, entry: Listen) -> Descriptor:
        sock = self._ask(self._guest.listen(entry.address, entry.port), entry)
        if entry.protocol is Protocol.TCP:
            return _blocking(Listener(sock))
        self._acceptor = self._acceptor or Acceptor(shared=self._threads)
        return TlsListener(sock, server_context(self._credential_for(entry)), self._acceptor)

    def _connect(self, entry: Connect) -> Descriptor:
        sock = self._ask(self._guest.connect(entry.host, entry.port), entry)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # no guest can ask for it
        if entry.protocol is Protocol.TCP:
            return _blocking(Stream(sock))
        try:
            return _blocking(TlsStream(sock, self._shake_hands(sock, entry), shared=self._threads))
        except EnarxError as error:
            sock.close()
            raise NetworkUnavailable(f"{_told(entry)}: {error}", hint=error.hint) from None

    def _shake_hands(self, sock: socket.socket, entry: Connect) -> SSL.Connection:
        if not self._roots:
            hint = "deliver the certificate authorities that it may trust"
            raise HandshakeError("there is nothing to verify the server with", hint=hint)
        context = client_context(self._credential_for(entry), self._roots)
        return connect(context, sock, entry.host, timeout_s=HANDSHAKE_TIMEOUT_S)

    def _credential_for(self, entry: Listen | Connect) -> Credential:
        return self._credential or self_signed(entry.name, now=datetime.now(UTC))

    def _ask(self, request: items.Listen | items.Connect, entry: Listen | Connect) -> socket.socket:
        self._channel.send(request)
        item, fds = self._channel.receive()
        try:
            _, answer = self._guest.answered(item, len(fds))
        except ProtocolViolation:
            for fd in fds:
                os.close(fd)
            raise
        if isinstance(answer, items.Refused):
            detail = f" ({answer.detail})" if answer.detail else ""
            message = f"{_told(entry)}: {answer.reason.value}{detail}"
            raise NetworkUnavailable(message, hint=_HINTS.get(answer.reason, ""))
        try:
            return self._adopt(fds[0], request, answer.port)
        except (OSError, ProtocolViolation) as error:
            raise ProtocolViolation(f"{_told(entry)}: host gave another socket: {error}") from None

    def _adopt(self, fd: int, request: items.Listen | items.Connect, port: int) -> socket.socket:
        try:
            sock = socket.socket(fileno=fd)
        except OSError:
            os.close(fd)
            raise
        try:
            self._check(sock, request, port)
        except (OSError, ProtocolViolation):
            sock.close()
            raise
        return sock


def _check(sock: socket.socket, request: items.Listen | items.Connect, port: int) -> None:
    """Hold the socket against the request: TCP, listening or connected, on that port and that address."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        raise ProtocolViolation(f"expected TCP, found {sock.family} and {sock.type}")
    _check_kind(sock, request)
    found = sock.getsockname() if isinstance(request, items.Listen) else sock.getpeername()
    if found[1] != port:
        raise ProtocolViolation(f"expected port {port}, found {found[1]}")
    wanted = request.address if isinstance(request, items.Listen) else request.host
    wanted = "127.0.0.1" if wanted == "localhost" else wanted
    try:
        address = ipaddress.ip_address(wanted.partition("%")[0])
    except ValueError:
        return  # a name means what the host says
    without_ipv6 = wanted == "::" and found[0] == "0.0.0.0"  # noqa: S104 (a comparison)
    if ipaddress.ip_address(found[0].partition("%")[0]) != address and not without_ipv6:
        raise ProtocolViolation(f"expected address {wanted}, found {found[0]}")


def _check_stream(sock: socket.socket, request: items.Listen | items.Connect, _port: int) -> None:
    """Hold what stands for the socket against the request; only the host knows ports and addresses."""
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ProtocolViolation(f"expected a stream, found {sock.family} and {sock.type}")
    _check_kind(sock, request)


def _check_kind(sock: socket.socket, request: items.Listen | items.Connect) -> None:
    listens = isinstance(request, items.Listen)
    if bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) is not listens:
        raise ProtocolViolation(f"expected it {'to listen' if listens else 'not to listen'}")


def _blocking(descriptor: Descriptor) -> Descriptor:
    descriptor.set_flags(FdFlags(0))
    return descriptor


def _told(entry: Listen | Connect) -> str:
    if isinstance(entry, Listen):
        return f"listen entry {entry.name!r}, [{entry.address}]:{entry.port}"
    return f"connect entry {entry.name!r}, {entry.host}:{entry.port}"
