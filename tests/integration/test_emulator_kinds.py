"""Every kind of machine as a real process: it says who it is, takes any nonsense, and comes back after a kill."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enarx.tcb.errors import Unavailable
from enarx.tcb.wire import Value, decode, encode, frame
from enarx_emulator.client import Platform
from enarx_emulator.errors import Refused
from enarx_emulator.kinds import KINDS
from enarx_emulator.process import SOCKET

PROGRAM = str(Path(sys.executable).with_name("enarx-emulator"))
NONSENSE: tuple[Value, ...] = (
    None,
    True,
    -1,
    0,
    1 << 63,
    "",
    "text",
    b"",
    bytes(8192),
    [],
    {},
    [[[]]],
    {"a": b""},
)
COMMANDS = (
    *(
        "info",
        "launch",
        "measure",
        "secret",
        "finish",
        "stop",
        "run",
        "wait",
        "certificates",
        "quote",
        "update",
    ),
    *(
        "config",
        "commit",
        "vlek_load",
        "platform_status",
        "guest_status",
        "launch_start",
        "activate",
        "dbg_decrypt",
    ),
    *("report", "get_report", "", "save", "__init__", "_info", "tree", "guest"),
)
CERTIFICATE_BYTES = 2084
ARGUMENTS = (
    "guest",
    "image",
    "esm_blob",
    "policy",
    "session",
    "godh",
    "secret",
    "argv",
    "path",
    "data",
    "none",
)


@contextlib.contextmanager
def running(kind: str, state: Path) -> Iterator[subprocess.Popen[str]]:
    """A machine."""
    command = [PROGRAM, "start", kind, "--state", str(state), "--beside-real-hardware", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        document = json.loads(line)
        assert (document["kind"], document["emulated"]) == (kind, True)
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def identity(platform: Platform) -> dict[str, Value]:
    """Who a machine is. What the vendor signs for it anew each time is left out: AMD's signatures hold a salt."""
    found = platform.command("info")
    if isinstance(chain := found.get("platform_chain"), bytes):
        found["platform_chain"] = chain[: 3 * CERTIFICATE_BYTES]  # PDH, PEK and OCA, which the machine keeps
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_machine_comes_back_as_itself(kind: str, tmp_path: Path) -> None:
    with running(kind, tmp_path / "state") as process, Platform(tmp_path / "state") as platform:
        before = identity(platform)
        assert before["kind"] == kind
        process.kill()
        process.wait(timeout=60)
        with pytest.raises(Unavailable):
            platform.command("info")
    with running(kind, tmp_path / "state"), Platform(tmp_path / "state") as platform:
        assert identity(platform) == before


@pytest.mark.parametrize("kind", KINDS)
def test_no_nonsense_ends_a_machine(kind: str, tmp_path: Path) -> None:
    """Each answer is a refusal of the firmware or of its arguments: nothing reaches what is not a command."""
    chance = random.Random(kind)  # noqa: S311 - the same nonsense each time
    with running(kind, tmp_path / "state") as process, Platform(tmp_path / "state") as platform:
        before = platform.command("info")
        for _ in range(400):
            names = chance.sample(ARGUMENTS, chance.randrange(4))
            arguments = {name: chance.choice(NONSENSE) for name in names}
            with contextlib.suppress(Refused):
                platform.command(chance.choice(COMMANDS), **arguments)
        assert platform.command("info")["platform_id" if "platform_id" in before else "kind"]
        process.terminate()
        assert "Traceback" not in process.communicate(timeout=60)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_host_has_no_command_for_what_guests_ask(kind: str, tmp_path: Path) -> None:
    with running(kind, tmp_path / "state"), Platform(tmp_path / "state") as platform:
        for command in (
            "report",
            "get_report",
            "read",
            "write",
            "make",
            "list",
            "port",
            "attestation",
            "outblob",
        ):
            with pytest.raises(Refused):
                platform.command(command, guest=1, path="report/r/outblob", data=b"")
        with socket.socket(socket.AF_UNIX) as host:
            host.settimeout(60)
            host.connect(str(tmp_path / "state" / SOCKET))
            host.sendall(frame(encode(["read", "report/r/outblob", b""])))
            size = int.from_bytes(host.recv(4, socket.MSG_WAITALL), "big")
            answer = decode(host.recv(size, socket.MSG_WAITALL), max_bytes=size)
        assert isinstance(answer, dict)
        assert "error" in answer
