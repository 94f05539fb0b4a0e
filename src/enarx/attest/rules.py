"""The few kinds of rule that policies are made of, and how each is written in TOML.

A rule says what it admits; ``None`` (the evidence does not have it) is admitted by ``Anything`` alone.
``"any"`` in a policy file gives ``Anything``: leaving a check out must be written out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from enarx.attest.checks import Fields, show
from enarx.attest.errors import PolicyError


class Rule(Protocol):
    """What a policy asks of one value. ``str`` of it completes the sentence "expected …"."""

    def admits(self, value: Any) -> bool:
        """Say whether the value is acceptable; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Anything:
    """Written out as ``"any"``."""

    def admits(self, value: object) -> bool:
        return True

    def __str__(self) -> str:
        return "anything"


@dataclass(frozen=True, slots=True)
class OneOf:
    """An allow-list; never empty."""

    values: frozenset[Any]

    def __post_init__(self) -> None:
        if not self.values:
            raise PolicyError("an empty list admits nothing", hint='name at least one value, or write "any"')

    def admits(self, value: object) -> bool:
        return value is not None and value in self.values

    def __str__(self) -> str:
        return ("one of " if len(self.values) > 1 else "") + show(self.values)


@dataclass(frozen=True, slots=True)
class NoneOf:
    """A deny-list; never empty. A value that the evidence hides may be on it, so it is refused."""

    values: frozenset[Any]

    def __post_init__(self) -> None:
        if not self.values:
            raise PolicyError("an empty deny-list denies nothing", hint="leave the key out")

    def admits(self, value: object) -> bool:
        return value is not None and value not in self.values

    def __str__(self) -> str:
        return f"none of {show(self.values)}"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A minimum."""

    minimum: Any

    def admits(self, value: Any) -> bool:
        return value is not None and bool(value >= self.minimum)

    def __str__(self) -> str:
        return f"at least {show(self.minimum)}"


@dataclass(frozen=True, slots=True)
class Exactly:
    """One value."""

    value: Any

    def admits(self, value: object) -> bool:
        return value is not None and value == self.value

    def __str__(self) -> str:
        return show(self.value)


@dataclass(frozen=True, slots=True)
class Each:
    """Rules by name for a mapping (registers, components); a name that the evidence lacks is refused."""

    rules: Mapping[str, Rule]

    def admits(self, value: Mapping[str, object]) -> bool:
        return all(rule.admits(value.get(name)) for name, rule in self.rules.items())

    def __str__(self) -> str:
        return ", ".join(f"{name}: {rule}" for name, rule in sorted(self.rules.items()))


Decode = Callable[[object], Rule]
"""A TOML value to a rule. Raises ``PolicyError`` with a message that completes "key: "."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One policy key: how it is written, where its value is, and what to do when it is not admitted."""

    decode: Decode | None
    table: type[Any] | None
    path: str
    fields: tuple[str, ...]
    advice: str
    any_allowed: bool


def key(
    decode: Decode,
    *,
    path: str,
    field: Fields,
    default: Any = dataclasses.MISSING,
    advice: str = "",
    any_allowed: bool = True,
) -> Any:
    """Declare a policy key of a section.

    ``path``: attributes from ``Verified`` (in a nested table: from the table's value), e.g.
    ``detail.report.vmpl``. ``field``: names of the evidence fields it judges, as ``fields()`` names them. No
    ``default``: the key must be written; ``default=None``: not judged unless written; a rule as default:
    judged unless ``"any"`` is written.
    """
    names = (field,) if isinstance(field, str) else field
    meta = Key(decode=decode, table=None, path=path, fields=names, advice=advice, any_allowed=any_allowed)
    return dataclasses.field(default=default, metadata={"key": meta})


def table(rules: type[Any], *, path: str, field: str, default: Any = None) -> Any:
    """Declare a nested table: a dataclass of keys whose paths and fields begin at this one.

    ``default=None``: not judged unless written; an instance: its defaults are judged even when it is not
    written.
    """
    meta = Key(decode=None, table=rules, path=path, fields=(field,), advice="", any_allowed=False)
    return dataclasses.field(default=default, metadata={"key": meta})


def digests(*sizes: int) -> Decode:
    """A non-empty list of hex strings, each of one of ``sizes`` bytes and not zero."""

    def decode(value: object) -> Rule:
        found = frozenset(_hex(item, sizes) for item in _items(value))
        if any(not any(item) for item in found):
            raise PolicyError("a digest of zeros identifies nothing")
        return OneOf(found)

    return decode


def octets(*sizes: int) -> Decode:
    """A non-empty list of hex strings, each of one of ``sizes`` bytes; zeros are allowed, because they mean
    "not set".
    """
    return lambda value: OneOf(frozenset(_hex(item, sizes) for item in _items(value)))


def denied(*sizes: int) -> Decode:
    """A non-empty list of hex strings that must not occur. Declare the key with ``any_allowed=False``."""
    return lambda value: NoneOf(frozenset(_hex(item, sizes) for item in _items(value)))


def integers(least: int, most: int) -> Decode:
    """A non-empty list of integers within the limits."""
    return lambda value: OneOf(frozenset(_integer(item, least, most) for item in _items(value)))


def at_least(most: int) -> Decode:
    """An integer from 0 to ``most``."""
    return lambda value: AtLeast(_integer(value, 0, most))


def version(parts: int) -> Decode:
    """A version as text, ``"1.55.29"``, that is compared part by part as a tuple of integers."""

    def decode(value: object) -> Rule:
        pieces = value.split(".") if isinstance(value, str) else []
        if len(pieces) != parts or not all(
            piece.isascii() and piece.isdigit() and len(piece) < 6 for piece in pieces
        ):
            raise PolicyError(f"expected a version of {parts} numbers in quotes, found {value!r}")
        return AtLeast(tuple(int(piece) for piece in pieces))

    return decode


def boolean(value: object) -> Rule:
    """``true`` or ``false``: exactly that."""
    if not isinstance(value, bool):
        raise PolicyError(f'expected true, false or "any", found {value!r}')
    return Exactly(value)


def words(kind: type[Enum]) -> Decode:
    """A non-empty list of the values of an enumeration."""

    def decode(value: object) -> Rule:
        try:
            return OneOf(frozenset(kind(item) for item in _items(value)))
        except ValueError:
            known = ", ".join(str(member.value) for member in kind)
            raise PolicyError(f"expected a list of {known}, found {value!r}") from None

    return decode


def texts(value: object) -> Rule:
    """A non-empty list of non-empty strings."""
    items = _items(value)
    if not all(isinstance(item, str) and item for item in items):
        raise PolicyError(f"expected a list of texts, found {value!r}")
    return OneOf(frozenset(items))


def _items(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise PolicyError(f"expected a list, found {value!r}")
    if not value:
        raise PolicyError("an empty list admits nothing", hint='name at least one value, or write "any"')
    if any(item in value[:at] for at, item in enumerate(value)):
        raise PolicyError("a value is listed twice")
    return value


def _hex(value: object, sizes: Iterable[int]) -> bytes:
    allowed = tuple(sizes)
    try:
        found = bytes.fromhex(value) if isinstance(value, str) and value.isalnum() else b""
    except ValueError:
        found = b""
    if len(found) not in allowed or not found:
        raise PolicyError(f"expected hex of {' or '.join(map(str, allowed))} bytes, found {value!r}")
    return found


def _integer(value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise PolicyError(f"expected an integer from {least} to {most}, found {value!r}")
    return value
