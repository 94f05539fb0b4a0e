"""Fuzz target: envelopes (CMW) in JSON and CBOR, and evidence packed into them."""

from __future__ import annotations

import contextlib

from enarx.attest import MalformedEvidence, bundle, cmw
from enarx.attest.registry import BUILTIN
from enarx.tcb.errors import Malformed


def one(data: bytes) -> None:
    """Read ``data``; whatever is an envelope must survive being written and read again, in both forms."""
    with contextlib.suppress(Malformed):
        bundle.unpack(data)
    with contextlib.suppress(Malformed):
        bundle.pack([data, data[: len(data) // 2]], BUILTIN.values())
    try:
        message = cmw.parse(data)
    except MalformedEvidence:
        return
    assert cmw.parse(cmw.to_json(message)) == message
    assert cmw.parse(cmw.to_cbor(message)) == message
