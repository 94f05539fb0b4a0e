"""One demo from its start to its end: the platform, the two processes, what they tell, and what came of it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, Final

from enarx.api.demo import Side
from enarx.cli._exit import ExitCode
from enarx.cli._output import Output, printable
from enarx.tcb.errors import Unavailable

_HEADS: Final = {
    ("tenant", False): "TENANT         ",
    ("tenant", True): "TENANT > HOST  ",
    ("host", True): "TENANT < HOST  ",
    ("host", False): "         HOST  ",
}


@dataclass(slots=True, kw_only=True)
class Demo:
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
    killed: str = ""
    """The side that was killed first, and how."""

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


def run_demo(output: Output, demo: Demo, home: Path | None, *, emulated: bool) -> ExitCode:
    """Run both sides to their end and say what came of it."""
    with ExitStack() as stack:
        for ending in (signal.SIGTERM, signal.SIGHUP):
            stack.callback(signal.signal, ending, signal.signal(ending, _terminated))
        roots: dict[str, str] = {}
        if emulated:
            from enarx.host.demo.emulated import emulated_platform
            from enarx.host.demo.processor import open_emulated

            home = stack.enter_context(emulated_platform(demo.tee)) if home is None else home
            output.note(f"EMULATED {demo.tee}: the dialogue is real, and the machine protects nothing")
            backend = open_emulated(home)
            if backend.tee != demo.tee:
                raise Unavailable(f"the platform at {home} is {backend.tee}, expected {demo.tee}")
            roots = {"EMULATED": b"".join(backend.endorsements().roots).decode()}
            backend.close()
        told = {"tee": demo.tee, "a": demo.a, "b": demo.b}
        host = {"tee": demo.tee, "platform": str(home or ""), "attack": demo.attack, **demo.host}
        endings = _converse(output, demo, {"tenant": {**told, "roots": roots}, "host": host})
    return _conclude(output, demo, endings, emulated=emulated)


def _converse(output: Output, demo: Demo, orders: dict[str, dict[str, object]]) -> dict[str, int]:
    """Start both sides and follow what they tell until both have ended; give their exit codes."""
    read, write = os.pipe()
    ends = dict(zip(orders, socket.socketpair(), strict=True))
    with open(read, "rb", buffering=0) as events, ExitStack() as stack:
        sides = {
            name: stack.enter_context(_party(Side(name), order, ends[name], write))
            for name, order in orders.items()
        }
        os.close(write)
        for line in _lines(demo, events, sides):
            demo.take(output, json.loads(line))
        return {name: side.wait() for name, side in sides.items()}


def _lines(demo: Demo, events: FileIO, sides: dict[str, subprocess.Popen[bytes]]) -> Iterator[bytes]:
    """Give what the sides tell, each on lines of its own; a side that was killed ends the other one."""
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        selector.register(events, selectors.EVENT_READ)
        for name, side in sides.items():
            descriptor = os.pidfd_open(side.pid)
            stack.callback(os.close, descriptor)
            selector.register(descriptor, selectors.EVENT_READ, name)
        rest = b""
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    data = events.read(1 << 16) or b""
                    if not data:
                        return
                    *lines, rest = (rest + data).split(b"\n")
                    yield from lines
                    continue
                selector.unregister(key.fd)
                if (code := sides[key.data].wait()) < 0:
                    demo.killed = demo.killed or f"the {key.data} was killed by signal {-code}"
                    for side in sides.values():
                        side.kill()


@contextmanager
def _party(
    side: Side, order: dict[str, object], sock: socket.socket, events: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Start one side, whose end of the socket is then its alone. It ends with the context."""
    numbers = {"side": side.value, "socket": sock.fileno(), "events": events}
    with sock:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "enarx.cli._demo_party", side.value],
            stdin=subprocess.PIPE, pass_fds=(sock.fileno(), events), process_group=0,
        )  # fmt: skip
    try:
        assert process.stdin is not None  # noqa: S101 -- it is a pipe
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps({**order, **numbers}).encode())
        yield process
    finally:
        process.kill()
        process.wait()


def _conclude(output: Output, demo: Demo, endings: dict[str, int], *, emulated: bool) -> ExitCode:
    ends = [f"the {name} was killed by signal {-code}" for name, code in endings.items() if code < 0]
    run: dict[str, Any] = {
        "tee": demo.tee,
        "emulated": emulated,
        "attack": demo.attack,
        "dialogue": demo.dialogue,
    }
    if killed := demo.killed or next(iter(ends), ""):
        return output.error(ExitCode.UNAVAILABLE, killed, **run)
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
