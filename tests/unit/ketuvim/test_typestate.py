"""Calls out of order do not type-check."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
from ketuvim.sev import Launch, Launched, Measured, Secret, Start, Started
from ketuvim.snp import SnpLaunch, SnpStarted

def right(launch: Launch, start: Start, secret: Secret) -> Launched:
    started = launch.start(start)
    started.update_data(0, 16)
    measured = started.measure()
    measured.inject(secret, 0)
    return measured.finish()

def wrong(launch: Launch, started: Started, measured: Measured, secret: Secret) -> None:
    launch.measure()  # 13
    launch.finish()  # 14
    started.inject(secret, 0)  # 15
    started.finish()  # 16
    measured.update_data(0, 16)  # 17
    measured.measure()  # 18
    measured.finish().inject(secret, 0)  # 19

def wrong_snp(launch: SnpLaunch, started: SnpStarted) -> None:
    launch.finish()  # 22
    started.start(0)  # 23
"""


@pytest.mark.slow
def test_steps_out_of_order_do_not_type_check(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--config-file",
        "",
        str(program),
    ]
    environment = {"MYPYPATH": str(ROOT / "src"), "PATH": "", "MYPY_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=tmp_path, env=environment)
    wrong = [line.split(":")[1] for line in done.stdout.splitlines() if "has no attribute" in line]
    assert wrong == ["13", "14", "15", "16", "17", "18", "19", "22", "23"], done.stdout + done.stderr
