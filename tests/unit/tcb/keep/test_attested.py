"""What an attested keep remembers of the connections that it loses."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from enarx.tcb.keep.attested import AttestedKeep, Peer
from enarx.tcb.keep.line import Line
from enarx.tcb.keep.tls import self_signed, server_context
from enarx.tcb.sallyport.socket_channel import SocketChannel


@pytest.mark.parametrize("finished", [True, False], ids=["sent", "not sent"])
def test_an_end_that_never_left_the_keep_is_not_told(finished: bool) -> None:
    host, ours = socket.socketpair()
    tenant, theirs = socket.socketpair()
    context = server_context(self_signed("keep", now=datetime.now(UTC)))
    with host, tenant, ours:
        keep = AttestedKeep(SocketChannel(ours), -1, cast("Any", None), required=False)
        peer = Peer(Line(theirs, context), 0.0)
        peer.tells_end, peer.finished, keep._told_end = True, finished, True
        keep._leave(peer)
        assert keep._told_end is finished
