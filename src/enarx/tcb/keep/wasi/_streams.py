"""Byte streams over sockets, plain and TLS.

A socket blocks exactly when the guest wants its descriptor to: a blocking call is then one system call. The
host may hold the same socket and change that; then a blocking call waits by itself.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import ClassVar, Final

from OpenSSL import SSL

from enarx.tcb.keep import tls
from enarx.tcb.keep.wasi._abi import (
    RI_RECV_PEEK,
    RI_RECV_WAITALL,
    SD_RD,
    SD_WR,
    Errno,
    FdFlags,
    FileType,
    Rights,
    WasiError,
)
from enarx.tcb.keep.wasi._fds import Buffers, Descriptor, Readiness
from enarx.tcb.keep.wasi._stdio import available

SOCKET_RIGHTS: Final = Rights.FD_FDSTAT_SET_FLAGS | Rights.FD_FILESTAT_GET | Rights.POLL_FD_READWRITE
STREAM_RIGHTS: Final = SOCKET_RIGHTS | Rights.FD_READ | Rights.FD_WRITE | Rights.SOCK_SHUTDOWN
MAX_VECTORS: Final = 1024
"""``IOV_MAX`` of Linux."""
MAX_GATHER: Final = 4 * tls.RECORD_BYTES
"""How much of a gathered write is joined at once for TLS."""


MAX_LINGERING: Final = 64
LINGER_S: Final = 10.0
"""How many closed TLS streams, and for how long, may wait for a slow peer to take their last record."""
_lingering: Final = threading.BoundedSemaphore(MAX_LINGERING)


def wait(fd: int, event: int, deadline: float | None = None) -> None:
    """Wait until ``fd`` shows ``event``, an error or the end, or until ``deadline``."""
    poll = select.poll()
    poll.register(fd, event)
    poll.poll(None if deadline is None else 1000 * max(0.0, deadline - time.monotonic()))


def failure(number: int | None) -> WasiError:
    """Give the guest's error for one of the operating system."""
    name = errno.errorcode.get(number or 0, "EIO")
    return WasiError(Errno.__members__.get(name[1:], Errno.IO))


class Socket(Descriptor):
    """What streams and listeners share."""

    filetype: ClassVar[FileType] = FileType.SOCKET_STREAM

    def __init__(self, sock: socket.socket, *, rights: Rights) -> None:
        super().__init__(rights=rights)
        self._sock = sock
        self._nonblocking = False

    def set_flags(self, flags: FdFlags) -> None:
        """Take NONBLOCK; a socket has no other flag."""
        if flags & ~FdFlags.NONBLOCK:
            raise WasiError(Errno.INVAL)
        self._nonblocking = bool(flags)
        self._sock.setblocking(not flags)
        self.flags = flags

    def ready(self, *, write: bool) -> Readiness | None:
        """Ask the operating system."""
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT if write else select.POLLIN | select.POLLRDHUP)
        for fd, events in poll.poll(0):
            hangup = events & (select.POLLHUP | select.POLLERR | select.POLLRDHUP)
            return Readiness(1 if write else available(fd), bool(hangup))
        return None

    def accept(self, flags: FdFlags) -> Descriptor:
        """Refuse: only a listener accepts."""
        raise WasiError(Errno.INVAL)

    def waitable(self) -> int:
        """Give the socket's descriptor."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def _do(self, event: int, step: Callable[..., int], *arguments: object) -> int:
        """Do ``step``; when it would block, wait or answer AGAIN as the guest wants."""
        while True:
            try:
                return step(*arguments)
            except BlockingIOError:
                pass
            except SSL.WantReadError:
                event = select.POLLIN
            except SSL.WantWriteError:
                event = select.POLLOUT
            except SSL.ZeroReturnError:
                return 0
            except SSL.SysCallError as error:  # -1 is an end of which TLS did not say: the stream was cut off
                raise failure(errno.ECONNRESET if error.args[0] == -1 else error.args[0]) from None
            except SSL.Error:
                raise WasiError(Errno.PROTO) from None
            except OSError as error:
                raise failure(error.errno) from None
            if self._nonblocking:
                raise WasiError(Errno.AGAIN)
            wait(self._sock.fileno(), event)


class Stream(Socket):
    """A TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, rights=STREAM_RIGHTS)

    def read(self, buffers: Buffers) -> int:
        """Receive straight into the guest's memory."""
        return self._do(select.POLLIN, self._receive, buffers, 0)

    def receive(self, buffers: Buffers, flags: int) -> tuple[int, int]:
        """Receive, with PEEK and WAITALL."""
        if flags & ~(RI_RECV_PEEK | RI_RECV_WAITALL):
            raise WasiError(Errno.INVAL)
        return self._do(select.POLLIN, self._receive, buffers, flags), 0

    def write(self, buffers: Buffers) -> int:
        """Send straight from the guest's memory."""
        return self._do(select.POLLOUT, self._send, buffers)

    def send(self, buffers: Buffers) -> int:
        """Send straight from the guest's memory."""
        return self._do(select.POLLOUT, self._send, buffers)

    def shutdown(self, how: int) -> None:
        """End one direction or both."""
        try:
            self._sock.shutdown(how - 1)  # SD_RD, SD_WR and both are SHUT_RD, SHUT_WR and SHUT_RDWR, plus one
        except OSError as error:
            raise failure(error.errno) from None

    def _receive(self, buffers: Buffers, flags: int) -> int:
        native = _MSG[flags]
        if len(buffers) == 1:
            return self._sock.recv_into(buffers[0], 0, native) if buffers[0] else 0
        return self._sock.recvmsg_into(buffers[:MAX_VECTORS], 0, native)[0] if any(buffers) else 0

    def _send(self, buffers: Buffers) -> int:
        if len(buffers) == 1:
            return self._sock.send(buffers[0])
        return self._sock.sendmsg(buffers[:MAX_VECTORS])


