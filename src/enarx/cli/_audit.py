"""``enarx audit``: judge again, later, what was judged in a deployment."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from enarx.cli._exit import ExitCode
from enarx.cli._main import SETTINGS, json_option
from enarx.cli._output import Output, printable
from enarx.tcb.errors import EnarxError


@click.group(context_settings=SETTINGS, no_args_is_help=True)
@json_option
def audit() -> None:
    """Read the record of deployments (enarx deploy --audit DIR) again.

    \b
    Examples:
      enarx audit replay record
    """


@audit.command(context_settings=SETTINGS)
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--head", metavar="HEX", help="The last line's digest that you kept: nothing up to there may be missing."
)
@json_option
@click.pass_obj
def replay(output: Output, directory: Path, head: str | None) -> ExitCode:
    """Check that nothing in DIRECTORY was changed, and make every verdict again from what it rested on.

    \b
    Examples:
      enarx audit replay record
      enarx audit replay record --head $(cat head)
    """
    from enarx.tenant import WITHHELD
    from enarx.tenant import replay as replay_record

    found = replay_record(directory, head=head, launches=_launches())
    same = all(it.same for it in found.verdicts)
    verdicts = [
        {
            "index": it.index,
            "deployment": it.deployment,
            "stage": it.stage,
            "then": it.judgement,
            "now": it.again,
            "same": it.same,
            "detail": it.detail,
        }
        for it in found.verdicts
    ]
    lines = [
        f"{it.deployment[:8]}  line {it.index}  {it.stage} keep  {it.judgement}"
        + ("" if it.same else f", now {it.again}: {it.detail}")
        for it in found.verdicts
    ]
    lines.append(f"{len(found.lines)} lines, {len(verdicts)} verdicts, head {found.head}")
    document = {"lines": len(found.lines), "head": found.head, "same": same, "verdicts": verdicts}
    output.result("enarx.audit-replay/1", document, printable("\n".join(lines)))
    if same:
        return ExitCode.DONE
    if not output.as_json:
        withheld = any(it.again == WITHHELD for it in found.verdicts)
        what = "cannot be made again yet" if withheld else "comes out differently now"
        output.error(ExitCode.REFUSED, f"a verdict {what}")
    return ExitCode.REFUSED


def _launches() -> list[bytes]:
    """Find what this account keeps of launches whose keeps it left running; what cannot be read is not there."""
    from enarx.tenant import Credentials, kept_launches

    with contextlib.suppress(EnarxError):
        return kept_launches(Credentials().all())
    return []
