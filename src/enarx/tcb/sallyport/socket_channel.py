"""The stream transport for a process keep: frames, raw bytes and descriptors over a Unix socket pair."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterable, Sequence

from enarx.tcb.errors import EnarxError, Malformed, ProtocolViolation
from enarx.tcb.sallyport import limits
from enarx.tcb.sallyport.items import Item, decode, encode

_INT = array.array("i").itemsize


class ChannelClosed(EnarxError):
    """The other end is gone."""


class SocketChannel:
    """One end of the channel; the same class serves both (docs/spec/sallyport.md, section 5).

    Calls block as long as the socket does (``TimeoutError`` if it has a time-out). One thread a direction.
    After an error the channel is of no further use.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def fileno(self) -> int:
        """Give the descriptor to wait on for the next item."""
        return self._sock.fileno()

    def send(self, item: Item, fds: Sequence[int] = ()) -> None:
        """Send ``item`` and copies of at most three descriptors."""
        if len(fds) > limits.MAX_DESCRIPTORS:
            raise Malformed(
                f"{len(fds)} descriptors beside one item, at most {limits.MAX_DESCRIPTORS} are allowed"
            )
        body = encode(item)
        data = len(body).to_bytes(4, "big") + body
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self._sock.sendmsg([data], rights)
            if sent < len(data):
                self._sock.sendall(memoryview(data)[sent:])
        except (BrokenPipeError, ConnectionResetError):
            raise ChannelClosed("the other end of the channel is closed") from None

    def receive(self) -> tuple[Item, list[int]]:
        """Receive the next item and its descriptors, which are now the caller's to close.

        Raises ``ChannelClosed`` at the end, ``Malformed`` or ``ProtocolViolation`` when the peer misbehaves.
        """
        fds: list[int] = []
        try:
            head = bytearray(4)
            got = self._take(memoryview(head), fds)
            self._fill(memoryview(head)[got:])
            size = int.from_bytes(head, "big")
            if size > limits.MAX_ITEM_BYTES:
                raise Malformed(f"item announces {size} bytes, at most {limits.MAX_ITEM_BYTES} are allowed")
            body = bytearray(size)
            self._fill(memoryview(body))
            return decode(body), fds
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise

    def send_blob(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send raw bytes, whose total the item before has announced."""
        try:
            for part in parts:
                if part:  # sending nothing would fail, too, once the other end has all and is gone
                    self._sock.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            raise ChannelClosed("the other end of the channel is closed") from None

    def receive_blob(self, size: int, max_bytes: int) -> bytearray:
        """Receive the ``size`` raw bytes that an item has announced; ``Malformed`` above ``max_bytes``."""
        if size > max_bytes:
            raise Malformed(f"{size} raw bytes are announced, at most {max_bytes} are allowed")
        blob = bytearray(size)
        self._fill(memoryview(blob))
        return blob

    def close(self) -> None:
        """Close this end; the other one learns of it."""
        self._sock.close()

    def _take(self, view: memoryview, fds: list[int] | None = None) -> int:
        """Receive at least one byte, and descriptors into ``fds``; without ``fds`` they are refused."""
        room = 0 if fds is None else socket.CMSG_LEN(limits.MAX_DESCRIPTORS * _INT)
        try:
            got, ancillary, flags, _ = self._sock.recvmsg_into([view], room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            got, ancillary, flags = 0, [], 0
        surplus = bool(flags & socket.MSG_CTRUNC)
        for level, kind, data in ancillary:
            if fds is None or (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                surplus = True
            else:
                numbers = array.array("i")
                numbers.frombytes(data[: len(data) - len(data) % _INT])
                fds.extend(numbers)
        if surplus:
            raise ProtocolViolation("descriptors arrived where none, or fewer, are allowed")
        if not got:
            raise ChannelClosed("the other end of the channel is closed")
        return got

    def _fill(self, view: memoryview) -> None:
        while view:
            view = view[self._take(view) :]
