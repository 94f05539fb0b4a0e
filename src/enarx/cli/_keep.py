"""``enarx keep``: return to keeps that were left running."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from enarx.cli._deploy import told
from enarx.cli._exit import ExitCode
from enarx.cli._main import SETTINGS, json_option
from enarx.cli._output import Output, printable
from enarx.cli._tenant import (
    accepted_only,
    address_of,
    collateral_of,
    host_options,
    observer_of,
    trust_of,
    trust_options,
)
from enarx.cli._workload import WorkloadCommand, document_of
from enarx.tcb.errors import EnarxError

if TYPE_CHECKING:
    from enarx.tenant import Credential, Keep

_Command = TypeVar("_Command", bound=Callable[..., object])


def keep_options(command: _Command) -> _Command:
    """Declare which keep, and whom to trust: it proves itself anew each time."""
    command = json_option(host_options(trust_options(command)))
    host = click.option("--host", "url", metavar="URL", help="Where it is, if it has moved.")
    return click.argument("name", metavar="KEEP")(host(command))


@click.group(context_settings=SETTINGS, no_args_is_help=True)
@json_option
def keep() -> None:
    """Return to keeps that were left running with enarx deploy --detach. KEEP may be shortened.

    Only who has the key that the deployment made can return; it lies in ~/.local/share/enarx/keeps.

    \b
    Examples:
      enarx keep list
      enarx keep logs 3f2a
      enarx keep stop 3f2a
    """


@keep.command("list", context_settings=SETTINGS)
@host_options
@json_option
@click.pass_obj
def list_(output: Output, token_file: Path | None, host_ca: Path | None) -> ExitCode:
    """List the keeps that this account left running, and what their hosts say of them.

    Exit code 1 says that a file could not be read; the others are listed.

    \b
    Examples:
      enarx keep list
    """
    from enarx.tenant import Credentials

    found: list[dict[str, str]] = []
    unreadable: list[EnarxError] = []
    for credential in Credentials().all(unreadable=unreadable.append):
        state = _state(credential, token_file, host_ca)
        found.append(
            {
                "keep": credential.keep,
                "tee": credential.tee,
                "host": credential.host,
                "created": credential.created,
                "state": state,
            }
        )
    lines = [
        f"{it['keep'][:12]}  {it['tee']:<6}  {it['created']}  {it['host']}  {it['state']}" for it in found
    ]
    document = {"keeps": found, "unreadable": [str(error) for error in unreadable]}
    output.result("enarx.keep-list/1", document, printable("\n".join(lines) or "no keeps"))
    for error in unreadable:
        output.warning(f"left out: {printable(str(error))}")
    return ExitCode.REFUSED if unreadable else ExitCode.DONE


@keep.command(cls=WorkloadCommand, context_settings=SETTINGS)
@keep_options
@click.pass_obj
def attach(output: Output, /, name: str, **options: Any) -> int:
    """Take the output of KEEP and stay until it ends; the exit code is its own.

    Its standard input ended when it was left running.

    \b
    Examples:
      enarx keep attach 3f2a
    """
    with _opened(output, name, **options) as one:
        result = one.attach(None, sys.stdout.buffer, sys.stderr.buffer)
    _forget(one.credential)
    return told(result, output)


@keep.command(cls=WorkloadCommand, context_settings=SETTINGS)
@keep_options
@click.pass_obj
def logs(output: Output, /, name: str, **options: Any) -> int:
    """Show what KEEP has written until now.

    If it has ended, say how; it is then forgotten, because a keep tells its end once.

    \b
    Examples:
      enarx keep logs 3f2a
    """
    with _opened(output, name, **options) as one:
        result = one.logs(sys.stdout.buffer, sys.stderr.buffer)
    if result is None:
        return ExitCode.DONE
    _forget(one.credential)
    return told(result, output)


@keep.command(context_settings=SETTINGS)
@keep_options
@click.option("--force", is_flag=True, help="Have the host end it, whatever it is; nothing is verified.")
@click.pass_obj
def stop(output: Output, /, name: str, force: bool, **options: Any) -> ExitCode:
    """End KEEP and say how its workload ended.

    \b
    Examples:
      enarx keep stop 3f2a
      enarx keep stop 3f2a --force
    """
    with _opened(output, name, **options) as one:
        if force:
            one.discard()
            document: dict[str, object] = {"keep": one.credential.keep}
            text = f"{one.credential.keep} is discarded"
        else:
            outcome = one.stop()
            document = {"keep": one.credential.keep, **document_of(outcome)}
            text = f"{one.credential.keep} has ended: {outcome.ending.value}"
    _forget(one.credential)
    output.result("enarx.keep-stop/1", document, printable(text))
    return ExitCode.DONE


@keep.command(context_settings=SETTINGS)
@keep_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the evidence itself.",
)
@click.pass_obj
def evidence(output: Output, /, name: str, out: Path | None, **options: Any) -> ExitCode:
    """Have KEEP prove itself anew, and show the verdict.

    \b
    Examples:
      enarx keep evidence 3f2a --out evidence.bin
    """
    with _opened(output, name, **options) as one:
        verdict = one.evidence()
    if out is not None:
        out.write_bytes(verdict.evidence)
    facts = {
        "stage": verdict.stage.value,
        **verdict.facts,
        "report_data": verdict.binding.report_data().hex(),
    }
    text = "\n".join(f"{key:<12} {value}" for key, value in facts.items() if value)
    output.result("enarx.keep-evidence/1", {"keep": one.credential.keep, **facts}, printable(text))
    return ExitCode.DONE


@contextlib.contextmanager
def _opened(
    output: Output,
    name: str,
    *,
    url: str | None,
    image_path: Path | None,
    policy_path: Path | None,
    roots: tuple[Path, ...],
    collateral_paths: tuple[Path, ...],
    audit_path: Path | None,
    token_file: Path | None,
    host_ca: Path | None,
) -> Iterator[Keep]:
    """Find a keep by its name. Raises ``EnarxError``."""
    from enarx.tenant import AuditFile, Credentials, Keep

    credential = Credentials().get(name)
    image = image_path or (Path(credential.image) if credential.image else None)
    with accepted_only(), contextlib.ExitStack() as stack:
        yield Keep(
            credential=credential,
            host=address_of(url or credential.host, token_file, host_ca),
            trust=trust_of(policy_path, roots, image, credential.tee),
            collateral=collateral_of(collateral_paths),
            observer=observer_of(output),
            audit=None if audit_path is None else stack.enter_context(AuditFile(audit_path)),
        )


def _state(credential: Credential, token_file: Path | None, host_ca: Path | None) -> str:
    from enarx.tenant import AgentClient
    from enarx.tenant.agent_calls import NoSuchKeep

    try:
        with AgentClient(address_of(credential.host, token_file, host_ca), timeout_s=5.0) as agent:
            info = agent.keep(credential.keep)
    except NoSuchKeep:
        return "gone: its host knows it no more"
    except EnarxError as error:
        return f"unknown: {error}"
    return f"ended: {info.ended}" if info.ended else info.state.value


def _forget(credential: Credential) -> None:
    from enarx.tenant import Credentials

    Credentials().remove(credential)
