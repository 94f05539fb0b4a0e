"""The whole vocabulary between tenant and keep, and its one encoding (docs/spec/session.md, 5)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from enarx.tcb.binding import INSTANCE_BYTES, NONCE_BYTES, Stage
from enarx.tcb.record import field, record
from enarx.tcb.wire import Value, Vocabulary, anything, member, number, octets, text, truth

MAX_MESSAGE_BYTES: Final = 4 << 20
"""A delivery's header with all secrets, or the listing of a tree of 50,000 names, fits."""
MAX_HELLO_BYTES: Final = 256
"""The challenge: nobody makes a keep read more before he has proved a key."""
MAX_CHUNK_BYTES: Final = 256 << 10
"""Payload of one ``Chunk``, ``Input`` or ``Output``."""
MAX_EVIDENCE_BYTES: Final = 1 << 20
MAX_BODY_BYTES: Final = 1 << 30
"""A package: the keep holds it in memory, next to the workload's own."""
MAX_SECRETS_BYTES: Final = 1 << 20
"""All secrets of a delivery together: keys and tokens, not data."""
MAX_OFFSET: Final = (1 << 63) - 1
MAX_TEXT: Final = 1024
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
VERSION: Final = 1


class Stream(IntEnum):
    """Which output."""

    STDOUT = 1
    STDERR = 2


class Message:
    """One message. Nothing but the classes below is ever sent."""

    __slots__ = ()


# Tenant to keep.


@record
class Hello(Message):
    """The challenge; the signature proves that the tenant's key (Ed25519) is at this end of this TLS session."""

    version: int
    nonce: bytes
    key: bytes
    signature: bytes


@record
class Deliver(Message):
    """The workload: ``size`` bytes follow in chunks. The header holds secrets, so it has no representation."""

    header: Value = field(repr=False)
    size: int


@record
class Chunk(Message):
    """The next bytes of the delivery."""

    data: bytes = field(repr=False)


@record
class Run(Message):
    """The locked keep is the right one: run."""


@record
class Attach(Message):
    """Send what the workload wrote from these offsets on, and what it will write."""

    stdout: int
    stderr: int


@record
class Input(Message):
    """Bytes for standard input; none are its end."""

    data: bytes = field(repr=False)


@record
class Stop(Message):
    """End the workload now."""


# Keep to tenant.


@record
class Attestation(Message):
    """Evidence over the binding of this session at ``stage``; the digests are empty until the keep is locked."""

    stage: Stage
    instance: bytes
    workload: bytes
    configuration: bytes
    evidence: bytes = field(repr=False)


@record
class Progress(Message):
    """What the keep is doing, for people."""

    text: str


@record
class Output(Message):
    """What the workload wrote, beginning at ``offset`` of its stream; a gap means that the keep had to forget."""

    stream: Stream
    offset: int
    data: bytes = field(repr=False)


@record
class Extent(Message):
    """Where both streams end at the moment of an ``Attach``, and whether the workload had ended."""

    stdout: int
    stderr: int
    ended: bool


@record
class Exited(Message):
    """The workload has ended; ``audit`` are all records of this keep."""

    outcome: Value
    audit: Value


@record
class Problem(Message):
    """The keep refuses, and says why; the connection is over."""

    text: str
    hint: str


_OFFSET: Final = number(0, MAX_OFFSET)
_DIGEST: Final = octets(32, 0)

VOCABULARY: Final[Vocabulary[Message]] = Vocabulary(
    {
        1: (
            Hello,
            {
                "version": number(VERSION, 1 << 16),
                "nonce": octets(NONCE_BYTES, NONCE_BYTES),
                "key": octets(KEY_BYTES, KEY_BYTES),
                "signature": octets(SIGNATURE_BYTES, SIGNATURE_BYTES),
            },
        ),
        2: (Deliver, {"header": anything, "size": number(0, MAX_BODY_BYTES)}),
        3: (Chunk, {"data": octets(MAX_CHUNK_BYTES)}),
        4: (Run, {}),
        5: (Attach, {"stdout": _OFFSET, "stderr": _OFFSET}),
        6: (Input, {"data": octets(MAX_CHUNK_BYTES, 0)}),
        7: (Stop, {}),
        16: (
            Attestation,
            {
                "stage": member(Stage),
                "instance": octets(INSTANCE_BYTES, INSTANCE_BYTES),
                "workload": _DIGEST,
                "configuration": _DIGEST,
                "evidence": octets(MAX_EVIDENCE_BYTES),
            },
        ),
        17: (Progress, {"text": text(MAX_TEXT)}),
        18: (Output, {"stream": member(Stream), "offset": _OFFSET, "data": octets(MAX_CHUNK_BYTES)}),
        19: (Exited, {"outcome": anything, "audit": anything}),
        20: (Problem, {"text": text(MAX_TEXT), "hint": text(MAX_TEXT, 0)}),
        21: (Extent, {"stdout": _OFFSET, "stderr": _OFFSET, "ended": truth}),
    },
    max_bytes=MAX_MESSAGE_BYTES,
)
