"""Fuzz target: what either side of the sallyport may be sent, item by item."""

from __future__ import annotations

import contextlib

from enarx.host.sallyport import Host, Permissions, Scope
from enarx.tcb.errors import EnarxError, Malformed
from enarx.tcb.sallyport.guest import Guest
from enarx.tcb.sallyport.items import Connect, Deliver, Listen, Ready, decode, encode
from enarx.tcb.wire import FrameDecoder


def one(data: bytes) -> None:
    """Read ``data`` as frames; each body begins with the number of descriptors beside it."""
    decoder = FrameDecoder(max_bytes=1 << 20)
    decoder.feed(data)
    guest = Guest(sockets=True)
    guest.listen("::", 0)
    guest.connect("db", 80)
    host = Host(Permissions(listen=Scope.ANY, connect=frozenset({("db", 80)})))
    host.received(Ready(version="1"), 0)
    host.deliver(Deliver(header=None, size=0))
    with contextlib.suppress(Malformed):
        for body in decoder.frames():
            _one(body[1:], body[:1], guest, host)


def _one(body: bytes, count: bytes, guest: Guest, host: Host) -> None:
    item = decode(body)
    assert encode(item) == body
    descriptors = int.from_bytes(count, "big")
    with contextlib.suppress(EnarxError):
        guest.answered(item, descriptors)
    with contextlib.suppress(EnarxError):
        guest.delivered(item, descriptors)
    with contextlib.suppress(EnarxError):
        host.received(item, descriptors)
        if isinstance(item, Listen | Connect):
            host.refusal(item)
