"""One tenant's connection, seen from the keep."""

from __future__ import annotations

import contextlib
import select
import socket
from datetime import UTC, datetime

from OpenSSL import SSL

from enarx.tcb.keep.line import Line
from enarx.tcb.keep.tls import self_signed, server_context


def test_a_peer_that_does_not_read_makes_a_keep_wait_and_not_turn() -> None:
    """Bytes that cannot be taken yet must not wake it; room to send must."""
    ours, theirs = socket.socketpair()
    client = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    client.set_connect_state()
    with ours, theirs:
        ours.setblocking(False)
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += ours.send(bytes(4096))
        line = Line(ours, server_context(self_signed("keep", now=datetime.now(UTC))))
        with contextlib.suppress(SSL.WantReadError):
            client.do_handshake()
        theirs.sendall(client.bio_read(1 << 16))
        assert line.shake_hands() is False
        assert (line.stalled, line.events) == (True, select.POLLOUT)
        while filled:
            filled -= len(theirs.recv(filled))
        assert line.shake_hands() is False
        assert (line.stalled, line.events) == (False, select.POLLIN)
        assert line.exporter is None
