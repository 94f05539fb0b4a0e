"""Parameters whose text our own parsers read; what those refuse is a usage error."""

from __future__ import annotations

from collections.abc import Callable

import click

from enarx.tcb.errors import EnarxError


class BadValue(click.BadParameter):
    """A parameter that one of our parsers refused, with the parser's advice."""

    def __init__(self, error: EnarxError, ctx: click.Context | None, param: click.Parameter | None) -> None:
        super().__init__(str(error), ctx, param)
        self.hint = error.hint


class Parsed(click.ParamType[object]):
    """A parameter that ``parse`` reads; ``metavar`` shows its grammar."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """Read ``value`` unless it has been read before."""
        if not isinstance(value, str):
            return value
        try:
            value.encode()
            return self._parse(value)
        except UnicodeEncodeError:
            raise BadValue(EnarxError("expected UTF-8, found other bytes"), ctx, param) from None
        except EnarxError as error:
            raise BadValue(error, ctx, param) from None
