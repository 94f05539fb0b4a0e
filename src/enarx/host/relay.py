"""Real sockets for keeps: the host opens them and hands them over, and no byte on them passes through it."""

from __future__ import annotations

import errno
import ipaddress
import os
import queue
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from itertools import chain, zip_longest
from typing import Any, Final

from enarx.host.sallyport import Host
from enarx.tcb.sallyport.items import Connect, Listen, Opened, Reason, Refused
from enarx.tcb.sallyport.socket_channel import SocketChannel

BACKLOG: Final = 1024
"""Connections the kernel keeps until the keep accepts them."""
CONNECT_TIMEOUT_S: Final = 10.0
"""Name and connection together; a start-up that takes longer has failed."""
ATTEMPT_DELAY_S: Final = 0.25
"""How long one address is tried before the next one is tried beside it (RFC 8305, section 8)."""

Address = tuple[socket.AddressFamily, tuple[Any, ...]]

_REASONS: Final[Mapping[int, Reason]] = {
    errno.EADDRINUSE: Reason.ADDRESS_IN_USE,
    errno.EACCES: Reason.NOT_PERMITTED,
    errno.EPERM: Reason.NOT_PERMITTED,
    errno.ECONNREFUSED: Reason.CONNECTION_REFUSED,
    errno.ETIMEDOUT: Reason.TIMED_OUT,
    errno.EMFILE: Reason.LIMIT,
    errno.ENFILE: Reason.LIMIT,
    errno.ENOBUFS: Reason.LIMIT,
    errno.ENOMEM: Reason.LIMIT,
}
_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def answer(half: Host, channel: SocketChannel, request: Listen | Connect) -> Opened | Refused:
    """Answer ``request`` on ``channel``: with the socket, or with the reason why there is none."""
    sock: socket.socket | None = None
    reply: Opened | Refused | None = half.refusal(request)
    if reply is None:
        reply, sock = fulfil(request)
    if sock is None:
        channel.send(reply)
    else:
        with sock:
            channel.send(reply, [sock.fileno()])
    return reply


def fulfil(
    request: Listen | Connect, *, timeout_s: float = CONNECT_TIMEOUT_S
) -> tuple[Opened | Refused, socket.socket | None]:
    """Open what ``request`` wants. Blocks for at most ``timeout_s``."""
    try:
        if isinstance(request, Listen):
            sock = listen(request.address, request.port, timeout_s=timeout_s)
            return Opened(request=request.request, port=sock.getsockname()[1]), sock
        sock = connect(request.host, request.port, timeout_s=timeout_s)
        return Opened(request=request.request, port=request.port), sock
    except socket.gaierror as error:
        reason, detail = Reason.NAME_NOT_FOUND, error.strerror
    except TimeoutError as error:
        reason, detail = Reason.TIMED_OUT, error.strerror
    except OSError as error:
        reason, detail = _REASONS.get(error.errno or 0, Reason.UNREACHABLE), error.strerror
    return Refused(request=request.request, reason=reason, detail=(detail or "").lower()), None


def listen(address: str, port: int, *, timeout_s: float) -> socket.socket:
    """Listen on ``address``: "::" means IPv6 and IPv4, or IPv4 alone on a machine that has no IPv6."""
    family, where = resolve(address, port, timeout_s=timeout_s)[0]
    try:
        return _listener(family, where)
    except OSError as error:
        if where[0] != "::" or error.errno not in _NO_IPV6:
            raise
    return _listener(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 (the entry says so)


def _listener(family: socket.AddressFamily, where: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(where)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def connect(host: str, port: int, *, timeout_s: float) -> socket.socket:
    """Connect to the first address of ``host`` that answers; others are tried beside slow ones (RFC 8305)."""
    deadline = time.monotonic() + timeout_s
    waiting = deque(_alternate(resolve(host, port, timeout_s=timeout_s)))
    failure: OSError | None = None
    next_attempt = 0.0
    attempts: dict[int, socket.socket] = {}
    poll = select.poll()
    try:
        while waiting or attempts:
            now = time.monotonic()
            if now >= deadline:
                raise TimeoutError(errno.ETIMEDOUT, "connection timed out")
            if waiting and (now >= next_attempt or not attempts):
                family, where = waiting.popleft()
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                attempts[sock.fileno()] = sock
                code = sock.connect_ex(where)
                if code not in (0, errno.EINPROGRESS):
                    failure = OSError(code, os.strerror(code))
                    attempts.pop(sock.fileno()).close()
                    continue
                poll.register(sock, select.POLLOUT)
                next_attempt = now + ATTEMPT_DELAY_S
            until = min(deadline, next_attempt) if waiting else deadline
            for fd, _ in poll.poll(1000 * max(0.0, until - now)):
                poll.unregister(fd)
                sock = attempts.pop(fd)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    return sock
                failure = OSError(code, os.strerror(code))
                sock.close()
                next_attempt = 0.0
    finally:
        for sock in attempts.values():
            sock.close()
    raise failure or OSError(errno.EADDRNOTAVAIL, "name has no address")


def resolve(host: str, port: int, *, timeout_s: float) -> list[Address]:
    """Give the addresses of ``host``, best first; ``localhost`` is 127.0.0.1, whatever the machine says."""
    host = "127.0.0.1" if host == "localhost" else host
    try:
        version = ipaddress.ip_address(host).version
        return [(socket.AF_INET6 if version == 6 else socket.AF_INET, (host, port))]
    except ValueError:
        pass  # a name
    results: queue.SimpleQueue[list[Address] | OSError] = queue.SimpleQueue()

    def look_up() -> None:  # in a thread of its own: the resolver knows no time-out
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            results.put([(family, where) for family, _, _, _, where in found])
        except OSError as error:
            results.put(error)
        except UnicodeError:
            results.put(socket.gaierror(socket.EAI_NONAME, "not a host name"))

    threading.Thread(target=look_up, daemon=True).start()
    try:
        result = results.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError(errno.ETIMEDOUT, "name resolution timed out") from None
    if isinstance(result, OSError):
        raise result
    return result


def _alternate(addresses: list[Address]) -> list[Address]:
    """Keep the order, but let the families take turns (RFC 8305, section 4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    return [address for address in chain(*zip_longest(first, others)) if address]
