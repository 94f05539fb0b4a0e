"""One connection of a tenant: TLS over a socket that the host handed in, without ever waiting for it."""

from __future__ import annotations

import select
import socket
from collections import deque
from typing import Final

from OpenSSL import SSL

from enarx.tcb.binding import EXPORTER_BYTES, EXPORTER_LABEL
from enarx.tcb.errors import EnarxError
from enarx.tcb.keep.tls import receive_into, send

READ_BYTES: Final = 1 << 17
"""Taken at once from one connection, so that others get their turn."""


class LineClosed(EnarxError):
    """The other end is gone, or does not speak our TLS."""


class Line:
    """A TLS server's end. Everything returns at once; ``events`` says what to wait for."""

    def __init__(self, sock: socket.socket, context: SSL.Context) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._connection = SSL.Connection(context, sock)
        self._connection.set_accept_state()
        self._waiting: deque[memoryview] = deque()
        self._buffer = bytearray(READ_BYTES)
        self.stalled = False
        """TLS has something to say before it hears more: it goes on when that can be sent."""
        self.pending = 0
        """Bytes that wait to be sent."""
        self.exporter: bytes | None = None
        """Set when the handshake is done."""

    def fileno(self) -> int:
        """Give the socket to wait on."""
        return self._sock.fileno()

    @property
    def events(self) -> int:
        """What to poll for."""
        if self.stalled:
            return select.POLLOUT  # what can be read would be told of again and again
        return select.POLLIN | (select.POLLOUT if self._waiting else 0)

    def shake_hands(self) -> bool:
        """Go on with the handshake; say whether it is done. Raises ``LineClosed``."""
        self.stalled = False
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.WantWriteError:
            self.stalled = True
            return False
        except (SSL.Error, OSError):
            raise LineClosed("the handshake failed") from None
        self.exporter = self._connection.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES)
        return True

    def receive(self) -> bytes:
        """Give what has arrived, at most ``READ_BYTES``; nothing when nothing has. Raises ``LineClosed``."""
        view, taken = memoryview(self._buffer), 0
        self.stalled = False
        while taken < READ_BYTES:
            try:
                taken += receive_into(self._connection, view[taken:])
            except SSL.WantReadError:
                break
            except SSL.WantWriteError:
                self.stalled = True
                break
            except (SSL.Error, OSError):
                if taken:
                    break  # what came before the end counts
                raise LineClosed("the tenant is gone") from None
        return bytes(view[:taken])

    @property
    def buffered(self) -> bool:
        """Whether OpenSSL holds bytes that no poll tells of."""
        return self._connection.pending() > 0

    def queue(self, data: bytes) -> None:
        """Send ``data`` when it can be sent."""
        if data:
            self._waiting.append(memoryview(data))
            self.pending += len(data)

    def flush(self) -> None:
        """Send what can be sent now. Raises ``LineClosed``."""
        try:
            while self._waiting:
                sent = send(self._connection, self._waiting[0])
                self.pending -= sent
                if sent == len(self._waiting[0]):
                    self._waiting.popleft()
                else:
                    self._waiting[0] = self._waiting[0][sent:]
        except (SSL.WantReadError, SSL.WantWriteError):
            return
        except (SSL.Error, OSError):
            raise LineClosed("the tenant is gone") from None

    def finish(self) -> None:
        """Tell the other end that nothing more comes; it may still be read."""
        try:
            self._connection.shutdown()
            self._sock.shutdown(socket.SHUT_WR)
        except (SSL.Error, OSError):
            return  # it is gone: there is nobody to tell

    def close(self) -> None:
        """Give the socket back."""
        self._sock.close()
