"""Listeners: plain ones accept by themselves; those for TLS have one thread that shakes hands for them all.

A client that is slow or silent occupies a place among the handshakes, never the workload. When all places are
taken, the oldest handshake gives way to the newest.
"""

from __future__ import annotations

import os
import select
import selectors
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Final

from OpenSSL import SSL

from enarx.tcb.keep.tls import HANDSHAKE_TIMEOUT_S
from enarx.tcb.keep.wasi._abi import Errno, FdFlags, Rights, WasiError
from enarx.tcb.keep.wasi._fds import Buffers, Descriptor, Readiness
from enarx.tcb.keep.wasi._streams import SOCKET_RIGHTS, STREAM_RIGHTS, Socket, Stream, TlsStream, wait

LISTENER_RIGHTS: Final = SOCKET_RIGHTS | Rights.FD_READ | Rights.SOCK_ACCEPT
MAX_HANDSHAKES: Final = 256
"""Unfinished handshakes of one keep, about 50 KB each."""
MAX_READY: Final = 128
"""Finished connections that wait for the workload; then the kernel's backlog fills."""
RETRY_S: Final = 0.1
"""How long a listener rests when the system has no descriptor or memory for a connection."""


class Listener(Socket):
    """A listening socket for plain TCP."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, rights=LISTENER_RIGHTS)
        self.inheriting = STREAM_RIGHTS
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
            )  # for its connections: no guest can ask

    def accept(self, flags: FdFlags) -> Descriptor:
        """Take the next connection."""
        accepted: list[socket.socket] = []

        def step() -> int:
            try:
                accepted.append(self._sock.accept()[0])
            except ConnectionAbortedError:  # that client gave up; there may be others
                raise BlockingIOError from None
            return 0

        self._do(select.POLLIN, step)
        return _configured(Stream(accepted[0]), flags)

    def receive(self, buffers: Buffers, flags: int) -> tuple[int, int]:
        """Refuse: a listener is connected to nobody."""
        raise WasiError(Errno.NOTCONN)

    def send(self, buffers: Buffers) -> int:
        """Refuse, for the same reason."""
        raise WasiError(Errno.NOTCONN)

    def ready(self, *, write: bool) -> Readiness | None:
        """Say whether a connection waits."""
        if write:
            raise WasiError(Errno.NOTSUP)
        return super().ready(write=False)


class TlsListener(Listener):
    """A listening socket for TLS: connections come from the acceptor once their handshake is done."""

    def __init__(self, sock: socket.socket, context: SSL.Context, acceptor: Acceptor) -> None:
        super().__init__(sock)
        self.sock = sock
        self.context = context
        self.finished: deque[TlsStream] = deque()
        self.tokens = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        self.armed = self.closed = False
        self.rest_until = 0.0
        self._acceptor = acceptor
        sock.setblocking(False)
        acceptor.add(self)

    def accept(self, flags: FdFlags) -> Descriptor:
        """Take the next connection whose handshake is done."""
        self._acceptor.start()
        while True:
            try:
                os.eventfd_read(self.tokens)
                break
            except BlockingIOError:
                if self._nonblocking:
                    raise WasiError(Errno.AGAIN) from None
                wait(self.tokens, select.POLLIN)
        if not self.finished:  # a token without a connection: the acceptor has failed
            raise WasiError(Errno.IO)
        stream = self.finished.popleft()
        if len(self.finished) >= MAX_READY - 1:
            self._acceptor.wake()
        return _configured(stream, flags)

    def ready(self, *, write: bool) -> Readiness | None:
        """Say whether a connection waits."""
        if write:
            raise WasiError(Errno.NOTSUP)
        self._acceptor.start()
        return Readiness(len(self.finished)) if self.finished else None

    def waitable(self) -> int:
        """Give the event that counts finished connections."""
        return self.tokens

    def _let_block(self) -> None:
        """Do nothing: the socket is the acceptor's."""

    def close(self) -> None:
        """Leave the rest to the acceptor, who may be using it."""
        self.closed = True
        self._acceptor.start()
        self._acceptor.wake()


def _configured(stream: Stream, flags: FdFlags) -> Stream:
    stream.set_flags(flags)
    return stream


