"""The whole vocabulary between keep and host, and its one encoding (docs/spec/sallyport.md, 2 and 3)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from enarx.tcb.record import record
from enarx.tcb.sallyport import limits
from enarx.tcb.wire import Check, Value, Vocabulary, anything, member, number, text


class Reason(Enum):
    """Why the host refuses a request."""

    ADDRESS_IN_USE = "address-in-use"
    NOT_PERMITTED = "not-permitted"
    UNREACHABLE = "unreachable"
    CONNECTION_REFUSED = "connection-refused"
    NAME_NOT_FOUND = "name-not-found"
    TIMED_OUT = "timed-out"
    LIMIT = "limit"


class Item:
    """One message. Nothing but the classes below is ever sent."""

    __slots__ = ()


# Keep to host.


@record
class Ready(Item):
    """The keep has booted, and names its release."""

    version: str


@record
class Listen(Item):
    """Open a TCP listener; port 0 lets the host choose."""

    request: int
    address: str
    port: int


@record
class Connect(Item):
    """Open a TCP connection."""

    request: int
    host: str
    port: int


@record
class Compiled(Item):
    """Sealed compiled code for the host's cache: ``size`` raw bytes follow."""

    size: int


@record
class Changed(Item):
    """A directory that the workload changed: ``size`` raw bytes follow."""

    header: Value
    size: int


@record
class Progress(Item):
    """What the keep is doing, for people."""

    text: str


@record
class Exited(Item):
    """The workload has ended; the keep sends nothing more."""

    outcome: Value


# Host to keep.


@record
class Deliver(Item):
    """The workload: ``size`` raw bytes follow; standard input, output and error travel beside it."""

    header: Value
    size: int


@record
class Opened(Item):
    """``request`` is fulfilled; ``port`` is the real one. A process keep gets the socket beside it."""

    request: int
    port: int


@record
class Refused(Item):
    """``request`` is not fulfilled; ``detail`` is for people."""

    request: int
    reason: Reason
    detail: str


@record
class Admit(Item):
    """Serve a tenant: beside it travels the door, a socket from which each tenant's connection is taken."""


_ID: Final = number(1, limits.MAX_REQUEST)
_PORT: Final = number(1, limits.MAX_PORT)
_SIZE: Final = number(0, limits.MAX_BLOB_BYTES)
_NAME: Final = text(limits.MAX_NAME)

TABLE: Final[Mapping[int, tuple[type[Item], Mapping[str, Check]]]] = {
    1: (Ready, {"version": text(limits.MAX_VERSION)}),
    2: (Listen, {"request": _ID, "address": _NAME, "port": number(0, limits.MAX_PORT)}),
    3: (Connect, {"request": _ID, "host": _NAME, "port": _PORT}),
    4: (Compiled, {"size": _SIZE}),
    5: (Changed, {"header": anything, "size": _SIZE}),
    6: (Progress, {"text": text(limits.MAX_TEXT)}),
    7: (Exited, {"outcome": anything}),
    16: (Deliver, {"header": anything, "size": _SIZE}),
    17: (Opened, {"request": _ID, "port": _PORT}),
    18: (Refused, {"request": _ID, "reason": member(Reason), "detail": text(limits.MAX_TEXT, 0)}),
    19: (Admit, {}),
}
_VOCABULARY: Final = Vocabulary(TABLE, max_bytes=limits.MAX_ITEM_BYTES)


def encode(item: Item) -> bytes:
    """Give the one encoding of ``item``. Raises ``Malformed`` when a field is outside its limits."""
    return _VOCABULARY.encode(item)


def decode(data: bytes | bytearray | memoryview) -> Item:
    """Read one item. Raises ``Malformed`` unless ``data`` is its one encoding, within limits."""
    return _VOCABULARY.decode(data)
