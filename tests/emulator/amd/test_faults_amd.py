"""Each fault of an AMD platform is refused, by exactly the check that its entry names."""

from __future__ import annotations

import pytest
from tests.forge import amd
from tests.forge.amd import IMAGE, Owner

from enarx.attest import EvidenceRejected, Policy, PolicyDenied
from enarx.attest.errors import CollateralMissing
from enarx.attest.snp import VERIFIER
from enarx.tcb.errors import EnarxError, Malformed
from enarx_emulator.amd.faults import FAULTS
from enarx_emulator.faults import Fault

SNP = [fault for fault in FAULTS if fault.kinds == ("snp",)]
SEV = [fault for fault in FAULTS if "sev" in fault.kinds]
POLICY = """
version = 1
[snp]
measurement = ["{}"]
vendor_root = "any"
min_reported_tcb = {{ snp = 24 }}
"""


def caught_by(refused: EnarxError) -> str:
    """The check that failed, or the kind of malformed input."""
    match refused:
        case PolicyDenied():
            assert len(refused.failures) == 1
            return refused.failures[0].name
        case EvidenceRejected() | CollateralMissing():
            return refused.check.name
    return type(refused).__name__


def present(*faults: str) -> None:
    """Launch a guest on a machine with these faults, and judge its report by a strict policy."""
    expected = amd.snp().command("launch", {"image": IMAGE})["measurement"]
    assert isinstance(expected, bytes)
    machine = amd.snp(None, *faults)
    handle = amd.launched(machine)
    amd.report(machine, handle, bytes(64))
    evidence, _ = amd.report(machine, handle)
    policy = Policy.parse(POLICY.format(expected.hex()), [VERIFIER])
    amd.judge(evidence, amd.collateral(machine), amd.anchors(machine), policy=policy)


def test_a_machine_without_faults_is_accepted() -> None:
    present()


@pytest.mark.parametrize("fault", SNP, ids=lambda fault: fault.name)
def test_a_fault_of_snp_is_caught_by_its_check(fault: Fault) -> None:
    """A12 to A17, A21: one by one."""
    with pytest.raises((EvidenceRejected, CollateralMissing, Malformed)) as refused:
        present(fault.name)
    assert caught_by(refused.value) == fault.caught_by


@pytest.mark.parametrize("kind", ["sev", "sev-es"])
@pytest.mark.parametrize("fault", SEV, ids=lambda fault: fault.name)
def test_a_fault_of_sev_is_caught_by_its_check(kind: str, fault: Fault) -> None:
    machine = amd.sev(kind, fault.name)
    with pytest.raises((EvidenceRejected, CollateralMissing)) as refused:
        Owner(machine).launch()
    assert caught_by(refused.value) == fault.caught_by


def test_every_fault_does_something() -> None:
    """Eighteen at least, and none twice."""
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names) > 50
