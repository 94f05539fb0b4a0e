"""What commands of a tenant share: which host, whom to trust, and the steps as people and programs see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from enarx.cli._files import load_collateral, read
from enarx.cli._main import KeepLost, NotAccepted
from enarx.cli._output import Output, printable
from enarx.tcb.errors import Malformed

if TYPE_CHECKING:
    from enarx.attest import Collateral
    from enarx.tenant import HostAddress, Step, Trust
    from enarx.tenant.endorsement import CollateralFrom
    from enarx.tenant.reference import KeepImage
    from enarx.tenant.steps import Observer

_Command = TypeVar("_Command", bound=Callable[..., object])
FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
IMAGE: Final = click.Path(exists=True, path_type=Path)
VENDOR: Final = "vendor"
TPM: Final = "tpm"
OPEN: Final = "; its memory is OPEN to whoever runs the machine"

_TRUST: Final = (
    click.option(
        "--image",
        "image_path",
        type=IMAGE,
        metavar="PATH",
        help="Expect keeps from this image: a VM image's directory, or a file.  [default: this release's process keep]",
    ),
    click.option(
        "--policy",
        "policy_path",
        type=FILE,
        metavar="FILE",
        help="What to accept.  [default: exactly the expected image, on hardware]",
    ),
    click.option(
        "--trust-root",
        "roots",
        multiple=True,
        type=FILE,
        metavar="FILE",
        help="Trust this root too: a certificate or public key, as of an emulated machine; may be repeated.",
    ),
    click.option(
        "--collateral",
        "collateral_paths",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Verify with these files, or with what the vendor serves (vendor).  [default: what the host sends]",
    ),
    click.option(
        "--audit",
        "audit_path",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Append every step and every decision, with all it rests on, to the record in this directory.",
    ),
)
_HOST: Final = (
    click.option(
        "--token-file", type=FILE, metavar="FILE", help="The bearer token that the host's owner gave you."
    ),
    click.option(
        "--host-ca",
        type=FILE,
        metavar="FILE",
        help="Certificates for the host's own TLS, instead of the system's.",
    ),
)


def trust_options(command: _Command) -> _Command:
    """Declare whom and what to trust."""
    return reduce(lambda inner, option: option(inner), reversed(_TRUST), command)


def host_options(command: _Command) -> _Command:
    """Declare what a host wants to see of us."""
    return reduce(lambda inner, option: option(inner), reversed(_HOST), command)


def address_of(url: str, token_file: Path | None, host_ca: Path | None) -> HostAddress:
    """Give the address of a host. Raises ``Malformed``."""
    from enarx.tenant import HostAddress

    token = ""
    if token_file is not None:
        try:
            token = read(token_file).decode("ascii").strip()
        except UnicodeDecodeError:
            raise Malformed(f"{token_file}: expected visible ASCII characters") from None
    return HostAddress.parse(url, token=token, certificates=host_ca)


def trust_of(
    policy_path: Path | None, roots: Sequence[Path], image: KeepImage | Path | None, tee: str
) -> Trust:
    """Give what the tenant trusts: a TPM only if the tenant asked for one by name. Raises ``EnarxError``."""
    from enarx.tenant import Trust
    from enarx.tenant.deployment import expected_image

    named = {path.name: read(path) for path in roots}
    if policy_path is None:
        return Trust.release(expected_image(image), roots=named, tpm=tee == TPM)
    try:
        text = read(policy_path).decode()
    except UnicodeDecodeError:
        raise Malformed(f"{policy_path}: not UTF-8") from None
    return Trust(policy_text=text, roots=named)


def collateral_of(paths: Sequence[Path]) -> CollateralFrom | Collateral:
    """Say where collateral comes from."""
    from enarx.tenant import CollateralFrom

    if not paths:
        return CollateralFrom.HOST
    if [str(path) for path in paths] == [VENDOR]:
        return CollateralFrom.VENDOR
    return load_collateral(paths)


@contextmanager
def accepted_only() -> Iterator[None]:
    """Give a keep that is not accepted an exit code of its own: no workload has run, and no secret has left.

    One that falls silent has one, too: nothing is known about the workload's end.
    """
    from enarx.attest import CollateralMissing, EvidenceRejected
    from enarx.tenant.channel import ChannelLost
    from enarx.tenant.judge import KeepRejected

    try:
        yield
    except (EvidenceRejected, KeepRejected) as error:
        raise NotAccepted(str(error), hint=error.hint) from None
    except CollateralMissing as error:
        if "collateral fetch" in error.hint:  # which wants evidence in a file
            error.hint = "the host did not send it: --collateral vendor asks AMD or Intel"
        raise
    except ChannelLost as error:
        raise KeepLost(str(error), hint=error.hint) from None


def observer_of(output: Output) -> Observer:
    """Tell every step as it happens: who said what, and by which measurement and root it was decided."""
    from enarx.tenant import What

    def tell(step: Step) -> None:
        if output.as_json:
            document = {
                "who": step.who.value,
                "what": step.what.value,
                "text": step.text,
                "facts": dict(step.facts),
            }
            output.event("enarx.step/1", document)
        elif step.what is What.ACCEPTED:
            output.note(f"{step.who.value}: accepted {_accepted(step)}")
        elif step.what is What.REJECTED:
            output.note(f"{step.who.value}: {printable(_rejected(step))}")
        elif step.what is What.STOPPED and step.text.startswith("given up"):
            output.note(f"{step.who.value}: gave up")  # the reason is the error that follows
        else:
            output.note(f"{step.who.value}: {printable(step.text)}")

    return tell


def _accepted(step: Step) -> str:
    facts = step.facts
    status = f", TCB {facts['tcb_status']}" if facts.get("tcb_status") else ""
    text = f"the {facts['stage']} keep: {facts['tee']} {facts['measurement']}, root {facts['root']}{status}"
    return printable(text) + (OPEN if facts["memory"] == "open" else "")


def _rejected(step: Step) -> str:
    name = f" ({step.facts['check']})" if step.facts.get("check") else ""
    return f"rejected the {step.facts.get('stage', '')} keep{name}"
