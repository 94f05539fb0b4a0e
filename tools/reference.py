"""Write docs/reference from the code: commands, exit codes, Enarx.toml, limits, policies, checks: ``make docs``."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from enarx.attest.catalogue import CHECKS
from enarx.attest.registry import BUILTIN
from enarx.cli._config import text_of
from enarx.cli._exit import ExitCode
from enarx.cli._main import SETTINGS, cli
from enarx.cli._template import TEMPLATE
from enarx.tcb.workload import LIMITS, Limits, parse_config
from enarx.tcb.workload import _config as config
from enarx.tcb.workload._limits import SUFFIXES, Unit
from enarx_emulator.__main__ import cli as emulator_cli
from enarx_emulator.faults import registry

FOLDER: Final = Path(__file__).parents[1] / "docs" / "reference"
NOTE: Final = "<!-- Written by tools/reference.py from the code; change the code and run `make docs`. -->\n"


def pages() -> dict[str, str]:
    """Every page by its file name."""
    written = {
        "cli.md": "\n".join(command_line()),
        "exit-codes.md": "\n".join(exit_codes()),
        "enarx-toml.md": "\n".join(enarx_toml()),
        "limits.md": "\n".join(limits()),
        "policy.md": "\n".join(policy()),
        "emulator.md": "\n".join(emulator()),
        "checks.md": "\n".join(checks()),
    }
    return {name: f"{NOTE}\n{text}\n" for name, text in written.items()}


def policy() -> Iterator[str]:
    """Every key of every policy section."""
    yield "# Policies\n"
    yield "A policy is TOML: `version = 1`, an optional `name`, a section for each kind of evidence to be accepted."
    yield "Evidence of a kind without a section is refused. A key whose default is *not judged* counts only where it is"
    yield 'written; any other default is judged unless `"any"` is written. Digests and other bytes are lists of hex.'
    yield "`enarx policy check` finds contradictions; `enarx verify --explain` shows what each key said.\n"
    yield '```toml\nversion = 1\n\n[snp]\nmeasurement = ["7f51…"]   # 96 hex digits\n'
    yield "[snp.min_reported_tcb]\nsnp = 24\n```"
    for verifier in BUILTIN.values():
        for tee, rules in verifier.rules.items():
            yield f"\n## [{tee.value}]\n"
            yield "| key | judges | default | when it refuses |\n| --- | --- | --- | --- |"
            yield from policy_keys(rules)


def checks() -> Iterator[str]:
    """Every check by its name, and what it asks."""
    yield "# Checks\n"
    yield "Every verdict lists the checks that were made (`enarx verify --explain`, `--json`); a refusal names the one"
    yield "that failed. Names do not change within a major version. A check that is *noted* decides nothing by itself."
    yield "Malformed evidence fails before any check, when it is read.\n"
    yield "Rules of a policy are checks too: `policy.<section>.<key>`, as [policies](policy.md) list them."
    for kind, questions in CHECKS.items():
        yield f"\n## {kind}\n"
        yield "| check | what it asks |\n| --- | --- |"
        yield from (f"| `{name}` | {question} |" for name, question in questions.items())


def policy_keys(rules: type[Any], prefix: str = "", field: str = "") -> Iterator[str]:
    """One line a key; the keys of a table below its name."""
    for declared in dataclasses.fields(rules):
        meta = declared.metadata["key"]
        if meta.table is not None:
            yield from policy_keys(meta.table, f"{prefix}{declared.name}.", f"{field}{meta.fields[0]}.")
            continue
        if declared.default is dataclasses.MISSING:
            default = "must be written"
        else:
            default = "not judged" if declared.default is None else str(declared.default)
        judges = ", ".join(f"`{field}{name}`" for name in meta.fields) or f"`{meta.path}`"
        advice = meta.advice.replace("|", "\\|")
        yield f"| `{prefix}{declared.name}` | {judges} | {default} | {advice} |"


def command_line() -> Iterator[str]:
    """The help of every command, as a terminal of 100 columns shows it."""
    yield "# The command line\n"
    yield "Results go to standard output, everything else to standard error with the prefix `enarx:`. With `--json` a"
    yield "command gives one JSON document whose `schema` ends in its version; an error is a document too. `enarx run`"
    yield "leaves standard output to the workload and gives its document as the last line of standard error.\n"
    yield "Environment: `NO_COLOR` switches colours off; `ENARX_CONFIG` (or `ENARX_WASMCFGFILE`) and `ENARX_CACHE`"
    yield "stand for `enarx run --config` and `--cache`; `ENARX_TRACEBACK=1` shows where an internal error came from."
    for path, command in commands(cli, ("enarx",)):
        yield f"\n## {' '.join(path)}\n\n```text\n{help_of(command, path)}\n```"


def emulator() -> Iterator[str]:
    """The commands of the emulator, and every fault."""
    yield "# The emulator\n"
    yield "[What it is for](../../emulator/README.md), and [how to work with it](../how-to/emulated-platform.md)."
    for path, command in commands(emulator_cli, ("enarx-emulator",)):
        yield f"\n## {' '.join(path)}\n\n```text\n{help_of(command, path)}\n```"
    yield "\n## Faults\n"
    yield "`enarx-emulator faults` lists them; `--fault NAME` is an option of `start`, `evidence` and `vendor serve`."
    yield "Caught by: a [check](checks.md), an error of an interface, or a status of the firmware.\n"
    yield "| fault | kinds | what is wrong | caught by |\n| --- | --- | --- | --- |"
    for _, fault in sorted(registry().items()):
        yield f"| `{fault.name}` | {', '.join(fault.kinds)} | {fault.effect} | `{fault.caught_by}` |"


def commands(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """``command`` and everything below it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if (below := command.get_command(context, name)) is not None:
                yield from commands(below, (*path, name))


