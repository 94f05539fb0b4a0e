"""How errors speak of what they found."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(found: object, known: Iterable[str]) -> str:
    """Give advice to somebody who wrote ``found`` where one of ``known`` was wanted."""
    if isinstance(found, str) and len(found) <= 40:
        name = min(known, key=lambda name: _distance(found, name))
        if _distance(found, name) <= (len(name) + 1) // 2:
            return f"did you mean `{name}`?"
    return f"known are {', '.join(known)}"


def _distance(one: str, other: str) -> int:
    """How many characters to insert, remove or replace."""
    row = list(range(len(other) + 1))
    for left, char in enumerate(one, 1):
        above, row = row, [left]
        for at, match in enumerate(other):
            row.append(min(above[at] + (char != match), above[at + 1] + 1, row[at] + 1))
    return row[-1]


def kind_of(value: object) -> str:
    """Name the TOML type of ``value`` without showing it, for it may be a secret."""
    names = {
        str: "a string",
        bool: "a boolean",
        int: "an integer",
        float: "a float",
        list: "an array",
        dict: "a table",
    }
    return "nothing" if value is None else names.get(type(value), "a date or a time")


def shown(value: object) -> str:
    """Show a string or a small number; of everything else the type."""
    if isinstance(value, str):
        return ascii(value if len(value) <= 60 else f"{value[:60]}...")
    return str(value) if type(value) is int and abs(value) < 1 << 64 else kind_of(value)
