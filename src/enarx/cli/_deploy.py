"""``enarx deploy``: run a workload on somebody else's machine, after that machine's keep has proved what it is."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from enarx.cli._main import SETTINGS, json_option
from enarx.cli._output import Output
from enarx.cli._parameter import Parsed
from enarx.cli._tenant import (
    accepted_only,
    address_of,
    collateral_of,
    host_options,
    observer_of,
    trust_of,
    trust_options,
)
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
from enarx.tcb.errors import Malformed

if TYPE_CHECKING:
    from enarx.tenant import Deployment, Result, SecretSource

VARIABLE: Final = "env:"
TEES: Final = ("any", "snp", "tdx", "sgx", "sev", "sev-es", "pef", "tpm")


def parse_secret(text: str) -> tuple[str, str]:
    """Read ``NAME=FILE`` or ``NAME=env:VARIABLE``. Raises ``Malformed``."""
    name, equals, source = text.partition("=")
    if not equals or not name or source in ("", VARIABLE):
        raise Malformed(f"expected NAME=FILE or NAME=env:VARIABLE, found {name!a}")
    return name, source


@click.command(cls=WorkloadCommand, context_settings=SETTINGS)
@click.argument("package", type=click.Path(exists=True, path_type=Path))
@arguments_argument
@click.option("--host", "url", required=True, metavar="URL", help="The machine's agent: http[s]://HOST:PORT.")
@click.option(
    "--tee",
    type=click.Choice(TEES),
    default="any",
    show_default=True,
    help="The kind of keep to ask for; sev, sev-es and tpm protect less, and are never part of any.",
)
@trust_options
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    type=Parsed("secret", parse_secret),
    metavar="NAME=FILE|env:VAR",
    help="Becomes /run/secrets/NAME in the keep; read when the empty keep was accepted.",
)
@click.option(
    "--secret-env",
    "environment_secrets",
    multiple=True,
    type=Parsed("secret", parse_secret),
    metavar="NAME=FILE|env:VAR",
    help="The same, and a variable NAME.",
)
@env_option
@limit_option
@threads_option
@click.option("--detach", is_flag=True, help="Leave it running; enarx keep returns to it.")
@host_options
@json_option
@click.pass_context
def deploy(ctx: click.Context, /, detach: bool, audit_path: Path | None, **options: Any) -> int:
    """Run PACKAGE, a directory or a .wasm file, in a keep on a machine that you need not trust.

    The keep proves by its TEE what it is; only then workload and secrets go in, encrypted for it alone. Standard
    error tells each step. Standard input, output and error and the exit code are the program's own.

    \b
    Examples:
      enarx deploy hello.wasm --host http://machine:7478
      enarx deploy package --host http://machine:7478 --tee snp --secret key=key.pem -- --verbose
      enarx deploy server --host https://machine:7478 --token-file token --detach
      enarx deploy hello.wasm --host http://localhost:7478 --trust-root emulated-root.pem
      enarx deploy package --host http://machine:7478 --image enarx-vm --tee snp

    With --json every step is a document on standard error, the last tells the result. Exit code 119 says that
    the keep was not accepted; the others are in docs/reference/exit-codes.md.
    """
    from enarx.tenant import AuditFile, Credentials

    output: Output = ctx.obj
    with accepted_only(), contextlib.ExitStack() as stack:
        audit = None if audit_path is None else stack.enter_context(AuditFile(audit_path))
        plan = _plan(ctx, output, audit=audit, **options)
        if detach:
            left = plan.leave(Credentials())
            output.result("enarx.keep/1", {"keep": left.keep, "host": left.host, "tee": left.tee}, left.keep)
            return 0
        result = plan.run(sys.stdin.buffer, sys.stdout.buffer, sys.stderr.buffer)
    return told(result, output)


def told(result: Result, output: Output) -> int:
    """Tell how a deployment ended, and give the exit code."""
    if not output.as_json:
        return tell_end(result.outcome, output)
    verdicts = [{"stage": it.stage.value, **it.facts} for it in result.verdicts]
    output.result(
        "enarx.deploy/1", {**document_of(result.outcome), "keep": result.keep, "verdicts": verdicts}, ""
    )
    return int(code_of(result.outcome))


def _plan(
    ctx: click.Context,
    output: Output,
    *,
    package: Path,
    arguments: tuple[str, ...],
    url: str,
    tee: str,
    image_path: Path | None,
    policy_path: Path | None,
    roots: tuple[Path, ...],
    collateral_paths: tuple[Path, ...],
    secrets: tuple[tuple[str, str], ...],
    environment_secrets: tuple[tuple[str, str], ...],
    env: tuple[tuple[str, str], ...],
    limits: tuple[str, ...],
    threads: bool,
    token_file: Path | None,
    host_ca: Path | None,
    **others: Any,
) -> Deployment:
    """Put a deployment together; nothing is sent, and no secret read. Raises ``EnarxError``."""
    from enarx.tenant.deployment import expected_image, plan_deployment

    image = expected_image(image_path)
    sources = [_source(*one, environment=False) for one in secrets]
    sources += [_source(*one, environment=True) for one in environment_secrets]
    return plan_deployment(
        package,
        address_of(url, token_file, host_ca),
        trust=trust_of(policy_path, roots, image, tee),
        image=image,
        tee=tee,
        collateral=collateral_of(collateral_paths),
        secrets=tuple(sources),
        arguments=arguments,
        environment=env,
        limits=limits_of(ctx, limits),
        threads=threads,
        observer=observer_of(output),
        **others,
    )


def _source(name: str, source: str, *, environment: bool) -> SecretSource:
    from enarx.tenant import SecretSource

    if source.startswith(VARIABLE):
        return SecretSource.from_environment(name, source.removeprefix(VARIABLE), environment=environment)
    return SecretSource.from_file(name, Path(source), environment=environment)
