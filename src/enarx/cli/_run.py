"""``enarx run``: the arguments of a run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from enarx.cli._main import EARLY, SETTINGS, json_option
from enarx.cli._output import Output, printable
from enarx.cli._parameter import Parsed
from enarx.cli._workload import (
    WorkloadCommand,
    arguments_argument,
    code_of,
    document_of,
    env_option,
    limit_option,
    limits_of,
    tell_end,
    threads_option,
)
from enarx.host.request import Directory, RunRequest, parse_directory

if TYPE_CHECKING:
    from enarx.host.run import RunResult


@click.command(cls=WorkloadCommand, context_settings=SETTINGS)
@click.argument("wasm", type=click.Path(exists=True, dir_okay=False))
@arguments_argument
@click.option(
    "--config",
    "--wasmcfgfile",
    "config_path",
    type=click.Path(exists=True, dir_okay=False),
    envvar=["ENARX_CONFIG", "ENARX_WASMCFGFILE"],
    metavar="FILE",
    help="Enarx.toml; without one the workload has stdin, stdout and stderr.",
)
@env_option
@click.option(
    "--dir",
    "-d",
    "directories",
    multiple=True,
    type=Parsed("dir", parse_directory),
    metavar="HOST[::GUEST][:ro|:sync]",
    help="Copy a directory into the keep: writable, read-only (ro), or with its changes brought back (sync).",
)
@limit_option
@threads_option
@click.option(
    "--require-sandbox", is_flag=True, help="Refuse to run unless every layer of the sandbox is in place."
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False),
    envvar="ENARX_CACHE",
    metavar="DIR",
    help="Where sealed compiled code is kept; default: $XDG_CACHE_HOME/enarx.",
)
@click.option("--no-cache", is_flag=True, help="Compile anew and keep nothing.")
@click.option(
    "--verbose", "-v", is_flag=True, help="Tell on standard error what happens and which ports are open."
)
@json_option
@click.pass_context
def run(ctx: click.Context, /, verbose: bool, **options: Any) -> int:
    """Run the module or component WASM in a keep.

    Standard input, output and error and the exit code are the program's own. It sees no files, no network
    and no environment but what Enarx.toml and these options give it. ARGS replace the args of Enarx.toml.

    \b
    Examples:
      enarx run hello.wasm
      enarx run tool.wasm --env LANG=C -- --verbose in.txt
      enarx run cruncher.wasm --dir ./data::/data:ro --dir ./out:sync
      enarx run server.wasm --config Enarx.toml --limit memory=64MiB --limit time=1h

    With --json a document about the run is the last line of standard error. Exit codes 112 to 134 say
    which limit was reached or what went wrong: docs/reference/exit-codes.md.
    """
    request = request_of(ctx, **options)
    from enarx.host.run import Observer
    from enarx.host.run import run as run_keep

    output: Output = ctx.obj
    observer = Observer()
    if verbose:
        observer = Observer(
            progress=lambda text: output.note(printable(text)),
            listening=lambda name, port: output.note(f"{printable(name)} listens on port {port}"),
        )
    return _told(run_keep(request, observer, early=ctx.meta[EARLY]), output)


def _told(result: RunResult, output: Output) -> int:
    """Tell how the run ended, unless the program ended it by itself, and give its exit code."""
    outcome = result.outcome
    if output.as_json:
        document = {
            **document_of(outcome),
            "wall_ms": result.wall_ms,
            "changed": list(result.changed),
            "conflicts": list(result.conflicts),
            "ports": list(result.ports),
        }
        output.result("enarx.run/1", document, "")
        return code_of(outcome)
    for path in result.conflicts:
        output.warning(f"{printable(path)} was changed here too; the workload's version was not brought back")
    return tell_end(outcome, output)


def request_of(
    ctx: click.Context,
    *,
    wasm: str,
    arguments: tuple[str, ...],
    config_path: str | None,
    env: tuple[tuple[str, str], ...],
    directories: tuple[Directory, ...],
    limits: tuple[str, ...],
    threads: bool,
    require_sandbox: bool,
    cache: str | None,
    no_cache: bool,
) -> RunRequest:
    """Put a request together. Raises ``click.UsageError``."""
    if no_cache and ctx.get_parameter_source("cache") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--cache and --no-cache contradict each other", ctx)
    guests = [directory.guest_path for directory in directories]
    for directory in directories:
        if not os.path.isdir(directory.host_path):
            raise click.UsageError(f"--dir: {directory.host_path!r} is not a directory", ctx)
        if guests.count(directory.guest_path) > 1:
            raise click.UsageError(f"--dir: {directory.guest_path!r} is given twice in the keep", ctx)
    return RunRequest(
        wasm_path=wasm,
        config_path=config_path,
        args=arguments,
        env=env,
        directories=directories,
        limits=limits_of(ctx, limits),
        threads=threads,
        require_sandbox=require_sandbox,
        cache_dir=None if no_cache else cache or default_cache_dir(),
    )


def default_cache_dir() -> str:
    """Where the XDG base directory specification wants caches."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.cache"), "enarx")
