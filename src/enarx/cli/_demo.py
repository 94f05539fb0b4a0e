"""``enarx demo``: a tenant and a host in two processes, an attested launch between them, and a sum."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from enarx.api.demo import Side
from enarx.api.demo_guest import LARGEST
from enarx.cli._exit import ExitCode
from enarx.cli._main import SETTINGS, json_option
from enarx.cli._output import Output, printable
from enarx.host.demo.attacks import SevAttack, SgxAttack

SGX_LARGEST: Final = (1 << 32) - 1
_END_S: Final = 20.0
_HEADS: Final = {
    ("tenant", False): "TENANT         ",
    ("tenant", True): "TENANT > HOST  ",
    ("host", True): "TENANT < HOST  ",
    ("host", False): "         HOST  ",
}
_platform_option = click.option(
    "--platform",
    "home",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="The state directory of an emulated platform that runs.  [default: one is started for the demo]",
)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(context_settings=SETTINGS, no_args_is_help=True)
@json_option
def demo() -> None:
    """Add two numbers in a TEE for a tenant who does not trust the host.

    Tenant and host are two processes, and say what they do. Their machine is EMULATED unless said otherwise.

    \b
    Examples:
      enarx demo sev 2 2
      enarx demo sgx 2 2 --attack replay
    """


@demo.command(context_settings=SETTINGS)
@click.argument("a", type=click.IntRange(0, LARGEST), metavar="A")
@click.argument("b", type=click.IntRange(0, LARGEST), metavar="B")
@click.option(
    "--attack", type=click.Choice([it.value for it in SevAttack]), help="Let the host do this; it is refused."
)
@_platform_option
@click.option("--kvm", default="/dev/kvm", show_default=True, metavar="PATH", help="Where KVM is.")
@click.option(
    "--device", metavar="PATH", help="Use a real secure processor at this device, such as /dev/sev."
)
@click.option(
    "--certificates",
    type=_FILE,
    metavar="FILE",
    help="What AMD published for the real one: CEK, ASK and ARK in a row.",
)
@json_option
@click.pass_obj
def sev(
    output: Output,
    a: int,
    b: int,
    attack: str | None,
    home: Path | None,
    kvm: str,
    device: str | None,
    certificates: Path | None,
) -> ExitCode:
    """Run assembly in a virtual machine that its tenant has measured, and to which it is sent encrypted.

    The code and the numbers reach the host only as the secret of one SEV launch. The guest runs on KVM and prints
    the sum through its serial line; where there is no KVM, its few instructions are interpreted.

    \b
    Examples:
      enarx demo sev 2 2
      enarx demo sev 2 2 --attack measurement
      enarx demo sev 2 2 --device /dev/sev --certificates amd.cert
    """
    if a + b > LARGEST:
        raise click.UsageError(f"A + B is {a + b}, and the guest adds words: at most {LARGEST}")
    if (device is None) != (certificates is None) or (device is not None and home is not None):
        raise click.UsageError("--device and --certificates belong together, and exclude --platform")
    host: dict[str, object] = {"kvm": kvm, "device": device, "certificates": str(certificates or "")}
    return _run(output, _Demo(tee="sev", a=a, b=b, attack=attack, host=host), home, emulated=device is None)


@demo.command(context_settings=SETTINGS)
@click.argument("a", type=click.IntRange(0, SGX_LARGEST), metavar="A")
@click.argument("b", type=click.IntRange(0, SGX_LARGEST), metavar="B")
@click.option(
    "--attack", type=click.Choice([it.value for it in SgxAttack]), help="Let the host do this; it is refused."
)
@_platform_option
@json_option
@click.pass_obj
def sgx(output: Output, a: int, b: int, attack: str | None, home: Path | None) -> ExitCode:
    """Send numbers to an enclave whose quote names its code and its key, and get the sum back encrypted.

    \b
    Examples:
      enarx demo sgx 2 2
      enarx demo sgx 2 2 --attack key-swap
    """
    return _run(output, _Demo(tee="sgx", a=a, b=b, attack=attack), home, emulated=True)


@dataclass(slots=True, kw_only=True)
class _Demo:
    """One run, and what became of it."""

    tee: str
    a: int
    b: int
    attack: str | None
    host: Mapping[str, object] = field(default_factory=dict)
    dialogue: list[dict[str, object]] = field(default_factory=list)
    total: int | None = None
    interpreted: bool = False
    failure: dict[str, Any] | None = None

    def take(self, output: Output, event: dict[str, Any]) -> None:
        """Keep what one side tells, and show its lines."""
        if "text" in event:
            self.dialogue.append(event)
            if not output.as_json:
                head = _HEADS[event["side"], event["to_peer"]]
                print(f"{head}: {printable(event['text'])}", file=sys.stderr, flush=True)
        elif "sum" in event:
            self.total, self.interpreted = event["sum"], event["interpreted"]
        elif self.failure is None:
            self.failure = event["failure"]


def _run(output: Output, demo: _Demo, home: Path | None, *, emulated: bool) -> ExitCode:
    """Run both sides to their end and say what came of it."""
    with ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _terminated))
        roots: dict[str, str] = {}
        if emulated:
            from enarx.host.demo.emulated import emulated_platform
            from enarx.host.demo.processor import open_emulated

            home = stack.enter_context(emulated_platform(demo.tee)) if home is None else home
            output.note(f"EMULATED {demo.tee}: the dialogue is real, and the machine protects nothing")
            backend = open_emulated(home)
            roots = {"EMULATED": b"".join(backend.endorsements().roots).decode()}
            backend.close()
        told = {"tee": demo.tee, "a": demo.a, "b": demo.b}
        host = {"tee": demo.tee, "platform": str(home or ""), "attack": demo.attack, **demo.host}
        endings = _converse(output, demo, {"tenant": {**told, "roots": roots}, "host": host})
    return _conclude(output, demo, endings, emulated=emulated)


def _converse(output: Output, demo: _Demo, orders: dict[str, dict[str, object]]) -> dict[str, int]:
    """Start both sides and follow what they tell until both have ended; give their exit codes."""
    read, write = os.pipe()
    ends = dict(zip(orders, socket.socketpair(), strict=True))
    with open(read, encoding="utf-8") as events, ExitStack() as stack:
        sides = {
            name: stack.enter_context(_party(Side(name), order, ends[name], write))
            for name, order in orders.items()
        }
        os.close(write)
        for line in events:
            demo.take(output, json.loads(line))
        return {name: side.wait() for name, side in sides.items()}


@contextmanager
def _party(
    side: Side, order: dict[str, object], sock: socket.socket, events: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Start one side, whose end of the socket is then its alone. It ends with the context."""
    numbers = {"side": side.value, "socket": sock.fileno(), "events": events}
    with sock:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "enarx.cli._demo_party", side.value],
            stdin=subprocess.PIPE, pass_fds=(sock.fileno(), events),
        )  # fmt: skip
    try:
        assert process.stdin is not None  # noqa: S101 -- it is a pipe
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps({**order, **numbers}).encode())
        yield process
    finally:
        process.kill()
        process.wait()


def _conclude(output: Output, demo: _Demo, endings: dict[str, int], *, emulated: bool) -> ExitCode:
    killed = [f"the {name} was killed by signal {-code}" for name, code in endings.items() if code < 0]
    run: dict[str, Any] = {
        "tee": demo.tee,
        "emulated": emulated,
        "attack": demo.attack,
        "dialogue": demo.dialogue,
    }
    if killed:
        return output.error(ExitCode.UNAVAILABLE, killed[0], **run)
    if demo.failure is not None:
        failure = {**demo.failure}
        code, message, hint = failure.pop("exit_code"), failure.pop("message"), failure.pop("hint")
        return output.error(
            next(it for it in ExitCode if it == code), printable(message), printable(hint), **failure, **run
        )
    if demo.total is None:
        return output.error(ExitCode.INTERNAL, "both sides ended without a result", **run)
    document = {**run, "operands": [demo.a, demo.b], "sum": demo.total, "interpreted": demo.interpreted}
    output.result("enarx.demo/1", document, str(demo.total))
    return ExitCode.DONE


def _terminated(number: int, _: object) -> None:
    """End as Ctrl-C does, so that nothing is left behind."""
    sys.exit(128 + number)
