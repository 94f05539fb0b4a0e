"""``enarx verify``: judge evidence by a policy, offline."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Cache,
    Check,
    Claims,
    Collateral,
    CollateralMissing,
    EvidenceRejected,
    Policy,
    PolicyDenied,
    PolicyError,
    Verifier,
    bundle,
    explain,
    uncovered,
)
from enarx.attest._verifier import recognise
from enarx.attest.ear import SigningKey
from enarx.attest.launch import PreBoot, parse_launch
from enarx.attest.registry import BUILTIN, select
from enarx.attest.results import checks_document, claims_document
from enarx.attest.sev import LaunchSession
from enarx.attest.tee import TeeVerifier
from enarx.cli._ear import Form, Token, load_signing_key, token_of
from enarx.cli._exit import ExitCode
from enarx.cli._files import load_anchors, load_collateral, read
from enarx.cli._main import SETTINGS, json_option
from enarx.cli._output import Output
from enarx.cli._parameter import Parsed
from enarx.tcb.errors import EnarxError, Malformed, Unavailable

ANY: Final = AnyBinding()


def parse_time(text: str) -> datetime:
    """Read a time such as 2025-06-01T00:00:00Z."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed(f"time is {text!r}, expected a form such as 2025-06-01T00:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def parse_report_data(text: str) -> bytes | AnyBinding:
    """Read report data in hex, or the word any."""
    if text == "any":
        return ANY
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Malformed(f'report data is {text!r}, expected hex or "any"') from None


def parse_form(text: str) -> Form:
    """Read jwt or cwt."""
    try:
        return Form(text)
    except ValueError:
        raise Malformed(f"form is {text!r}, expected jwt or cwt") from None


