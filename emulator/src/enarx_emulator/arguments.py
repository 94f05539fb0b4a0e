"""The arguments of a firmware command, taken one by one with their types; what is left over is a mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enarx.tcb.errors import Malformed

_MISSING: Final = object()


class Arguments:
    """What a host passed to a command. Everything raises ``Malformed``, naming the command and the argument."""

    def __init__(self, command: str, given: Mapping[str, object]) -> None:
        self._command = command
        self._left = dict(given)

    def data(self, name: str, default: bytes | None = None, *, max_bytes: int = 1 << 26) -> bytes:
        """Take bytes; with a ``default`` they may be absent."""
        value = self._take(name, default)
        if not isinstance(value, bytes):
            raise self._wrong(name, "bytes", value)
        if len(value) > max_bytes:
            raise Malformed(
                f"{self._command}: {name} has {len(value)} bytes, at most {max_bytes} are allowed"
            )
        return value

    def number(self, name: str, default: int | None = None, *, below: int = 1 << 64) -> int:
        """Take an integer from 0 to ``below`` - 1."""
        value = self._take(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
            raise self._wrong(name, f"an integer from 0 to {below - 1}", value)
        return value

    def flag(self, name: str, default: bool | None = None) -> bool:
        """Take a truth value."""
        value = self._take(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def text(self, name: str, default: str | None = None, *, max_chars: int = 4096) -> str:
        """Take text."""
        value = self._take(name, default)
        if not isinstance(value, str) or len(value) > max_chars:
            raise self._wrong(name, f"text of at most {max_chars} characters", value)
        return value

    def items(self, name: str) -> list[object]:
        """Take a list, which may be absent."""
        value = self._left.pop(name, [])
        if not isinstance(value, list):
            raise self._wrong(name, "a list", value)
        return value

    def texts(self, name: str) -> list[str]:
        """Take a list of texts."""
        value = self._take(name, None)
        if not isinstance(value, list):
            raise self._wrong(name, "a list of texts", value)
        texts = [item for item in value if isinstance(item, str)]
        if len(texts) != len(value):
            raise Malformed(f"{self._command}: {name} holds something that is no text")
        return texts

    def __contains__(self, name: str) -> bool:
        """Whether the host passed it and nobody has taken it yet."""
        return name in self._left

    def end(self) -> None:
        """Raise ``Malformed`` when something was passed that nobody took."""
        if self._left:
            raise Malformed(f"{self._command}: {', '.join(sorted(self._left))} is not an argument of it")

    def _take(self, name: str, default: object) -> object:
        value = self._left.pop(name, _MISSING)
        if value is _MISSING:
            if default is None:
                raise Malformed(f"{self._command}: {name} is missing")
            return default
        return value

    def _wrong(self, name: str, expected: str, found: object) -> Malformed:
        shown = found if isinstance(found, int) else type(found).__name__
        return Malformed(f"{self._command}: {name} is {shown}, expected {expected}")
