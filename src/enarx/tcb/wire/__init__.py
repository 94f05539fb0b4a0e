"""How bytes become values: fixed layouts, a bounded reader, framing, one deterministic encoding. Pure."""

from enarx.tcb.wire._codec import Value, decode, encode
from enarx.tcb.wire._frames import FrameDecoder, frame
from enarx.tcb.wire._layout import Layout
from enarx.tcb.wire._reader import Reader
from enarx.tcb.wire._vocabulary import Check, Vocabulary, anything, member, number, octets, text, truth

__all__ = [
    "Check",
    "FrameDecoder",
    "Layout",
    "Reader",
    "Value",
    "Vocabulary",
    "anything",
    "decode",
    "encode",
    "frame",
    "member",
    "number",
    "octets",
    "text",
    "truth",
]
