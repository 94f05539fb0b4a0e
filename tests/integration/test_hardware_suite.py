"""``tests/hardware`` where there is no TEE: it passes on an emulated platform, and finds what is wrong with one."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.agent_process import Process
from tests.integration.vm_keep import keep_image

from enarx.host.backends._machine import MachineBackend
from enarx.host.backends.snp import SnpBackend
from enarx.host.backends.tdx import TdxBackend

ROOT = Path(__file__).resolve().parents[2]
PASSED, FAILED, NOTHING = 0, 1, 5
TIMEOUT_S = 280.0


def suite(*arguments: str) -> tuple[int, str]:
    """Run it as the owner of a machine does."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/hardware", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    return done.returncode, done.stdout + done.stderr


@contextlib.contextmanager
def platform(state: Path, *options: str) -> Iterator[str]:
    """An emulated machine; gives what the suite is told of it."""
    process = Process(
        "enarx-emulator", "start", "snp", "--state", str(state), "--beside-real-hardware", "--json", *options
    )
    try:
        yield f"--emulated={state}"
    finally:
        process.end()


def test_nothing_of_it_runs_unless_a_tee_is_named() -> None:
    code, said = suite("--collect-only")
    assert (code, "no tests collected" in said) == (NOTHING, True), said


@pytest.mark.parametrize("backend", [SnpBackend, TdxBackend], ids=lambda it: it.protection.value)
def test_a_machine_without_the_tee_fails_and_what_it_lacks_is_told(backend: type[MachineBackend]) -> None:
    image = keep_image().kernel.parent
    lacking = [fact for fact in backend("").support().facts if not fact.passed]
    assert lacking, "this machine has the TEE: run tests/hardware"
    code, said = suite(f"--tee={backend.protection.value}", f"--vm-image={image}", "-k", "has_what_its_tee")
    assert code == FAILED, said
    assert all(fact.name in said for fact in lacking)


def test_the_agent_of_a_machine_without_the_tee_warns_of_what_it_lacks() -> None:
    image = keep_image().kernel.parent
    options = ("--image", str(image), "--listen", "127.0.0.1:0", "--json")
    agent = Process("enarx", "host", "serve", "--backend", "snp", *options)
    try:
        for fact in SnpBackend("").support().facts:
            if not fact.passed:
                agent.heard(
                    f"warning: snp is not ready: {re.escape(fact.name)}: .*; {re.escape(fact.advice)}"
                )
        assert "accelerator" not in agent.first  # a TEE needs KVM, whatever was measured
    finally:
        agent.end()


@pytest.mark.slow
@pytest.mark.xdist_group("vm")
@pytest.mark.timeout(300)
def test_an_emulated_machine_passes_and_its_times_are_told(tmp_path: Path) -> None:
    with platform(tmp_path / "state") as emulated:
        code, said = suite("--tee=snp", emulated, "-k", "has_what_its_tee or runs_with_its_secret")
    assert code == PASSED, said
    assert "2 passed" in said
    assert "a workload with a secret: " in said


@pytest.mark.slow
@pytest.mark.xdist_group("vm")
@pytest.mark.timeout(300)
def test_a_machine_that_repeats_itself_is_found(tmp_path: Path) -> None:
    with platform(tmp_path / "state", "--fault", "snp-replayed-report") as emulated:
        code, said = suite("--tee=snp", emulated, "-k", "challenge")
    assert code == FAILED, said
    assert "binding.report_data" in said
