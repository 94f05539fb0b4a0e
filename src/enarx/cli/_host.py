"""``enarx host``: launch keeps on this machine for tenants who do not trust it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from enarx.cli._exit import ExitCode
from enarx.cli._main import SETTINGS, json_option
from enarx.cli._output import Output, printable
from enarx.cli._parameter import Parsed
from enarx.tcb.errors import Malformed

if TYPE_CHECKING:
    from enarx.api.agent import KeepInfo
    from enarx.host.backend import Backend
    from enarx.host.sallyport import Endpoints

ANY: Final = "any"
DEFAULT_LISTEN: Final = "127.0.0.1:7478"


def parse_endpoint(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``; an IPv6 address stands in brackets. Raises ``Malformed``."""
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise Malformed(
            f"expected HOST:PORT, found {text!a}", hint="for example 127.0.0.1:7478 or [::1]:7478"
        )
    return host, int(port)


def parse_allowed(text: str) -> tuple[str, int] | None:
    """Read ``HOST:PORT`` or ``any``, which is None. Raises ``Malformed``."""
    return None if text == ANY else parse_endpoint(text)


FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(context_settings=SETTINGS, no_args_is_help=True)
@json_option
def host() -> None:
    """Launch keeps on this machine for tenants who do not trust it.

    \b
    Examples:
      enarx host serve --backend emulated=machine
    """


@host.command(context_settings=SETTINGS)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME=ARG",
    help="How keeps are launched; may be repeated.",
)
@click.option(
    "--listen",
    type=Parsed("endpoint", parse_endpoint),
    default=DEFAULT_LISTEN,
    show_default=True,
    metavar="HOST:PORT",
    help="Where tenants connect; port 0 takes a free one.",
)
@click.option(
    "--image",
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="The keep image: a VM image's directory, or a file.  [default: this release's process keep]",
)
@click.option(
    "--accounts", type=FILE, metavar="FILE", help="Who may ask, as TOML.  [default: whoever can connect]"
)
@click.option("--max-keeps", type=click.IntRange(1), default=256, show_default=True, metavar="N")
@click.option("--tls-cert", type=FILE, metavar="FILE", help="Certificate of the agent's own TLS, PEM.")
@click.option("--tls-key", type=FILE, metavar="FILE", help="Its key, PEM.")
@click.option(
    "--allow-listen",
    multiple=True,
    type=Parsed("endpoint", parse_allowed),
    metavar="ADDR:PORT|any",
    help="Where workloads may listen on this machine.  [default: nowhere]",
)
@click.option(
    "--allow-connect",
    multiple=True,
    type=Parsed("endpoint", parse_allowed),
    metavar="HOST:PORT|any",
    help="Where workloads may connect to.  [default: nowhere]",
)
@json_option
@click.pass_obj
def serve(
    output: Output,
    backends: tuple[str, ...],
    listen: tuple[str, int],
    image: Path | None,
    accounts: Path | None,
    max_keeps: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    allow_listen: tuple[tuple[str, int] | None, ...],
    allow_connect: tuple[tuple[str, int] | None, ...],
) -> ExitCode:
    """Serve tenants until SIGTERM or Ctrl-C; then every keep ends.

    The interface is HTTP, described at /openapi.json; figures for Prometheus are at /metrics. Connections to
    keeps go over the same port and are encrypted by keep and tenant: the agent can read none of them. TLS of its
    own protects the accounts' tokens on their way, and nothing else.

    \b
    Examples:
      enarx host serve --backend emulated=machine
      enarx host serve --backend emulated=machine --listen 0.0.0.0:7478 --accounts accounts.toml \\
        --tls-cert cert.pem --tls-key key.pem
      enarx host serve --backend snp --image enarx-vm
    """
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key belong together")
    from enarx.api.vm_image import VmImage
    from enarx.host.agent import Accounts, Agent, Settings, parse_accounts
    from enarx.host.backend import open_backend
    from enarx.host.sallyport import Permissions

    known = parse_accounts(_text(accounts)) if accounts else Accounts()
    settings = Settings(
        image=image or _release_image(),
        host=listen[0],
        port=listen[1],
        max_keeps=max_keeps,
        accounts=known,
        permissions=Permissions(listen=_allowed(allow_listen), connect=_allowed(allow_connect)),
        certificate=tls_cert,
        key=tls_key,
    )
    agent = Agent(
        settings, [open_backend(text) for text in backends], lambda keep, pid: _told(output, keep, pid)
    )
    if known.open and not listen[0].startswith(("127.", "::1", "localhost")):
        output.warning("whoever reaches this port may launch keeps; --accounts says who may")

    for backend in agent.backends:
        _warn_of(output, backend)

    def listening(url: str) -> None:
        digest = agent.image.digest.hex()
        document = {"url": url, "image": digest, "backends": [it.name for it in agent.backends]}
        if isinstance(agent.image, VmImage) and any(it.emulated for it in agent.backends):
            from enarx.host.vm import (
                find_accelerator,
            )  # QEMU's client costs hosts of process keeps their start

            document["accelerator"] = find_accelerator().detail
        names = ", ".join(it.name for it in agent.backends)
        output.result(
            "enarx.host-serve/1", document, f"{url} launches keeps on {names}; image sha256:{digest}"
        )
        if "accelerator" in document:
            output.note(f"keeps are virtual machines; {document['accelerator']}")

    asyncio.run(agent.serve(listening))
    return ExitCode.DONE


def _warn_of(output: Output, backend: Backend) -> None:
    """Say what a backend lacks: tenants would be told that it is not ready, and its owner wants to know first."""
    for fact in dict.fromkeys(backend.support().facts):
        if not fact.passed:
            advice = f"; {fact.advice}" if fact.advice else ""
            output.warning(f"{backend.name} is not ready: {fact.name}: {fact.detail or 'no'}{advice}")


def _told(output: Output, keep: KeepInfo, pid: int | None) -> None:
    """Tell the machine's owner what becomes of a keep. What it runs nobody here knows."""
    process = "" if pid is None else f", process {pid}"
    what = f"{keep.state.value}: {keep.ended}" if keep.ended else f"{keep.state.value}{process}"
    output.note(f"keep {keep.id[:8]} on {keep.backend}: {printable(what)}")


def _allowed(endpoints: Iterable[tuple[str, int] | None]) -> Endpoints:
    from enarx.host.sallyport import Scope

    found = [endpoint for endpoint in endpoints if endpoint is not None]
    return Scope.ANY if None in endpoints else frozenset(found)


def _release_image() -> Path:
    """Build the image of this release, or take the one that was built before."""
    from enarx.cli._image import cached_image

    return cached_image()


def _text(path: Path) -> str:
    from enarx.cli._files import read

    try:
        return read(path).decode()
    except UnicodeDecodeError:
        raise Malformed(f"{path}: not UTF-8") from None
