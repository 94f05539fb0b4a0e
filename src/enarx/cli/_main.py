"""The command group, and the one place where an exception becomes a message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final, TypeVar

import click

from enarx import __version__
from enarx.cli._exit import ExitCode
from enarx.cli._output import Output, printable
from enarx.host.keep_start import Interpreter
from enarx.tcb.errors import EnarxError, Malformed, Unavailable

COMMANDS: Final = {
    "run": "enarx.cli._run",
    "deploy": "enarx.cli._deploy",
    "keep": "enarx.cli._keep",
    "audit": "enarx.cli._audit",
    "config": "enarx.cli._config",
    "host": "enarx.cli._host",
    "image": "enarx.cli._image",
    "measure": "enarx.cli._measure",
    "platform": "enarx.cli._platform_command",
    "verify": "enarx.cli._verify",
    "collateral": "enarx.cli._collateral",
    "inspect": "enarx.cli._inspect",
    "policy": "enarx.cli._policy_command",
    "tcb": "enarx.cli._tcb",
    "demo": "enarx.cli._demo",
    "completion": "enarx.cli._completion",
}
"""Every command and the module that defines a command of that name."""
COMPLETE_VARIABLE: Final = "_ENARX_COMPLETE"
EARLY: Final = "enarx.early"
"""Where commands find a keep's interpreter that was started in advance."""
SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_Command = TypeVar("_Command", bound=Callable[..., object])


class NotAccepted(EnarxError):
    """A keep did not prove that it is what its tenant accepts."""


class KeepLost(EnarxError):
    """The connection to a keep broke, and what became of the workload is not known."""


class LazyGroup(click.Group):
    """A group that loads a command's module when the command is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names in the order in which a newcomer wants them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return command


def json_option(command: _Command) -> _Command:
    """Declare ``--json``, which ``main`` has already read, so that errors of the command line obey it too."""
    return click.option(
        "--json", is_flag=True, expose_value=False, help="Give one JSON document instead of text."
    )(command)


@click.group(cls=LazyGroup, context_settings=SETTINGS)
@click.version_option(__version__, "-V", "--version", message="enarx %(version)s")
@json_option
def cli() -> None:
    """Run WebAssembly workloads in keeps: isolated, limited, and with nothing but what you give them.

    \b
    Examples:
      enarx run hello.wasm                      run a program
      enarx run app.wasm --dir ./data -- -v     give it files and arguments
      enarx config init                         start an Enarx.toml
      enarx platform info                       see what this machine offers

    Results go to standard output, everything else to standard error.
    What each exit code means is in docs/reference/exit-codes.md.
    """


def main(arguments: Sequence[str] | None = None, *, early: Interpreter | None = None) -> int:
    """Run one command and give its exit code. Nothing that a user can do makes it raise.

    ``early`` is a keep's interpreter that was started for it in advance.
    """
    args = list(sys.argv[1:] if arguments is None else arguments)
    if COMPLETE_VARIABLE in os.environ:
        cli.main(args, prog_name="enarx", complete_var=COMPLETE_VARIABLE)  # speaks to the shell and exits
    output = Output(as_json="--json" in args[: args.index("--") if "--" in args else len(args)])
    try:
        with cli.make_context("enarx", args, obj=output) as context:
            context.meta[EARLY] = early
            code = cli.invoke(context)
        sys.stdout.flush()
        return int(code or 0)
    except BaseException as error:
        if os.environ.get("ENARX_TRACEBACK") and not isinstance(error, click.exceptions.Exit):
            import traceback

            traceback.print_exc()
        return _failed(error, output)


def _failed(error: BaseException, output: Output) -> int:
    """Say what went wrong in the way that fits ``error``."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case SystemExit():
            return error.code if isinstance(error.code, int) else ExitCode.REFUSED
        case click.exceptions.NoArgsIsHelpError():
            print(error.format_message(), file=sys.stderr)
            return ExitCode.USAGE
        case click.UsageError():
            return output.error(ExitCode.USAGE, printable(_clause(error)), _usage_hint(error))
        case EnarxError():
            return output.error(exit_code_of(error), printable(str(error)), printable(error.hint))
        case BrokenPipeError():
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
            )  # the interpreter flushes once more
            return ExitCode.BROKEN_PIPE
        case KeyboardInterrupt() | click.Abort():
            return ExitCode.INTERRUPTED
        case OSError():
            where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
            reason = (error.strerror or type(error).__name__).lower()
            return output.error(ExitCode.UNAVAILABLE, printable(f"{where}{reason}"))
    hint = "see where with ENARX_TRACEBACK=1, and please report it together with the command"
    return output.error(
        ExitCode.INTERNAL, f"internal error: {type(error).__name__}: {printable(str(error))}", hint
    )


def exit_code_of(error: EnarxError) -> ExitCode:
    """Give the exit code that fits ``error``."""
    match error:
        case NotAccepted():
            return ExitCode.NOT_ACCEPTED
        case KeepLost():
            return ExitCode.KEEP_LOST
        case Malformed():
            return ExitCode.MALFORMED
        case Unavailable():
            return ExitCode.UNAVAILABLE
    return ExitCode.REFUSED


def _clause(error: click.UsageError) -> str:
    """Put click's sentence into the form of our messages."""
    message = error.format_message().rstrip(".")
    return f"{message[:1].lower()}{message[1:]}"


def _usage_hint(error: click.UsageError) -> str:
    if hint := getattr(error, "hint", ""):
        return printable(hint)
    if isinstance(error, click.exceptions.NoSuchCommand):
        from enarx.tcb.workload._wording import nearest

        group = error.ctx.command if error.ctx else cli
        known = COMMANDS if group is cli or not isinstance(group, click.Group) else group.commands
        return nearest(error.command_name, known)
    return f"{error.ctx.command_path if error.ctx else 'enarx'} --help shows how it is used"
