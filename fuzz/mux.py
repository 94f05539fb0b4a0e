"""Fuzz target: what either end of a VM keep's port may be sent."""

from __future__ import annotations

import contextlib

from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.sallyport.mux import MAX_STREAMS, MAX_WINDOW, Arrived, Mux


def one(data: bytes) -> None:
    """Give ``data`` to a host's end with two streams, and to a keep's, in pieces of two sizes."""
    host, keep = Mux(host=True), Mux(host=False)
    host.open(0)
    host.open(7)
    out = memoryview(bytearray(1 << 17))
    for mux, size in ((host, 5), (keep, 1 << 16)):
        used = 0
        with contextlib.suppress(ProtocolViolation):
            for at in range(0, len(data), size):
                for event in mux.receive(data[at : at + size]):
                    if isinstance(event, Arrived):
                        used += len(event.data)
                        mux.consumed(event.stream, len(event.data) // 2)
                        mux.want(event.stream)
                mux.fill(out, lambda stream, place: (len(place), False))
        assert used <= len(data)
        assert len(mux._streams) <= MAX_STREAMS + 1
        assert len(mux._urgent) <= 28 * (len(data) + MAX_WINDOW)
