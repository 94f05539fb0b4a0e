"""The machine has what its TEE needs, and keeps on it prove what they are, run, and end."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.hardware.target import Agent, Target, Timings, shows
from tests.integration.agent_process import BIN
from tests.integration.conftest import ROOT

from enarx.api.keep_image import MANIFEST, manifest_line
from enarx.api.vm_image import CMDLINE, read_vm_image
from enarx.attest import EvidenceRejected
from enarx.tcb.errors import EnarxError
from enarx.tcb.workload import Ending
from enarx.tenant import Credentials, Keep, SecretSource, What, deploy, start
from enarx.tenant.agent_client import AgentClient
from enarx.tenant.kept_launch import parse_kept

pytestmark = pytest.mark.timeout(600)
BALLOTS = ROOT / "examples/sealed-vote/ballots.txt"
CHOICES = ("5", "tea", "coffee", "cocoa")


def test_the_machine_has_what_its_tee_needs(target: Target) -> None:
    """``enarx platform info`` tells the same, with more detail."""
    backend = target.open()
    try:
        support = backend.support()
        missing = [f"{fact.name}: {fact.detail}; {fact.advice}" for fact in support.facts if not fact.passed]
        assert support.ready, "\n".join(["", *missing])
        assert backend.tee == target.kind.tee.value
        assert backend.emulated == (target.emulated is not None) or not target.is_vendors
    finally:
        backend.close()


def test_a_workload_runs_with_its_secret_after_the_keep_has_proven_itself(
    target: Target, agent: Agent, timings: Timings, example: Callable[[str], Path]
) -> None:
    module = example("sealed-vote")
    observer = timings.observer("a workload with a secret")
    result = deploy(
        module,
        agent.address,
        secrets=[SecretSource.from_file("ballots", BALLOTS)],
        arguments=CHOICES,
        observer=observer,
        **agent.options(),
    )
    assert (result.outcome.ending, result.outcome.code) == (Ending.EXITED, 0)
    assert result.stdout == here(module)
    empty, locked = result.verdicts
    for verdict in (empty, locked):
        assert shows(verdict.claims, target.expected)
        assert verdict.claims.root.is_vendor == target.is_vendors
        assert not verdict.claims.debug
        assert verdict.claims.bound
    assert empty.claims.report_data != locked.claims.report_data
    order = [step.what for step in observer.steps]
    assert order.index(What.ACCEPTED) < order.index(What.DELIVERED)
    with AgentClient(agent.address) as client:
        assert client.info().keeps == 0


def here(module: Path) -> bytes:
    """What a keep that is a process of this machine writes."""
    command: list[str | Path] = [
        BIN / "enarx",
        "run",
        module,
        "--config",
        ROOT / "examples/sealed-vote/Enarx.toml",
    ]
    done = subprocess.run(command, input=BALLOTS.read_bytes(), capture_output=True, check=True, timeout=120)
    return done.stdout


def test_each_challenge_gets_evidence_of_its_own(
    target: Target, agent: Agent, timings: Timings, guest: Callable[[str], Path], tmp_path: Path
) -> None:
    """Nobody answers a challenge with what was said to another; the keep stays the same all the time."""
    module, credentials = guest("sleep"), Credentials(tmp_path)
    observer = timings.observer("a keep that is left running")
    credential = start(module, agent.address, credentials=credentials, observer=observer, **agent.options())
    keep = Keep(
        credential=credential,
        host=agent.address,
        trust=agent.trust,
        collateral=target.collateral,
        observer=observer,
    )
    first, second = keep.evidence(), keep.evidence()
    assert first.claims.report_data != second.claims.report_data
    assert first.evidence != second.evidence
    assert first.claims.measurement == second.claims.measurement
    assert shows(first.claims, target.expected)
    launch = parse_kept(credential.launch).session if credential.launch else None
    with pytest.raises(EvidenceRejected):
        agent.trust.judge(first.evidence, first.collateral, second.binding, now=second.now, launch=launch)
    keep.discard()


def test_another_command_line_is_refused_before_any_secret_is_read(
    target: Target, timings: Timings, guest: Callable[[str], Path], tmp_path: Path
) -> None:
    place = tmp_path / "changed"
    shutil.copytree(target.image.kernel.parent, place)
    (place / CMDLINE).write_text(f"{target.image.cmdline} enarx.other=1")
    names = sorted(path.name for path in place.iterdir() if path.name != MANIFEST)
    (place / MANIFEST).write_text("".join(manifest_line(it, (place / it).read_bytes()) for it in names))
    assert read_vm_image(place).cmdline.endswith("enarx.other=1")
    module, observer = guest("echo"), timings.observer("a changed image")
    missing = SecretSource.from_file("key", tmp_path / "is-not-there")
    with Agent(target, place) as agent, pytest.raises(EnarxError) as raised:
        deploy(module, agent.address, secrets=[missing], observer=observer, **agent.options())
    assert "is-not-there" not in str(raised.value)
    assert What.DELIVERED not in [step.what for step in observer.steps]
    if target.kind.refused_by:
        assert isinstance(raised.value, EvidenceRejected)
        assert raised.value.check.name.startswith(target.kind.refused_by)
        assert "enarx.other=1" in raised.value.hint
