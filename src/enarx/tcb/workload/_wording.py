"""How errors speak of what they found."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(found: object, known: Iterable[str]) -> str:
    """Give advice to somebody who wrote ``found`` where one of ``known`` was wanted."""
    from difflib import get_close_matches  # only errors need it, and it is slow to load

    near = get_close_matches(found, list(known), n=1) if isinstance(found, str) else []
    return f"did you mean `{near[0]}`?" if near else f"known are {', '.join(known)}"


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
