"""The audit record: every change of it is found. Verdicts in it come from ``tests/integration/test_deploy.py``."""

from __future__ import annotations

import json
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from enarx.tcb.errors import EnarxError, Malformed, Unavailable
from enarx.tcb.session import AuditLog
from enarx.tenant.audit import BLOBS, LOG, START, AuditFile
from enarx.tenant.audit_replay import Tampered, replay
from enarx.tenant.steps import Step, What, Who


def step(text: str = "text") -> Step:
    return Step(who=Who.TENANT, what=What.STARTED, text=text, facts={"fact": "1"})


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A record of three lines and a blob."""
    log = AuditLog()
    log.append("life.boot", {"state": "empty"})
    log.append("life.attest", {"state": "attested", "report_data": b"r"})
    with AuditFile(tmp_path / "audit") as audit:
        audit.step(step("one"))
        audit.keep_log(log.records)
        audit.step(step("two"))
    return tmp_path / "audit"


def test_what_was_written_is_read(written: Path) -> None:
    found = replay(written)
    assert [line.event for line in found.lines] == ["step.started", "keep-log", "step.started"]
    assert found.lines[0].facts == {"who": "tenant", "text": "one", "fact": "1"}
    assert found.lines[0].previous == START
    assert found.head == sha256((written / LOG).read_bytes().splitlines()[-1]).hexdigest()


def test_it_is_for_its_owner_alone(written: Path) -> None:
    assert (written / LOG).stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in (written / BLOBS).iterdir())


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_changed_line_is_found(written: Path, at: int) -> None:
    """The last line has nobody after it: its head must have been kept."""
    head = replay(written).head
    lines = (written / LOG).read_bytes().splitlines(keepends=True)
    changed = json.loads(lines[at]) | {"time": "1999-01-01T00:00:00+00:00"}
    lines[at] = json.dumps(changed).encode() + b"\n"
    (written / LOG).write_bytes(b"".join(lines))
    with pytest.raises(Tampered):
        replay(written, head=head)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_removed_line_is_found(written: Path, at: int) -> None:
    head = replay(written).head
    lines = (written / LOG).read_bytes().splitlines(keepends=True)
    del lines[at]
    (written / LOG).write_bytes(b"".join(lines))
    with pytest.raises(Tampered):
        replay(written, head=head)


def test_lines_in_another_order_are_found(written: Path) -> None:
    lines = (written / LOG).read_bytes().splitlines(keepends=True)
    (written / LOG).write_bytes(lines[0] + lines[2] + lines[1])
    with pytest.raises(Tampered, match="line 2 does not follow"):
        replay(written)


@pytest.mark.parametrize("tail", [b"{", b"\n", b"{}\n", b"\xff\n", b"x" * (1 << 17)])
def test_what_is_no_line_is_found(written: Path, tail: bytes) -> None:
    with (written / LOG).open("ab") as file:
        file.write(tail)
    with pytest.raises(Tampered):
        replay(written)


def test_a_changed_blob_is_found(written: Path) -> None:
    (blob,) = (written / BLOBS).iterdir()
    blob.write_bytes(blob.read_bytes() + b"\0")
    with pytest.raises(Tampered, match="not what its name says"):
        replay(written)
    blob.unlink()
    with pytest.raises(Tampered, match="missing"):
        replay(written)


def test_a_chain_of_the_keep_that_does_not_hold_is_found(tmp_path: Path) -> None:
    log = AuditLog()
    log.append("a", 1)
    log.append("b", 2)
    with AuditFile(tmp_path) as audit:
        audit.keep_log(log.records[1:])
    with pytest.raises(Malformed, match="does not follow"):
        replay(tmp_path)


def test_it_goes_on_after_others(written: Path) -> None:
    with AuditFile(written) as first, AuditFile(written) as second:
        first.step(step("a"))
        second.step(step("b"))
        first.step(step("c"))
    found = replay(written, head=first.head)
    assert [line.facts["text"] for line in found.lines[3:]] == ["a", "b", "c"]
    assert len({line.deployment for line in found.lines}) == 3


def test_several_write_at_once(tmp_path: Path) -> None:
    def write() -> None:
        with AuditFile(tmp_path) as audit:
            for _ in range(25):
                audit.step(step())

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(replay(tmp_path).lines) == 100


def test_a_log_that_is_torn_is_not_continued(written: Path) -> None:
    with (written / LOG).open("ab") as file:
        file.write(b"{")
    with AuditFile(written) as audit, pytest.raises(EnarxError, match="middle of a line"):
        audit.step(step())


def test_no_log(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        replay(tmp_path / "none")