tee_option = click.option(
    "--tee", "tees", multiple=True, metavar="T", help="Accept only this kind; repeatable."
)
collateral_option = click.option(
    "--collateral",
    "collateral_paths",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Certificates, revocation lists and other collateral: a file or a folder; repeatable.",
)
policy_option = click.option(
    "--policy", "policy_path", type=click.Path(path_type=Path), metavar="F", help="What to accept."
)
at_option = click.option(
    "--at",
    "at",
    type=Parsed("TIME", parse_time),
    help="Judge as of this time instead of now.",
    metavar="TIME",
)
root_option = click.option(
    "--root",
    "roots",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="F",
    help="Trust this root too: a certificate or public key; repeatable.",
)
session_option = click.option(
    "--launch-session",
    "--sev-session",
    "session_path",
    type=click.Path(path_type=Path),
    metavar="F",
    help="How you launched the guest: needed for SEV, SEV-ES and PEF (docs/spec/sev-evidence.md, pef-evidence.md).",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one file."""

    file: str
    code: ExitCode
    word: str
    """accepted, authentic, refused, malformed or unavailable."""
    message: str
    hint: str
    claims: Claims | None
    checks: tuple[Check, ...]
    failures: tuple[Check, ...]
    refusal: EvidenceRejected | None = None
    """Why the evidence must not be trusted, where that is the verdict."""
    token: Token | None = None

    def document(self) -> dict[str, object]:
        """The verdict as JSON."""
        return {
            "file": self.file,
            "verdict": self.word,
            "message": self.message,
            "hint": self.hint or None,
            "failures": [check.name for check in self.failures],
            "claims": claims_document(self.claims) if self.claims else None,
            "checks": checks_document(self.checks),
            **({"ear": self.token.text()} if self.token else {}),
        }


def judge(
    file: str,
    evidence: bytes,
    verifier: Verifier,
    collateral: Collateral,
    at: datetime,
    binding: bytes | AnyBinding,
    launch: PreBoot | None = None,
) -> Verdict:
    """Verify one piece of evidence and put the outcome into words."""
    try:
        claims = verifier.verify(evidence, collateral=collateral, binding=binding, now=at, launch=launch)
    except PolicyDenied as error:
        failed = _failed(file, ExitCode.REFUSED, "refused", error, error.checks, error.failures)
        return dataclasses.replace(failed, refusal=error)
    except EvidenceRejected as error:
        failed = _failed(file, ExitCode.REFUSED, "refused", error, error.checks, (error.check,))
        return dataclasses.replace(failed, refusal=error)
    except CollateralMissing as error:
        return _failed(file, ExitCode.UNAVAILABLE, "unavailable", error, error.checks, (error.check,))
    except Unavailable as error:
        return _failed(file, ExitCode.UNAVAILABLE, "unavailable", error)
    except Malformed as error:
        return _failed(file, ExitCode.MALFORMED, "malformed", error)
    kind = f"genuine {claims.tee.value} evidence under {claims.root}"
    if claims.policy_digest is None:
        return _passed(file, "authentic", f"{kind}; nothing was appraised", claims)
    return _passed(file, "accepted", kind, claims)


def _passed(file: str, word: str, message: str, claims: Claims) -> Verdict:
    return Verdict(
        file=file,
        code=ExitCode.DONE,
        word=word,
        message=message,
        hint="",
        claims=claims,
        checks=claims.checks,
        failures=(),
    )


def _failed(
    file: str,
    code: ExitCode,
    word: str,
    error: EnarxError,
    checks: tuple[Check, ...] = (),
    failures: tuple[Check, ...] = (),
) -> Verdict:
    return Verdict(
        file=file,
        code=code,
        word=word,
        message=str(error),
        hint=error.hint,
        claims=None,
        checks=checks,
        failures=failures,
    )


def load_policy(path: Path, tees: tuple[TeeVerifier, ...]) -> Policy:
    """Read a policy file."""
    try:
        return Policy.parse(read(path).decode(), tees)
    except UnicodeDecodeError:
        raise Malformed(f"{path}: not UTF-8") from None
    except EnarxError as error:
        raise Malformed(f"{path}: {error}", hint=error.hint) from None


def enabled(names: tuple[str, ...]) -> tuple[TeeVerifier, ...]:
    """The verifiers named, or all that are built in."""
    try:
        return select(names or BUILTIN)
    except PolicyError as error:
        raise click.UsageError(f"invalid value for '--tee': {error}; {error.hint}") from None


HELP: Final = """Judge evidence: whether it is genuine, bound to your challenge, and what your policy accepts.

Works offline: certificates, revocation lists and other collateral are given with --collateral. Without
--policy nothing is appraised, and the exit code is 1 unless --authenticity-only says that this is meant. With
a policy the evidence must be bound to your challenge: --report-data says what that is; "any" leaves it out.
Evidence of SEV is bound to the session that you name with --launch-session, until that session has a secret: from
then on the keep's proof says what it is bound to, as with PEF.

Several files are several pieces of evidence when each is one by itself. Otherwise they are the files of one: a
quote with its event log and certificates, or quote, signature and PCRs of a TPM, recognised by their content.

\b
Examples:
  enarx verify report.bin --collateral certs/ --policy prod.toml --report-data 5f1c...
  enarx verify quote.bin --collateral pcs/ --authenticity-only --at 2025-06-01T00:00:00Z
  enarx verify quote.msg quote.sig quote.pcrs ak.pem log.bin --policy prod.toml --report-data 5f1c...
  enarx verify launch.cbor proof.cbor --launch-session s.json --policy prod.toml --report-data 5f1c...
  enarx verify report.bin --policy prod.toml --report-data 5f1c... --ear jwt --ear-key verifier.pem
  enarx verify --manifest evidence/

Exit codes: 0 accepted, 1 refused, 2 usage, 3 malformed, 4 something is missing.
"""


@click.command(context_settings=SETTINGS, help=HELP)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="FILE...")
@tee_option
@collateral_option
@policy_option
@at_option
@click.option(
    "--report-data",
    "binding",
    type=Parsed("HEX", parse_report_data),
    metavar="HEX|any",
    help="What the evidence must be bound to, every byte of it.",
)
@root_option
@session_option
@click.option(
    "--ear",
    "form",
    type=Parsed("FORM", parse_form),
    metavar="jwt|cwt",
    help="Sign the verdict as an attestation result (EAR).",
)
@click.option(
    "--ear-key",
    "key_path",
    type=click.Path(path_type=Path),
    metavar="F",
    help="The private key (PEM) for that.",
)
@click.option(
    "--ear-out",
    "token_path",
    type=click.Path(path_type=Path),
    metavar="F",
    help="Where to put the token instead of into the output.",
)
@click.option(
    "--cmw-out",
    "envelope_path",
    type=click.Path(path_type=Path),
    metavar="F",
    help="Where to put the files as one collection (CMW).",
)
@click.option("--authenticity-only", is_flag=True, help="Succeed without a policy: genuine is enough.")
@click.option(
    "--explain", "explained", is_flag=True, help="List every check, and the fields that no rule looked at."
)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Judge a whole evidence folder by its manifest.",
)
@json_option
@click.pass_obj
def verify(
    output: Output,
    files: tuple[Path, ...],
    tees: tuple[str, ...],
    collateral_paths: tuple[Path, ...],
    policy_path: Path | None,
    at: datetime | None,
    binding: bytes | AnyBinding | None,
    roots: tuple[Path, ...],
    session_path: Path | None,
    form: Form | None,
    key_path: Path | None,
    token_path: Path | None,
    envelope_path: Path | None,
    authenticity_only: bool,
    explained: bool,
    manifest: Path | None,
) -> ExitCode:
    """Judge evidence."""
    if manifest is not None:
        return _manifest(output, manifest, explained, alone=not files and not policy_path)
    _check_usage(files, policy_path, authenticity_only, (form, key_path, token_path))
    key = load_signing_key(key_path) if key_path else None
    chosen = enabled(tees)
    policy = load_policy(policy_path, chosen) if policy_path else AuthenticityOnly()
    verifier = Verifier(tees=chosen, anchors=load_anchors(roots), policy=policy, cache=Cache())
    collateral = load_collateral(collateral_paths)
    launch = parse_launch(read(session_path)) if session_path else None
    if binding is None and isinstance(launch, LaunchSession) and launch.secret is None:
        binding = launch.binding
    when, bound = at or datetime.now(UTC), ANY if binding is None else binding
    pieces = _pieces(files, chosen)
    if len(pieces) > 1 and (token_path or envelope_path):
        raise click.UsageError("several pieces of evidence do not go into one file: name one at a time")
    verdicts = [judge(name, data, verifier, collateral, when, bound, launch) for name, data in pieces.items()]
    if policy_path and binding is None:
        verdicts = [_unbound(verdict) for verdict in verdicts]
    if form is not None and key is not None:
        verdicts = [_signed(one, pieces[one.file], chosen, form, key, when) for one in verdicts]
    verdicts = [_written(one, pieces[one.file], token_path, envelope_path) for one in verdicts]
    code = max((verdict.code for verdict in verdicts), default=ExitCode.DONE)
    if code is ExitCode.DONE and policy_path is None and not authenticity_only:
        code = ExitCode.REFUSED
    meant = policy_path is not None or authenticity_only
    document = {"verdicts": [verdict.document() for verdict in verdicts], "exit_code": int(code)}
    output.result("enarx.verify/1", document, "\n".join(_text(one, explained, meant) for one in verdicts))
    return code


def _manifest(output: Output, folder: Path, explained: bool, *, alone: bool) -> ExitCode:
    from enarx.cli._manifest import run_manifest

    if not alone:
        raise click.UsageError("--manifest names evidence and policies itself")
    return run_manifest(output, folder, explained=explained)


def _check_usage(
    files: tuple[Path, ...],
    policy_path: Path | None,
    authenticity_only: bool,
    ear: tuple[Form | None, Path | None, Path | None],
) -> None:
    form, key_path, token_path = ear
    if not files:
        raise click.UsageError("missing FILE")
    if policy_path and authenticity_only:
        raise click.UsageError("--policy and --authenticity-only exclude each other")
    if (form is None) != (key_path is None) or (token_path is not None and form is None):
        raise click.UsageError("--ear and --ear-key belong together, and --ear-out to them")


def _pieces(files: tuple[Path, ...], tees: tuple[TeeVerifier, ...]) -> dict[str, bytes]:
    """The evidence by the names of the files that it is from: each is some, or all are the files of one."""
    found = {str(file): read(file) for file in files}
    if len(found) < 2 or bundle.each_is_evidence(found.values(), tees):
        return found
    return {" + ".join(found): bundle.pack(tuple(found.values()), tees)}


def _signed(
    verdict: Verdict,
    evidence: bytes,
    tees: tuple[TeeVerifier, ...],
    form: Form,
    key: SigningKey,
    when: datetime,
) -> Verdict:
    """Add the token; nothing can be said of evidence that could not be judged."""
    judged = verdict.claims or verdict.refusal
    if judged is None:
        return verdict
    name = verdict.claims.tee.value if verdict.claims else recognise(evidence, tees)[0].name
    return dataclasses.replace(verdict, token=token_of(judged, name, form, key, now=when))


def _written(verdict: Verdict, evidence: bytes, token: Path | None, envelope: Path | None) -> Verdict:
    """Put evidence and token where they were asked for."""
    if envelope is not None:
        envelope.write_bytes(bundle.envelop(evidence))
    if token is None:
        return verdict
    if verdict.token is None:
        token.unlink(missing_ok=True)  # nobody shall take an older one for this verdict's
        return verdict
    token.write_bytes(verdict.token.value)
    return dataclasses.replace(verdict, token=None)


def _unbound(verdict: Verdict) -> Verdict:
    """Refuse what a policy accepted although nobody said what it must be bound to."""
    if verdict.code is not ExitCode.DONE:
        return verdict
    return dataclasses.replace(
        verdict,
        code=ExitCode.REFUSED,
        word="refused",
        message="the policy accepts it, but it was not said what it must be bound to: it may be a replay",
        hint="give --report-data HEX, or --report-data any if that is meant",
        failures=tuple(check for check in verdict.checks if check.name == "binding.report_data"),
    )


def _text(verdict: Verdict, explained: bool, meant: bool) -> str:
    """``meant``: that a success without a policy is one was said on the command line."""
    lines = [f"{verdict.file}: {verdict.word}: {verdict.message}"]
    lines += [f"  and {check.name}: {check.sentence()}" for check in verdict.failures[1:]]
    if verdict.hint:
        lines.append(f"  {verdict.hint}")
    if (claims := verdict.claims) is not None:
        lines.append(f"  measurement {claims.measurement.hex()}")
        lines.append(f"  report data {claims.report_data.hex()}{'' if claims.bound else ' (not compared)'}")
        if not meant:
            lines.append("  not accepted: no policy was given (--authenticity-only if that is meant)")
    if verdict.token is not None:
        lines.append(f"  ear {verdict.token.text()}")
    if explained:
        lines += ["", explain(verdict.checks)]
        if claims is not None:
            unseen = uncovered(claims.evidence.fields(), verdict.checks)
            lines += ["", f"no rule looked at: {', '.join(unseen) or 'nothing'}"]
    return "\n".join(lines)
