"""The library's examples, run as their page says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ketuvim import Kvm
from ketuvim.interpreter import NOTICE

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "ketuvim" / "add.py"
LAUNCH = EXAMPLE.with_name("launch.py")
WITHOUT_DEVICE = (
    "import runpy, sys, ketuvim.system as system; system.DEVICE = '/dev/none'; sys.argv[0:1] = []; "
)
WITHOUT_DEVICE += "runpy.run_path(sys.argv[0], run_name='__main__')"


def add(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'emulator' / 'src'}"}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=60, env=environment, cwd=ROOT
    )


@pytest.mark.parametrize(("a", "b", "total"), [("2", "2", "4\n"), ("0", "0", "0\n"), ("4", "4", "8\n")])
def test_it_adds_on_the_device(kvm: Kvm, a: str, b: str, total: str) -> None:
    done = add(str(EXAMPLE), a, b)
    assert (done.returncode, done.stdout, done.stderr) == (0, total, "")


def test_it_says_that_it_interprets() -> None:
    done = add("-c", WITHOUT_DEVICE, str(EXAMPLE), "1", "3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "4\n", f"add: {NOTICE}\n")


@pytest.mark.parametrize(
    "arguments", [(), ("1",), ("1", "2", "3"), ("5", "1"), ("-1", "1"), ("x", "1"), ("²", "1")]
)
def test_wrong_operands_are_refused(arguments: tuple[str, ...]) -> None:
    done = add(str(EXAMPLE), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "number" in done.stderr.lower()


@pytest.mark.parametrize(("a", "b", "total"), [("2", "2", "4\n"), ("4", "4", "8\n")])
def test_code_that_arrives_encrypted_adds(kvm: Kvm, a: str, b: str, total: str) -> None:
    done = add(str(LAUNCH), a, b)
    assert (done.returncode, done.stdout, done.stderr) == (0, total, "")


@pytest.mark.parametrize("arguments", [(), ("1",), ("5", "1"), ("", "1"), ("12", "1"), ("-1", "1")])
def test_wrong_operands_of_a_launch_are_refused(arguments: tuple[str, ...]) -> None:
    done = add(str(LAUNCH), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "number" in done.stderr.lower()
