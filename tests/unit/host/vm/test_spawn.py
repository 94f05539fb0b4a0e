"""Programs that are started beside a keep, and what they say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enarx.host.vm._spawn import MAX_COMPLAINT_BYTES, Process
from enarx.tcb.errors import Unavailable

TIMEOUT_S = 30.0


def run(script: str) -> tuple[int, str, int]:
    """Give exit status, last complaint, and how much is kept of all of them."""
    process = Process(["sh", "-c", script], [])
    try:
        status = process.wait(TIMEOUT_S)
        return status, process.complaint(), os.fstat(process._complaint.fileno()).st_size
    finally:
        process.close()


def test_the_last_complaint_is_told_without_the_programs_name() -> None:
    assert run("echo first >&2; echo 'qemu: no such device' >&2; exit 3")[:2] == (3, "no such device")
    assert run("exit 0")[:2] == (0, "")


def test_a_program_that_complains_for_ever_fills_nothing() -> None:
    status, told, kept = run("yes 'qemu: unexpected port' >&2")
    assert status == 1  # by itself: what it writes is refused
    assert kept == MAX_COMPLAINT_BYTES
    assert told.startswith("unexpected port"[: len(told)])


def test_an_interpreter_that_cannot_be_started_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere")
    with pytest.raises(Unavailable, match="sh does not start"):
        Process(["sh"], [])


def test_a_program_that_is_not_there_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="qemu-system-x86_64 is not in the PATH") as caught:
        Process(["qemu-system-x86_64"], ())
    assert "apt install" in caught.value.hint
