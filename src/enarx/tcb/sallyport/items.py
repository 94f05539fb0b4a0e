"""The whole vocabulary between keep and host, and its one encoding (docs/spec/sallyport.md, 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from enarx.tcb import wire
from enarx.tcb.errors import Malformed
from enarx.tcb.record import record
from enarx.tcb.sallyport import limits
from enarx.tcb.wire import Value


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


Check = Callable[[Value], object]


def _number(low: int, high: int) -> Check:
    def check(value: Value) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Malformed(f"expected an integer of {low} to {high}, found {_show(value)}")
        return value

    return check


def _text(longest: int, shortest: int = 1) -> Check:
    def check(value: Value) -> str:  # printable only: it may reach a terminal or a log
        if type(value) is not str or not shortest <= len(value) <= longest or not value.isprintable():
            raise Malformed(
                f"expected printable text of {shortest} to {longest} characters, found {_show(value)}"
            )
        return value

    return check


def _reason(value: Value) -> Reason:
    for reason in Reason:
        if reason.value == value:
            return reason
    raise Malformed(f"expected a reason, found {_show(value)}")


def _anything(value: Value) -> Value:
    return value


def _show(value: Value) -> str:
    return (
        str(value)
        if type(value) in (int, bool)
        else f"{type(value).__name__}"
        + (f" of length {len(value)}" if isinstance(value, str | bytes | list | dict) else "")
    )


_ID: Final = _number(1, limits.MAX_REQUEST)
_PORT: Final = _number(1, limits.MAX_PORT)
_SIZE: Final = _number(0, limits.MAX_BLOB_BYTES)
_NAME: Final = _text(limits.MAX_NAME)

_TABLE: Final[Mapping[int, tuple[type[Item], Mapping[str, Check]]]] = {
    1: (Ready, {"version": _text(limits.MAX_VERSION)}),
    2: (Listen, {"request": _ID, "address": _NAME, "port": _number(0, limits.MAX_PORT)}),
    3: (Connect, {"request": _ID, "host": _NAME, "port": _PORT}),
    4: (Compiled, {"size": _SIZE}),
    5: (Changed, {"header": _anything, "size": _SIZE}),
    6: (Progress, {"text": _text(limits.MAX_TEXT)}),
    7: (Exited, {"outcome": _anything}),
    16: (Deliver, {"header": _anything, "size": _SIZE}),
    17: (Opened, {"request": _ID, "port": _PORT}),
    18: (Refused, {"request": _ID, "reason": _reason, "detail": _text(limits.MAX_TEXT, 0)}),
    19: (Admit, {}),
}
_TAGS: Final = {kind: tag for tag, (kind, _) in _TABLE.items()}


def encode(item: Item) -> bytes:
    """Give the one encoding of ``item``. Raises ``Malformed`` when a field is outside its limits."""
    tag = _TAGS[type(item)]
    values: list[Value] = [tag]
    for name, check in _TABLE[tag][1].items():
        value = getattr(item, name)
        values.append(value.value if isinstance(value, Enum) else value)
        check(values[-1])
    data = wire.encode(values)
    if len(data) > limits.MAX_ITEM_BYTES:
        raise Malformed(
            f"{type(item).__name__} has {len(data)} bytes, at most {limits.MAX_ITEM_BYTES} are allowed"
        )
    return data


def decode(data: bytes | bytearray | memoryview) -> Item:
    """Read one item. Raises ``Malformed`` unless ``data`` is its one encoding, within limits."""
    message = wire.decode(data, max_bytes=limits.MAX_ITEM_BYTES)
    if (
        not isinstance(message, list)
        or not message
        or type(message[0]) is not int
        or message[0] not in _TABLE
    ):
        raise Malformed("item has no known tag")
    kind, fields = _TABLE[message[0]]
    if len(message) != 1 + len(fields):
        raise Malformed(f"{kind.__name__} has {len(fields)} fields, found {len(message) - 1}")
    loaded: dict[str, object] = {}
    for (name, check), value in zip(fields.items(), message[1:], strict=True):
        try:
            loaded[name] = check(value)
        except Malformed as error:
            raise Malformed(f"{kind.__name__}.{name}: {error}") from None
    return kind(**loaded)
