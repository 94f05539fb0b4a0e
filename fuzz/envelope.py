"""Fuzz target: envelopes (CMW) in JSON and CBOR."""

from __future__ import annotations

from enarx.attest import MalformedEvidence, cmw


def one(data: bytes) -> None:
    """Read ``data``; whatever is an envelope must survive being written and read again, in both forms."""
    try:
        message = cmw.parse(data)
    except MalformedEvidence:
        return
    assert cmw.parse(cmw.to_json(message)) == message
    assert cmw.parse(cmw.to_cbor(message)) == message