def help_of(command: click.Command, path: tuple[str, ...]) -> str:
    """The help text, whatever the terminal and the environment of whoever asks."""
    context = click.Context(
        command, info_name=" ".join(path), terminal_width=100, help_option_names=SETTINGS["help_option_names"]
    )
    return command.get_help(context)


def exit_codes() -> Iterator[str]:
    """The table of exit codes."""
    yield "# Exit codes\n"
    yield "With `enarx run` the workload's own exit code, 0 to 255, comes through unchanged. A workload can therefore"
    yield "end with any code of this table by itself; `--json` tells the difference in the field `ending`.\n"
    yield "| code | name | meaning |\n| ---: | --- | --- |"
    yield from (
        f"| {int(code)} | {code.name.lower().replace('_', '-')} | {code.meaning} |" for code in ExitCode
    )


def limits() -> Iterator[str]:
    """The table of limits."""
    yield "# Limits of a run\n"
    yield "`enarx run --limit NAME=VALUE`, as often as needed. A value is a whole number, alone or with a suffix:\n"
    for unit, what in (
        (Unit.BYTES, "bytes"),
        (Unit.NUMBER, "numbers"),
        (Unit.TIME, "times (alone: seconds)"),
    ):
        yield f"- {what}: {', '.join(f'`{suffix}`' for suffix in SUFFIXES[unit] if suffix)}"
    yield "\nHow a run ends at a limit is in [exit-codes.md](exit-codes.md). A limit of memory, tables or storage"
    yield "first refuses what the workload wants, and a program that handles the refusal goes on.\n"
    yield "| name | what it limits | default | least | most |\n| --- | --- | ---: | ---: | ---: |"
    for name, limit in LIMITS.items():
        value = getattr(Limits(), limit.field)
        shown = (shown_number(it, limit.unit) for it in (value, limit.low, limit.high))
        yield f"| `{name}` | {limit.meaning} | {' | '.join(shown)} |"


def shown_number(value: int | None, unit: Unit) -> str:
    """Write ``value`` as somebody would on the command line."""
    if value is None:
        return "none"
    fitting = [(value // factor, suffix) for suffix, factor in SUFFIXES[unit].items() if value % factor == 0]
    number, suffix = min(fitting, default=(value, "ms"))
    return f"{number}{suffix}" if suffix else f"{number:,}"


def enarx_toml() -> Iterator[str]:
    """The keys of Enarx.toml."""
    yield "# Enarx.toml\n"
    yield "What a workload gets. The format is that of Enarx 0.7.1, read strictly: a key that is not listed here is an"
    yield f"error, wherever it stands. At most {config.MAX_BYTES:,} bytes of UTF-8. `enarx config init` writes a start,"
    yield "`enarx config check` shows what a file means and the digest that names it.\n"
    yield "| key | type | without it |\n| --- | --- | --- |"
    yield f"| `args` | array of at most {config.MAX_ARGS} strings | no arguments; the first is always `main.wasm` |"
    yield f"| `env` | table of at most {config.MAX_ENV} strings | nothing but `FD_COUNT` and `FD_NAMES` |"
    yield "| `steward` | an https URL | the keep signs its own certificate |"
    yield f"| `files` | array of at most {config.MAX_FILES} tables | no descriptors, not even the standard streams |\n"
    yield "Only a workload without any Enarx.toml gets standard input, output and error by itself."
    yield "\n## `[[files]]`\n"
    yield "The position of an entry is its descriptor number. `FD_COUNT` is their number, `FD_NAMES` their names,"
    yield "joined with colons, so that a name holds none. Names may repeat.\n"
    yield "| `kind` | keys | without them |\n| --- | --- | --- |"
    yield "| `null`, `stdin`, `stdout`, `stderr` | `name` | the kind is the name |"
    yield "| `listen` | `prot` and `name` (required), `addr`, `port` | address `::`, port 443 for tls, 80 for tcp |"
    yield "| `connect` | `prot` and `host` (required), `name`, `port` | the host is the name; ports as above |\n"
    yield '`prot` is `"tls"` (TLS 1.3 ends in the keep, the workload sees plain bytes) or `"tcp"`. A port is 0 to'
    yield "65535; listening on 0 lets the host choose. A host with colons, such as `::1`, needs a `name`.\n"
    yield "## The file that `enarx config init` writes\n"
    yield f"```toml\n{TEMPLATE}```\n"
    yield "It means:\n"
    yield f"```text\n{text_of(parse_config(TEMPLATE))}\n```"


def main() -> int:
    """Write the pages; with ``--check`` only say which are not current."""
    stale = []
    for name, text in pages().items():
        path = FOLDER / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                os.makedirs(FOLDER, exist_ok=True)
                path.write_text(text)
    print("\n".join(stale) or "current", file=sys.stderr)
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
