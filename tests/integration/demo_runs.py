"""What the tests of the demos share: running platforms, the command, and a host process to be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
ENARX: Final = (sys.executable, "-m", "enarx.cli", "demo")
TIMEOUT_S: Final = 100.0


@contextmanager
def platform(kind: str, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An emulated platform that runs at ``home``."""
    program = str(Path(sys.executable).with_name("enarx-emulator"))
    command = [program, "start", kind, "--state", str(home), "--beside-real-hardware"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert b"listens" in process.stdout.readline()
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``enarx demo`` to its end."""
    return subprocess.run(
        [*ENARX, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, cwd=ROOT,
        env={**os.environ, **environment},
    )  # fmt: skip


def error_of(*arguments: str) -> dict[str, Any]:
    """Run it with ``--json``, and give the error that it must end in."""
    done = demo(*arguments, "--json")
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["schema"] == "enarx.error/1", document
    error: dict[str, Any] = document["error"]
    assert done.returncode == error["exit_code"]
    return error


def side_of(process: subprocess.Popen[str], side: str) -> int:
    """The process id of one side of a demo that runs, as soon as it is there."""
    deadline = time.monotonic() + TIMEOUT_S
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while time.monotonic() < deadline:
        for pid in children.read_text().split():
            if f"_demo_party\0{side}" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
        time.sleep(0.01)
    raise AssertionError(f"no {side} after {TIMEOUT_S} s")


def kill(process: subprocess.Popen[str], side: str) -> tuple[int, str]:
    """Kill one side of a demo that runs; give the demo's exit code and standard error."""
    os.kill(side_of(process, side), signal.SIGKILL)
    _, stderr = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, stderr


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start ``enarx demo``."""
    return subprocess.Popen(
        [*ENARX, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, **environment},
    )  # fmt: skip