_MSG: Final = (0, socket.MSG_PEEK, socket.MSG_WAITALL, socket.MSG_PEEK | socket.MSG_WAITALL)


class TlsStream(Stream):
    """A TLS connection whose handshake is done."""

    def __init__(self, sock: socket.socket, connection: SSL.Connection) -> None:
        super().__init__(sock)
        self._tls = connection
        self._unsent = memoryview(b"")  # content that OpenSSL has sealed and the system has not taken
        self._deaf = self._mute = False

    def ready(self, *, write: bool) -> Readiness | None:
        """Tell of content, not of bytes on the wire: part of a record is not readable yet."""
        waiting = 0 if write else self._tls.pending()
        if waiting:
            return Readiness(waiting)
        readiness = super().ready(write=write)
        if readiness is None or (write and not self._unsent) or self._deaf:
            return readiness
        self._sock.setblocking(False)
        try:
            if write:
                self._flush()
                return readiness
            self._tls.recv_into(bytearray(1), None, socket.MSG_PEEK)
            return Readiness(self._tls.pending())
        except (SSL.WantReadError, SSL.WantWriteError):
            return None
        except (SSL.Error, OSError):
            return Readiness(0, hangup=True)  # a read or write says more
        finally:
            self._sock.setblocking(not self._nonblocking)

    def shutdown(self, how: int) -> None:
        """End one direction or both; the peer is told so before the connection says it."""
        if how & SD_WR:
            self._do(select.POLLOUT, self._flush)
            self._goodbye()
            self._mute = True
        self._deaf = self._deaf or bool(how & SD_RD)
        super().shutdown(how)

    def close(self) -> None:
        """Close; the peer is told so unless that would block. What counts as sent is still being sent."""
        if not self._goodbye() and self._unsent and _lingering.acquire(blocking=False):
            threading.Thread(target=self._linger, daemon=True, name="linger").start()
        else:
            self._sock.close()

    def _linger(self) -> None:
        deadline = time.monotonic() + LINGER_S
        while time.monotonic() < deadline and not self._goodbye() and self._unsent:
            wait(self._sock.fileno(), select.POLLOUT, deadline)
        self._sock.close()
        _lingering.release()

    def _receive(self, buffers: Buffers, flags: int) -> int:
        if self._deaf:
            return 0
        if not flags and len(buffers) == 1:
            return tls.receive_into(self._tls, buffers[0]) if buffers[0] else 0
        if flags & RI_RECV_PEEK:  # what one record holds: OpenSSL looks no further
            return self._peek(buffers)
        total = 0
        for view in buffers:
            while view and (not total or flags & RI_RECV_WAITALL or self._tls.pending()):
                try:
                    received = tls.receive_into(self._tls, view)
                except SSL.Error:
                    if total:  # what it is comes again with the next call
                        return total
                    raise
                view = view[received:]
                total += received
        return total

    def _peek(self, buffers: Buffers) -> int:
        ahead = memoryview(bytearray(min(tls.RECORD_BYTES, sum(map(len, buffers)))))
        left = total = self._tls.recv_into(ahead, None, socket.MSG_PEEK) if ahead else 0
        for view in buffers:
            size = min(len(view), left)
            view[:size] = ahead[total - left : total - left + size]
            left -= size
        return total

    def _send(self, buffers: Buffers) -> int:
        if self._mute:
            raise BrokenPipeError(errno.EPIPE, "shut down")
        if self._unsent:
            self._flush()
        content = buffers[0] if len(buffers) == 1 else _joined(buffers)
        sent = 0
        while sent < len(content):
            record = content[sent : sent + tls.RECORD_BYTES]
            try:
                sent += tls.send(self._tls, record)
            except (SSL.WantReadError, SSL.WantWriteError):
                # OpenSSL insists on sending this record next, but the guest need not: so it counts as sent
                self._unsent = memoryview(bytes(record))
                sent += len(record)
                if self._nonblocking:
                    break
                self._do(select.POLLOUT, self._flush)
            except SSL.Error:
                if sent:
                    return sent
                raise
        return sent

    def _flush(self) -> int:
        while self._unsent:
            self._unsent = self._unsent[tls.send(self._tls, self._unsent) :]
        return 0

    def _goodbye(self) -> bool:
        """Send what is left and the end, if that does not block."""
        self._sock.setblocking(False)
        try:
            self._flush()
            self._tls.shutdown()
            return True
        except (SSL.WantReadError, SSL.WantWriteError):
            return False
        except (SSL.Error, OSError):
            self._unsent = memoryview(b"")  # nobody is there to take it
            return False
        finally:
            self._sock.setblocking(not self._nonblocking)


def _joined(buffers: Buffers) -> memoryview:
    room = MAX_GATHER
    parts = []
    for view in buffers:
        parts.append(view[:room])
        room -= len(parts[-1])
        if not room:
            break
    return memoryview(b"".join(parts))
