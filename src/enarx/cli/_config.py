"""``enarx config``: start an Enarx.toml, and see what one means."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from enarx.cli._exit import ExitCode
from enarx.cli._main import SETTINGS, json_option
from enarx.cli._output import Output, printable
from enarx.tcb.errors import EnarxError

if TYPE_CHECKING:
    from enarx.tcb.workload._config import Config, File


@click.group(context_settings=SETTINGS, no_args_is_help=True)
@json_option
def config() -> None:
    """Write and check Enarx.toml, the file that says what a workload gets.

    \b
    Examples:
      enarx config init
      enarx config check
    """


@config.command(context_settings=SETTINGS)
@click.argument("path", default="Enarx.toml", type=click.Path())
@json_option
@click.pass_obj
def init(output: Output, path: str) -> ExitCode:
    """Write a commented Enarx.toml to PATH; nothing is ever overwritten.

    \b
    Examples:
      enarx config init
      enarx config init demos/Enarx.toml
    """
    from enarx.cli._template import TEMPLATE

    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        raise EnarxError(
            f'"{path}" does already exist.', hint="name another file, or remove this one"
        ) from None
    if output.as_json:
        output.result("enarx.config-init/1", {"path": path}, "")
    else:
        output.note(f"wrote {printable(path)}")
    return ExitCode.DONE


@config.command(context_settings=SETTINGS)
@click.argument("file", default="Enarx.toml", type=click.Path())
@json_option
@click.pass_obj
def check(output: Output, file: str) -> ExitCode:
    """Read FILE as a keep does and show what it means, with every default filled in.

    The digest names the configuration in evidence and policies: files of one meaning have one digest.

    \b
    Examples:
      enarx config check
      enarx config check demos/Enarx.toml --json
    """
    from enarx.tcb.workload._config import MAX_BYTES, file_value, parse_config

    with open(file, "rb") as opened:
        found = parse_config(opened.read(MAX_BYTES + 1))
    warnings = warnings_about(found)
    document = {
        "args": list(found.args),
        "env": dict(found.env),
        "steward": found.steward,
        "files": [{"fd": fd, **file_value(entry)} for fd, entry in enumerate(found.files)],
        "fd_names": found.fd_names,
        "warnings": warnings,
        "digest": f"sha256:{found.digest().hex()}",
    }
    output.result("enarx.config-check/1", document, text_of(found))
    if not output.as_json:
        for warning in warnings:
            output.warning(warning)
    return ExitCode.DONE


def warnings_about(config: Config) -> list[str]:
    """Say what is allowed but probably not meant."""
    warnings = []
    if not config.files:
        warnings.append(
            "there are no [[files]], so the workload has no descriptors, not even standard input and output"
        )
    elif not any(entry.kind == "stderr" for entry in config.files):
        warnings.append("no entry of kind stderr: error messages of the workload are lost")
    for name, count in Counter(entry.name for entry in config.files).items():
        if count > 1 and name != "null":
            warnings.append(
                f"{count} descriptors are named {name!a}; a workload may find only one by its name"
            )
    for name in ("FD_COUNT", "FD_NAMES"):
        if name in config.env:
            warnings.append(f"env.{name} comes after ours; most programs see only ours")
    return warnings


def text_of(config: Config) -> str:
    """Show what ``config`` means: its descriptors in order, and everything else."""
    lines = [f"{'fd':>4}  {'kind':<8}  {'name':<20}  stream"]
    lines += [
        f"{fd:>4}  {entry.kind:<8}  {entry.name:<20}  {_stream(entry)}".rstrip()
        for fd, entry in enumerate(config.files)
    ]
    lines += [
        "",
        f"FD_NAMES  {config.fd_names}",
        f"args      {' '.join(['main.wasm', *map(ascii, config.args)])}",
        f"env       {', '.join(config.env) or 'nothing'}",
        f"steward   {config.steward or 'none: the keep signs its own certificate'}",
        f"digest    sha256:{config.digest().hex()}",
    ]
    return printable("\n".join(lines))


def _stream(entry: File) -> str:
    from enarx.tcb.workload._config import Connect, Listen

    match entry:
        case Listen():
            return f"{entry.protocol.value}, listens on {entry.address} port {entry.port}"
        case Connect():
            return f"{entry.protocol.value}, connects to {entry.host} port {entry.port}"
    return ""
