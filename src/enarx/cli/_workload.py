"""What ``run`` and ``deploy`` share: the options that describe a workload, and the exit codes of its endings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

from enarx.cli._exit import ExitCode
from enarx.cli._output import Output, printable
from enarx.cli._parameter import BadValue, Parsed
from enarx.host.request import parse_env
from enarx.tcb.errors import EnarxError
from enarx.tcb.workload import Ending, Limits, Outcome, parse_limit

_Command = TypeVar("_Command", bound=Callable[..., object])

CODES: Final = {
    Ending.TRAPPED: ExitCode.TRAPPED,
    Ending.STACK_OVERFLOW: ExitCode.STACK_OVERFLOW,
    Ending.MEMORY_LIMIT: ExitCode.MEMORY_LIMIT,
    Ending.TABLE_LIMIT: ExitCode.TABLE_LIMIT,
    Ending.OUTPUT_LIMIT: ExitCode.OUTPUT_LIMIT,
    Ending.STORAGE_LIMIT: ExitCode.STORAGE_LIMIT,
    Ending.THREAD_LIMIT: ExitCode.THREAD_LIMIT,
    Ending.TIME_LIMIT: ExitCode.TIME_LIMIT,
    Ending.STOPPED: ExitCode.STOPPED,
    Ending.MALFORMED: ExitCode.MALFORMED,
    Ending.UNLINKABLE: ExitCode.UNRUNNABLE,
    Ending.UNSUPPORTED: ExitCode.UNRUNNABLE,
    Ending.UNAVAILABLE: ExitCode.UNAVAILABLE,
    Ending.KEEP_LOST: ExitCode.KEEP_LOST,
}
"""The exit code of every ending but ``EXITED``, whose code is the program's own."""

arguments_argument: Final = click.argument(
    "arguments", nargs=-1, type=Parsed("text", str), metavar="[-- ARGS]..."
)
env_option: Final = click.option(
    "--env",
    "-e",
    multiple=True,
    type=Parsed("env", parse_env),
    metavar="NAME=VALUE",
    help="An environment variable; wins over Enarx.toml.",
)
limit_option: Final = click.option(
    "--limit",
    "-l",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="memory, table, stack, time, output, files, storage, descriptors, threads or module.",
)
threads_option: Final = click.option(
    "--threads", is_flag=True, help="Let the workload start threads (wasi-threads)."
)


class WorkloadCommand(click.Command):
    """A command whose standard output is the workload's, so that JSON documents go to standard error."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Turn the documents away from standard output before anything can fail."""
        if parent is not None:
            output = parent.find_object(Output)
            if output is not None:
                output.to_stderr()
        return super().make_context(info_name, args, parent, **extra)


def code_of(outcome: Outcome) -> int:
    """Give the exit code: the program's own if it ended by itself."""
    return outcome.code if outcome.ending is Ending.EXITED else CODES[outcome.ending]


def document_of(outcome: Outcome) -> dict[str, object]:
    """Give what programs read of an ending."""
    return {
        "ending": outcome.ending.value,
        "exit_code": int(code_of(outcome)),
        "detail": outcome.detail,
        "hint": outcome.hint,
        "memory_bytes": outcome.memory_bytes,
    }


def tell_end(outcome: Outcome, output: Output) -> int:
    """Tell people how it ended, unless the program ended it by itself, and give the exit code."""
    code = code_of(outcome)
    if isinstance(code, ExitCode):
        output.error(code, printable(outcome.detail), printable(outcome.hint))
    return int(code)


def limits_of(ctx: click.Context, texts: Sequence[str]) -> Limits:
    """Read all ``--limit``. Raises ``click.UsageError``."""
    limits = Limits()
    option = next(param for param in ctx.command.params if param.name == "limits")
    for text in texts:
        try:
            limits = parse_limit(text, limits)
        except EnarxError as error:
            raise BadValue(error, ctx, option) from None
    return limits
