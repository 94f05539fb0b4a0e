"""Closed vocabularies: every message of a protocol in one table, each field with what it may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Generic, TypeVar

from enarx.tcb.errors import Malformed
from enarx.tcb.wire._codec import Value, decode, encode

_M = TypeVar("_M")
Check = Callable[[Value], object]
"""Gives what the field of the message holds, or raises ``Malformed``."""


class Vocabulary(Generic[_M]):
    """Messages by tag; a message is the list of its tag and its fields in order, and has one encoding."""

    def __init__(self, table: Mapping[int, tuple[type[_M], Mapping[str, Check]]], *, max_bytes: int) -> None:
        self._table = table
        self._tags: dict[type[Any], int] = {kind: tag for tag, (kind, _) in table.items()}
        self._max_bytes = max_bytes

    def encode(self, message: _M) -> bytes:
        """Give the one encoding of ``message``. Raises ``Malformed`` when a field is outside its limits."""
        tag = self._tags[type(message)]
        values: list[Value] = [tag]
        for name, check in self._table[tag][1].items():
            value = getattr(message, name)
            values.append(value.value if isinstance(value, Enum) else value)
            check(values[-1])
        data = encode(values)
        if len(data) > self._max_bytes:
            kind = type(message).__name__
            raise Malformed(f"{kind} has {len(data)} bytes, at most {self._max_bytes} are allowed")
        return data

    def decode(self, data: bytes | bytearray | memoryview) -> _M:
        """Read one message. Raises ``Malformed`` unless ``data`` is its one encoding, within limits."""
        match decode(data, max_bytes=self._max_bytes):
            case [int(tag), *values] if type(tag) is int and tag in self._table:
                kind, fields = self._table[tag]
            case _:
                raise Malformed("message has no known tag")
        if len(values) != len(fields):
            raise Malformed(f"{kind.__name__} has {len(fields)} fields, found {len(values)}")
        loaded: dict[str, object] = {}
        for (name, check), value in zip(fields.items(), values, strict=True):
            try:
                loaded[name] = check(value)
            except Malformed as error:
                raise Malformed(f"{kind.__name__}.{name}: {error}") from None
        return kind(**loaded)


def number(low: int, high: int) -> Check:
    """Allow the integers of ``low`` to ``high``."""

    def check(value: Value) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Malformed(f"expected an integer of {low} to {high}, found {show(value)}")
        return value

    return check


def text(longest: int, shortest: int = 1) -> Check:
    """Allow text that may reach a terminal or a log: printable, of so many characters."""

    def check(value: Value) -> str:
        if type(value) is not str or not shortest <= len(value) <= longest or not value.isprintable():
            raise Malformed(
                f"expected printable text of {shortest} to {longest} characters, found {show(value)}"
            )
        return value

    return check


def octets(longest: int, shortest: int = 1) -> Check:
    """Allow so many bytes."""

    def check(value: Value) -> bytes:
        if type(value) is not bytes or not shortest <= len(value) <= longest:
            raise Malformed(f"expected {shortest} to {longest} bytes, found {show(value)}")
        return value

    return check


def truth(value: Value) -> bool:
    """Allow true and false."""
    if type(value) is not bool:
        raise Malformed(f"expected true or false, found {show(value)}")
    return value


def member(enumeration: type[Enum]) -> Check:
    """Allow the values of ``enumeration``."""

    def check(value: Value) -> Enum:
        for one in enumeration:
            if type(value) is type(one.value) and value == one.value:
                return one
        raise Malformed(
            f"expected one of {', '.join(str(it.value) for it in enumeration)}, found {show(value)}"
        )

    return check


def anything(value: Value) -> Value:
    """Allow what the codec allows; whoever receives it checks it."""
    return value


def show(value: Value) -> str:
    """Name ``value`` for people without repeating what a peer has sent."""
    if type(value) in (int, bool):
        return str(value)
    size = f" of length {len(value)}" if isinstance(value, str | bytes | list | dict) else ""
    return type(value).__name__ + size
