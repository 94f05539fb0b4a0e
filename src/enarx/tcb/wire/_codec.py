"""The one message encoding: CBOR with core deterministic encoding (RFC 8949, section 4.2.1).

There is exactly one spelling of each value, so a digest over a message is a digest over its meaning. Any other
spelling is refused: indefinite lengths, duplicate keys, longer integers than needed, tags, floats, trailing bytes.
Map keys are text, for which the order of that section and the older length-first order are the same.
"""

from __future__ import annotations

from typing import Final

import cbor2

from enarx.tcb.errors import Malformed

Value = None | bool | int | str | bytes | list["Value"] | dict[str, "Value"]
"""What a message may hold. Floats, tags and other types have no place in our messages."""

MAX_DEPTH: Final = 16
"""Nesting that no message of ours comes near; deeper input is an attack on the stack."""


def encode(value: Value) -> bytes:
    """Give the one encoding of ``value``. Raises ``Malformed`` when it holds a type that messages cannot hold."""
    _check(value, MAX_DEPTH)
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes | bytearray | memoryview, *, max_bytes: int) -> Value:
    """Read one value of at most ``max_bytes``. Raises ``Malformed`` unless ``data`` is its one encoding."""
    if len(data) > max_bytes:
        raise Malformed(f"message has {len(data)} bytes, at most {max_bytes} are allowed")
    raw = bytes(data)
    try:
        value: Value = cbor2.loads(
            raw, max_depth=MAX_DEPTH + 1, allow_indefinite=False, allow_duplicate_keys=False
        )
        _check(value, MAX_DEPTH)
        canonical = cbor2.dumps(value, canonical=True)
    except Malformed:
        raise
    except Exception as error:  # from foreign code on hostile bytes: whatever it raises is a refusal
        raise Malformed(f"message is not CBOR: {type(error).__name__}") from None
    if canonical != raw:
        raise Malformed("message is not in deterministic encoding")
    return value


def _check(value: object, depth: int) -> None:
    if depth == 0:
        raise Malformed(f"message nests deeper than {MAX_DEPTH} levels")
    match value:
        case None | bool() | str() | bytes():
            return
        case int():
            if not -(1 << 63) <= value < 1 << 64:
                raise Malformed("message holds an integer of more than 64 bits")
        case list():
            for item in value:
                _check(item, depth - 1)
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise Malformed(f"message has a map key of type {type(key).__name__}")
                _check(item, depth - 1)
        case _:
            raise Malformed(f"message holds a value of type {type(value).__name__}")
