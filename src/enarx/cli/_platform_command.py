"""``enarx platform``: what this machine offers to keeps."""

from __future__ import annotations

import click

from enarx.cli._exit import ExitCode
from enarx.cli._main import SETTINGS, json_option
from enarx.cli._output import Output


@click.group(context_settings=SETTINGS)
@json_option
def platform() -> None:
    """See what this machine offers to keeps.

    \b
    Examples:
      enarx platform info
    """


@platform.command(context_settings=SETTINGS)
@json_option
@click.pass_obj
def info(output: Output) -> ExitCode:
    """Show for each kind of keep what it needs, what of that is there, and what would help.

    \b
    Examples:
      enarx platform info
      enarx platform info --json
    """
    from enarx.cli._platform import render_text, to_json
    from enarx.host.platform import inspect

    report = inspect()
    output.result("enarx.platform-info/1", to_json(report), render_text(report))
    return ExitCode.DONE
