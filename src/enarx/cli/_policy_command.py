"""``enarx policy``: read policies before they decide, and try them on recorded evidence."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from enarx.attest import AnyBinding, Cache, Verifier
from enarx.attest.launch import parse_launch
from enarx.cli._exit import ExitCode
from enarx.cli._files import load_anchors, load_collateral, read
from enarx.cli._main import SETTINGS, json_option
from enarx.cli._output import Output
from enarx.cli._verify import (
    at_option,
    collateral_option,
    enabled,
    judge,
    load_policy,
    root_option,
    session_option,
)


@click.group(context_settings=SETTINGS)
@json_option
def policy() -> None:
    """Check policies, and try them on recorded evidence.

    \b
    Examples:
      enarx policy check prod.toml
      enarx policy try prod.toml report.bin --collateral certs/
    """


@policy.command(context_settings=SETTINGS)
@click.argument("file", type=click.Path(path_type=Path), metavar="POLICY")
@json_option
@click.pass_obj
def check(output: Output, file: Path) -> ExitCode:
    """Read a policy and name what is probably a mistake: contradictions, useless minimums, checks switched off.

    \b
    Examples:
      enarx policy check prod.toml

    Exit codes: 0 nothing found, 1 something found, 3 not a policy.
    """
    read_policy = load_policy(file, enabled(()))
    found = read_policy.lint()
    document = {
        "name": read_policy.name,
        "sha256": read_policy.digest.hex(),
        "sections": sorted(tee.value for tee in read_policy.sections),
        "findings": found,
    }
    count = "1 finding" if len(found) == 1 else f"{len(found)} findings"
    text = "\n".join([*found, f"{count}; sha256 {read_policy.digest.hex()}"])
    output.result("enarx.policy.check/1", document, text)
    return ExitCode.REFUSED if found else ExitCode.DONE


@policy.command("try", context_settings=SETTINGS)
@click.argument("file", type=click.Path(path_type=Path), metavar="POLICY")
@click.argument("evidence", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="EVIDENCE...")
@collateral_option
@at_option
@root_option
@session_option
@json_option
@click.pass_obj
def try_(
    output: Output,
    file: Path,
    evidence: tuple[Path, ...],
    collateral_paths: tuple[Path, ...],
    at: datetime | None,
    roots: tuple[Path, ...],
    session_path: Path | None,
) -> ExitCode:
    """Say which recorded evidence a policy would accept, and which rules refuse the rest. Bindings are not compared.

    \b
    Examples:
      enarx policy try prod.toml reports/*.bin --collateral certs/ --at 2025-06-01T00:00:00Z

    Exit codes: 0 all accepted, 1 one refused, 3 malformed, 4 something is missing.
    """
    tees = enabled(())
    verifier = Verifier(tees=tees, anchors=load_anchors(roots), policy=load_policy(file, tees), cache=Cache())
    collateral, when = load_collateral(collateral_paths), at or datetime.now(UTC)
    launch = parse_launch(read(session_path)) if session_path else None
    verdicts = [
        judge(str(one), read(one), verifier, collateral, when, AnyBinding(), launch) for one in evidence
    ]
    lines: list[str] = []
    for verdict in verdicts:
        lines.append(f"{verdict.file}: {verdict.word}{'' if verdict.failures else ': ' + verdict.message}")
        for failure in verdict.failures:
            lines.append(f"  {failure.name}: {failure.sentence()}")
            lines += [f"    {failure.advice}"] if failure.advice else []
    output.result(
        "enarx.policy.try/1", {"verdicts": [verdict.document() for verdict in verdicts]}, "\n".join(lines)
    )
    return max(verdict.code for verdict in verdicts)
