"""Connections with a deadline: each step of an exchange has only the time that is left of the whole."""

from __future__ import annotations

import http.client
import io
import socket
import time
from base64 import b64encode
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from enarx.attest.fetch.errors import CollateralUnavailable

_PROXY_PORT: Final = 3128


class Incoming(io.RawIOBase):
    """What a connection receives, in the form in which ``http.client`` reads; however slowly it drips."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(left(self._deadline))
        return self._connection.recv_into(buffer)


def left(deadline: float) -> float:
    """Seconds until ``deadline`` of the monotonic clock. Raises ``TimeoutError`` when it has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def send(connection: socket.socket, lines: list[str], deadline: float) -> None:
    """Send the head of a request."""
    connection.settimeout(left(deadline))
    connection.sendall("\r\n".join([*lines, "", ""]).encode())


def receive(connection: socket.socket, method: str, deadline: float) -> http.client.HTTPResponse:
    """Read the head of an answer; its body can be read from it."""
    response = http.client.HTTPResponse(Incoming(connection, deadline), method=method)  # type: ignore[arg-type]
    response.begin()
    return response


def connect(host: str, port: int, deadline: float, *, proxy: str = "") -> socket.socket:
    """Connect to a server, by way of a proxy if one is named (RFC 9110, section 9.3.6). Raises ``OSError``."""
    if not proxy:
        return socket.create_connection((host, port), timeout=left(deadline))
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        name, number = parts.hostname or "", parts.port or _PROXY_PORT
    except ValueError:
        raise CollateralUnavailable("proxy", "its address is not of the form http://host:port") from None
    where = f"proxy http://{name}:{number}"  # without a password that may stand there
    if parts.scheme != "http" or not name:
        raise CollateralUnavailable(where, "its address is not of the form http://host:port")
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        lines.append(f"Proxy-Authorization: Basic {b64encode(credentials).decode()}")
    connection = socket.create_connection((name, number), timeout=left(deadline))
    try:
        send(connection, lines, deadline)
        status = receive(connection, "CONNECT", deadline).status
        if status != 200:
            raise CollateralUnavailable(
                where, f"it does not connect to {host}: status {status}", status=status
            )
    except BaseException:
        connection.close()
        raise
    return connection
