"""``enarx completion``: the script that teaches a shell our commands."""

from __future__ import annotations

import click

from enarx.cli._exit import ExitCode
from enarx.cli._main import COMPLETE_VARIABLE, SETTINGS, cli, json_option
from enarx.cli._output import Output


@click.command(context_settings=SETTINGS)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
@click.pass_obj
def completion(output: Output, shell: str) -> ExitCode:
    """Print the completion script of SHELL.

    \b
    Examples:
      eval "$(enarx completion bash)"                                for this shell
      enarx completion bash > ~/.local/share/bash-completion/completions/enarx
      enarx completion zsh > "${fpath[1]}/_enarx"
      enarx completion fish > ~/.config/fish/completions/enarx.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise LookupError(f"click knows no completion for {shell}")
    script = kind.source_template % kind(cli, {}, "enarx", COMPLETE_VARIABLE).source_vars()
    output.result("enarx.completion/1", {"shell": shell, "script": script}, script)
    return ExitCode.DONE