@dataclass(frozen=True, slots=True, eq=False)
class _Handshake:
    listener: TlsListener
    sock: socket.socket
    connection: SSL.Connection
    deadline: float


class Acceptor:
    """The thread. It starts when the workload first asks for a connection, and so under its lock-down.

    ``shared`` says that the guest has several threads.
    """

    def __init__(self, *, shared: bool, timeout_s: float = HANDSHAKE_TIMEOUT_S) -> None:
        self._shared = shared
        self._timeout_s = timeout_s
        self._starting = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._listeners: list[TlsListener] = []
        self._handshakes: dict[_Handshake, None] = {}  # the oldest, and so the first to expire, comes first
        self._thread: threading.Thread | None = None

    def add(self, listener: TlsListener) -> None:
        """Serve ``listener`` too. Not after the start."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Start, unless that has happened."""
        with self._starting:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, daemon=True, name="acceptor")
            self._thread.start()

    def wake(self) -> None:
        """Have the thread look at its listeners again."""
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        try:
            timeout = self._tend()
            while self._listeners:
                for key, _ in self._selector.select(timeout):
                    if key.fileobj == self._wake:
                        os.eventfd_read(self._wake)
                    elif isinstance(key.data, TlsListener):
                        self._accept(key.data)
                    elif key.data in self._handshakes:
                        self._advance(key.data)
                timeout = self._tend()
        finally:  # whatever happened, no workload waits for ever
            for listener in self._listeners:
                os.eventfd_write(listener.tokens, 1 << 32)

    def _tend(self) -> float | None:
        """Let handshakes expire and listeners rest, resume or end; give the time until that is due again."""
        now = time.monotonic()
        for handshake in list(self._handshakes):
            if handshake.deadline > now:
                break
            self._drop(handshake)
        due = [handshake.deadline for handshake in islice(self._handshakes, 1)]
        for listener in list(self._listeners):
            full = len(listener.finished) >= MAX_READY
            resting = listener.rest_until > now
            armed = not (full or resting or listener.closed)
            if armed and not listener.armed:
                self._selector.register(listener.sock, selectors.EVENT_READ, listener)
            elif listener.armed and not armed:
                self._selector.unregister(listener.sock)
            listener.armed = armed
            if listener.closed:
                self._end(listener)
            elif resting or full:  # the workload wakes us when there is room, but several threads may miss it
                due.append(max(listener.rest_until, now + RETRY_S))
        return max(0.0, min(due) - now) if due else None

    def _end(self, listener: TlsListener) -> None:
        self._listeners.remove(listener)
        for handshake in [it for it in self._handshakes if it.listener is listener]:
            self._drop(handshake)
        for stream in listener.finished:
            stream.close()
        listener.sock.close()
        os.close(listener.tokens)

    def _accept(self, listener: TlsListener) -> None:
        try:
            sock = listener.sock.accept()[0]
        except (BlockingIOError, ConnectionAbortedError):
            return  # that client gave up
        except OSError:
            listener.rest_until = time.monotonic() + RETRY_S
            return
        if len(self._handshakes) >= MAX_HANDSHAKES:
            self._drop(next(iter(self._handshakes)))
        sock.setblocking(False)
        connection = SSL.Connection(listener.context, sock)
        connection.set_accept_state()
        handshake = _Handshake(listener, sock, connection, time.monotonic() + self._timeout_s)
        self._handshakes[handshake] = None
        self._selector.register(sock, selectors.EVENT_READ, handshake)

    def _advance(self, handshake: _Handshake) -> None:
        try:
            handshake.connection.do_handshake()
        except SSL.WantReadError:
            self._selector.modify(handshake.sock, selectors.EVENT_READ, handshake)
        except SSL.WantWriteError:
            self._selector.modify(handshake.sock, selectors.EVENT_WRITE, handshake)
        except (SSL.Error, OSError):
            self._drop(handshake)
        else:
            self._selector.unregister(handshake.sock)
            del self._handshakes[handshake]
            handshake.listener.finished.append(
                TlsStream(handshake.sock, handshake.connection, shared=self._shared)
            )
            os.eventfd_write(handshake.listener.tokens, 1)

    def _drop(self, handshake: _Handshake) -> None:
        del self._handshakes[handshake]
        self._selector.unregister(handshake.sock)
        handshake.sock.close()
