"""Byte streams over sockets, plain and TLS.

A socket blocks exactly when the guest wants its descriptor to: a blocking call is then one system call. The
host may hold the same socket and change that; then a blocking call waits by itself.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
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


def wait(fd: int, event: int) -> None:
    """Wait until ``fd`` shows ``event``, an error or the end; BADF when another thread has closed it."""
    if fd < 0:
        raise WasiError(Errno.BADF)
    poll = select.poll()
    poll.register(fd, event)
    poll.poll()


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
        self._let_block()
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

    def _let_block(self) -> None:
        self._sock.setblocking(not self._nonblocking)

    def _do(self, event: int, step: Callable[..., int], *arguments: object) -> int:
        """Do ``step``; when it would block, wait or answer AGAIN as the guest wants."""
        try:
            return step(*arguments)
        except (SSL.Error, OSError) as error:
            return self._go_on(error, event, step, *arguments)

    def _go_on(self, error: Exception, event: int, step: Callable[..., int], *arguments: object) -> int:
        """Do ``step`` again after ``error`` if that only says to wait."""
        while True:
            try:
                awaited = _awaited(error, event)
            finally:
                # Its traceback holds this frame: a name for it here would make a cycle, with buffers of OpenSSL's
                # calls in it that the garbage collector must never have to take apart.
                del error
            if awaited is None:
                return 0
            if self._nonblocking:
                raise WasiError(Errno.AGAIN) from None
            wait(self._sock.fileno(), awaited)
            try:
                return step(*arguments)
            except (SSL.Error, OSError) as another:
                error = another


def _awaited(error: Exception, event: int) -> int | None:
    """Say what to wait for after ``error``, or None at the end of the stream. Raises ``WasiError``."""
    match error:
        case BlockingIOError():
            return event
        case SSL.WantReadError():
            return select.POLLIN
        case SSL.WantWriteError():
            return select.POLLOUT
        case SSL.ZeroReturnError():
            return None
        case SSL.SysCallError():  # -1 is an end of which TLS did not say: the stream was cut off
            number = error.args[0]
            raise failure(errno.ECONNRESET if number == -1 else number) from None
        case OSError():
            raise failure(error.errno) from None
    raise WasiError(Errno.PROTO) from None


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
    """A TLS connection whose handshake is done.

    OpenSSL must not be entered twice at once for one connection, so each entry is made under a lock. ``shared`` says
    that the guest has several threads: then no entry ever waits, and waiting is done without the lock.
    """

    def __init__(self, sock: socket.socket, connection: SSL.Connection, *, shared: bool) -> None:
        super().__init__(sock)
        self._tls = connection
        self._shared = shared
        self._lock = threading.Lock()
        self._deaf = self._mute = False
        # A record that is sealed cannot be taken back. While the system does not take it, the guest is told that it
        # is not sent, and must give the same content again.
        self._sealed = memoryview(b"")
        self._promised = memoryview(b"")

    def ready(self, *, write: bool) -> Readiness | None:
        """Tell of content, not of bytes on the wire: part of a record is not readable yet."""
        if write:
            return super().ready(write=True)
        with self._lock:
            if self._deaf:
                return Readiness(0, hangup=True)
            self._sock.setblocking(False)
            try:
                self._tls.recv_into(bytearray(1), None, socket.MSG_PEEK)
                return Readiness(self._tls.pending())
            except (SSL.WantReadError, SSL.WantWriteError):
                return None
            except (SSL.Error, OSError):
                return Readiness(0, hangup=True)  # the end or a failure: a read says which
            finally:
                self._let_block()

    def read(self, buffers: Buffers) -> int:
        """Receive straight into the guest's memory."""
        if len(buffers) != 1 or not buffers[0]:
            return super().read(buffers)
        try:  # in as few steps as can be: this is the hot path
            with self._lock:
                return 0 if self._deaf else tls.receive_into(self._tls, buffers[0])
        except (SSL.Error, OSError) as error:
            return self._go_on(error, select.POLLIN, self._receive_one, buffers[0])

    def receive(self, buffers: Buffers, flags: int) -> tuple[int, int]:
        """Receive, with PEEK and WAITALL; PEEK sees no further than the first record."""
        if flags != RI_RECV_WAITALL:
            return super().receive(buffers, flags)
        total = 0
        for view in buffers:
            total += (received := self._all(self._receive_one, select.POLLIN, view, stop=total > 0))
            if received < len(view):
                break
        return total, 0

    def write(self, buffers: Buffers) -> int:
        """Send straight from the guest's memory."""
        content = buffers[0] if len(buffers) == 1 else _joined(buffers)
        if not content:
            return 0
        try:
            size = self._send_one(content)
        except (SSL.Error, OSError) as error:
            size = self._go_on(error, select.POLLOUT, self._send_one, content)
        if not size or size == len(content):
            return size
        return size + self._all(self._send_one, select.POLLOUT, content[size:], stop=True)

    send = write

    def shutdown(self, how: int) -> None:
        """End one direction or both; the peer is told so before the connection says it."""
        self._end(read=bool(how & SD_RD), write=bool(how & SD_WR))
        super().shutdown(how)

    def close(self) -> None:
        """Close; the peer is told so unless that would block."""
        self._end(read=True, write=True)
        super().close()

    def _all(
        self, step: Callable[[memoryview], int], event: int, view: memoryview, stop: bool = False
    ) -> int:
        """Do ``step`` with the rest of ``view`` until it is done; what fails after a success fails the next call."""
        done = 0
        while done < len(view):
            try:
                size = self._do(event, step, view[done:] if done else view)
            except WasiError:
                if done or stop:
                    break
                raise
            if not size:
                break
            done += size
        return done

    def _receive(self, buffers: Buffers, flags: int) -> int:
        if len(buffers) == 1 and not flags:
            return self._receive_one(buffers[0]) if buffers[0] else 0
        with self._lock:
            ahead = memoryview(bytearray(min(tls.RECORD_BYTES, sum(map(len, buffers)))))
            if self._deaf or not ahead:
                return 0
            left = total = self._tls.recv_into(ahead, None, socket.MSG_PEEK if flags & RI_RECV_PEEK else 0)
        for view in buffers:
            size = min(len(view), left)
            view[:size] = ahead[total - left : total - left + size]
            left -= size
        return total

    def _receive_one(self, view: memoryview) -> int:
        with self._lock:
            return 0 if self._deaf else tls.receive_into(self._tls, view)

    def _send_one(self, content: memoryview) -> int:
        with self._lock:
            if self._mute:
                raise BrokenPipeError(errno.EPIPE, "shut down")
            if self._promised:
                return self._keep_promise(content)
            try:
                return tls.send(self._tls, content)
            except (SSL.WantReadError, SSL.WantWriteError):
                self._sealed = self._promised = memoryview(bytes(content[: tls.RECORD_BYTES]))
                raise

    def _keep_promise(self, content: memoryview) -> int:
        size = min(len(content), len(self._promised))
        if content[:size] != self._promised[:size]:
            raise WasiError(Errno.IO)
        while self._sealed:
            self._sealed = self._sealed[tls.send(self._tls, self._sealed) :]
        self._promised = self._promised[size:]
        return size

    def _end(self, *, read: bool, write: bool) -> None:
        with self._lock:
            if write and not self._mute:
                self._sock.setblocking(False)
                with contextlib.suppress(SSL.Error, OSError):  # the peer is gone or does not listen
                    self._tls.shutdown()
                self._let_block()
            self._deaf |= read
            self._mute |= write

    def _let_block(self) -> None:
        self._sock.setblocking(not self._nonblocking and not self._shared)


def _joined(buffers: Buffers) -> memoryview:
    room = MAX_GATHER
    parts = []
    for view in buffers:
        parts.append(view[:room])
        room -= len(parts[-1])
        if not room:
            break
    return memoryview(b"".join(parts))
