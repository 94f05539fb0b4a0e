"""An emulated platform of one demo's own: a process and a directory that end with the demo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from enarx.tcb.errors import Unavailable

PROGRAM: Final = "enarx-emulator"
_END_S: Final = 20.0


@contextmanager
def emulated_platform(kind: str, *, program: str = PROGRAM) -> Iterator[Path]:
    """Start a platform, and give the directory in which it listens. Raises ``Unavailable``."""
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    found = shutil.which(program, path=places)
    if found is None:
        hint = "install the distribution enarx-emulator, or name a platform that runs (--platform)"
        raise Unavailable(f"no program {program}, which plays the platform", hint=hint)
    with tempfile.TemporaryDirectory(prefix="enarx-demo-") as home:
        machine, log = Path(home) / "machine", Path(home) / "log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [found, "start", kind, "--state", str(machine)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        try:
            assert process.stdout is not None  # noqa: S101 -- it is a pipe
            if not process.stdout.readline():
                said = log.read_text(errors="replace").strip().splitlines()
                hint = f"start it yourself, and name it: {PROGRAM} start {kind} --state DIR; --platform DIR"
                reason = said[0].removeprefix(f"{PROGRAM}: error: ") if said else "it said nothing"
                raise Unavailable(f"the emulated platform did not start: {reason}", hint=hint)
            yield machine
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the platform and what runs on it."""
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
