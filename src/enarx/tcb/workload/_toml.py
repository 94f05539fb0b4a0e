"""Strict reading of TOML: every error names key, line, what was expected and what was found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from enarx.tcb.errors import Malformed
from enarx.tcb.workload._wording import kind_of, nearest, shown

MAX_KEY_CHARS: Final = 255
_Many = TypeVar("_Many", list[object], dict[str, object])
# A key of forty parts or more; the parser takes quadratic time on long ones, and no key of ours has over two.
_LONG_KEY: Final = re.compile(
    r"""(?:^|[{,\[])[ \t]*(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){40}""", re.MULTILINE
)
_HEADER: Final = re.compile(r"""\s*\[\[?\s*["']?([\w-]+)""")
_ASSIGNED: Final = re.compile(r"""\s*["']?([\w-]+)["']?\s*[.=]""")
_PATH: Final = re.compile(r"(\w+)(?:\[(\d+)\])?(?:\.(.+))?", re.DOTALL)


class InvalidConfig(Malformed):
    """A file of ours is not what it should be: ``key`` is the path of the culprit, ``line`` its line or 0."""

    def __init__(self, message: str, *, key: str = "", line: int = 0, hint: str = "") -> None:
        shown = key if key.isprintable() and len(key) <= MAX_KEY_CHARS else ascii(key[:MAX_KEY_CHARS])
        where = f" (line {line})" if line else ""
        super().__init__(f"{shown}: {message}{where}" if key else f"{message}{where}", hint=hint)
        self.key, self.line = key, line


def _table(text: str) -> dict[str, object]:
    import tomllib  # 4 ms of the start of a keep, and most have no configuration

    try:
        return tomllib.loads(text)
    except RecursionError:
        raise InvalidConfig("expected TOML, found values nested too deeply") from None
    except ValueError as error:  # also integers and dates that are valid TOML but too large for Python
        reason, _, place = str(error).partition(" (at ")
        at = re.match(r"line (\d+)", place)
        message = f"not valid TOML: {reason[:1].lower()}{reason[1:200]}"
        raise InvalidConfig(message, line=int(at[1]) if at else text.count("\n") + 1) from None


class Document:
    """At most ``max_bytes`` of UTF-8 TOML, as tables and as text. Raises only ``InvalidConfig``."""

    def __init__(self, text: bytes | str, *, max_bytes: int) -> None:
        try:
            raw = text.encode() if isinstance(text, str) else text
            if len(raw) > max_bytes:
                raise InvalidConfig(f"expected at most {max_bytes} bytes, found {len(raw)}")
            self._text = raw.decode()
        except (UnicodeDecodeError, UnicodeEncodeError) as error:
            raise InvalidConfig(f"expected UTF-8, found something else at offset {error.start}") from None
        if long := _LONG_KEY.search(self._text):
            line = self._text.count("\n", 0, long.end()) + 1
            raise InvalidConfig("expected a key of one or two parts, found one of 40 or more", line=line)
        self.table: dict[str, object] = _table(self._text) if self._text else {}

    def error(self, key: str, expected: str, found: str, *, hint: str = "") -> InvalidConfig:
        """Say that the value at ``key`` is wrong."""
        return InvalidConfig(f"expected {expected}, found {found}", key=key, line=self.line(key), hint=hint)

    def line(self, key: str) -> int:
        """The line that sets ``key``, or where its table begins, or 0. A guess: it only helps readers."""
        path = _PATH.fullmatch(key)
        if path is None:
            return 0
        table, index, name = path[1], int(path[2] or 0), path[3]
        section, entry, found = "", -1, 0
        for number, line in enumerate(self._text.split("\n"), 1):
            if header := _HEADER.match(line):
                section = header[1]
                entry += section == table
                if section == table and entry == index:
                    found = number
            elif assigned := _ASSIGNED.match(line):
                if not section and assigned[1] == table:
                    found = number
                elif section == table and entry == index and assigned[1] == name:
                    return number
        return found

    def known(
        self, key: str, table: Mapping[str, object], keys: Iterable[str], *, hints: Mapping[str, str]
    ) -> None:
        """Refuse every key of ``table`` that is not among ``keys``."""
        for name in table:
            if name not in keys:
                path = f"{key}.{name}" if key else name
                hint = hints.get(name) or nearest(name, keys)
                raise InvalidConfig("unknown key", key=path, line=self.line(path), hint=hint)

    def many(self, key: str, value: object, wanted: type[_Many], *, max_entries: int) -> _Many:
        """Give an array or a table of at most ``max_entries``."""
        if not isinstance(value, wanted):
            raise self.error(key, kind_of(wanted()), kind_of(value))
        if len(value) > max_entries:
            raise self.error(key, f"at most {max_entries} entries", str(len(value)))
        return value

    def one_of(self, key: str, value: object, choices: Iterable[str]) -> str:
        """Give a string that is among ``choices``."""
        if not isinstance(value, str) or value not in choices:
            raise self.error(key, f"one of {', '.join(choices)}", shown(value), hint=nearest(value, choices))
        return value
