"""What people and programs read: text, or one JSON document with a schema name that ends in its version."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TextIO

from enarx.cli._exit import ExitCode


class Output:
    """Where results and messages go."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.documents: TextIO = sys.stdout
        """Where JSON documents go; ``to_stderr`` changes it."""

    def to_stderr(self) -> None:
        """Give documents on standard error from now on, because standard output is a workload's."""
        self.documents = sys.stderr

    def result(self, schema: str, document: Mapping[str, object], text: str) -> None:
        """Give the result of a command, as ``text`` or as ``document`` with its ``schema``."""
        if self.as_json:
            self._document({"schema": schema, **document})
        else:
            print(text, flush=True)

    def event(self, schema: str, document: Mapping[str, object]) -> None:
        """Tell programs what is going on, as a line of its own on standard error."""
        self._document({"schema": schema, **document}, sys.stderr)

    def note(self, message: str) -> None:
        """Tell people what is going on."""
        self._say(f"enarx: {message}")

    def warning(self, message: str) -> None:
        """Tell people what they may not have meant."""
        self._say(f"enarx: {_coloured('warning', '33')}: {message}")

    def error(self, code: ExitCode, message: str, hint: str = "", **more: object) -> ExitCode:
        """Say why a command failed, and give its exit code back."""
        if self.as_json:
            error = {
                "exit_code": int(code),
                "name": code.name.lower(),
                "message": message,
                "hint": hint,
                **more,
            }
            try:
                self._document({"schema": "enarx.error/1", "error": error})
                return code
            except OSError:  # nobody reads documents, or there is no room for them: then people shall know
                pass
        self._say(f"enarx: {_coloured('error', '31')}: {message}")
        if hint:
            self._say(f"hint: {hint}")
        return code

    def _document(self, document: Mapping[str, object], where: TextIO | None = None) -> None:
        import json  # here, because most commands print text

        print(json.dumps(document), file=where or self.documents, flush=True)

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Make control characters visible, so that what somebody else wrote cannot command the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def coloured(stream: TextIO) -> bool:
    """Whether ``stream`` shows colours: a terminal does, unless NO_COLOR is set (no-color.org)."""
    import os

    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _coloured(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if coloured(sys.stderr) else text
