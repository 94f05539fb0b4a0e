"""Each fault of the interface between guest and platform is caught: by the keep that asks, or by who judges."""

from __future__ import annotations

import pytest
from tests.forge import amd, intel

from enarx.attest import EvidenceRejected
from enarx.tcb.errors import Malformed, Unavailable
from enarx.tcb.keep.platform import find_source
from enarx_emulator.faults import Fault
from enarx_emulator.machine import Machine
from enarx_emulator.tsm import FAULTS

SEEN_BY_THE_KEEP = {
    "ENXIO": "No such device",
    "EIO": "Input/output error",
    "EBUSY": "in 5 attempts",
    "generation": "in 5 attempts",
    "provider": "of a kind that a keep does not know",
}
CASES = [(fault, kind) for fault in FAULTS for kind in fault.kinds]


def machine(kind: str, *faults: str) -> Machine:
    return amd.snp(None, *faults) if kind == "snp" else intel.machine(kind, faults=frozenset(faults))


def judged(kind: str, *faults: str) -> None:
    """A guest asks twice, as a keep does, and the second answer is judged."""
    on = machine(kind, *faults)
    guest, _ = intel.launch(on)
    source = find_source(on.guest(guest).tree())
    source.evidence(bytes(64))
    if kind == "snp":
        honest = amd.snp()
        amd.judge(source.evidence(amd.REPORT_DATA), amd.collateral(honest), amd.anchors(honest))
    else:
        vendor = intel.vendor()
        beside = vendor.collateral("TDX", intel.model_of(on), intel.NOW)
        intel.verify(source.evidence(intel.CHALLENGE), beside)


@pytest.mark.parametrize("kind", ["snp", "tdx"])
def test_without_a_fault_all_is_accepted(kind: str) -> None:
    judged(kind)


@pytest.mark.parametrize(("fault", "kind"), CASES, ids=[f"{fault.name}-{kind}" for fault, kind in CASES])
def test_every_fault_is_caught(fault: Fault, kind: str) -> None:
    """A52: endlessly busy, changing meanwhile, another provider."""
    if message := SEEN_BY_THE_KEEP.get(fault.caught_by):
        with pytest.raises(Unavailable, match=message):
            judged(kind, fault.name)
        return
    with pytest.raises((EvidenceRejected, Malformed)) as refused:
        judged(kind, fault.name)
    error = refused.value
    assert fault.caught_by == (
        error.check.name if isinstance(error, EvidenceRejected) else type(error).__name__
    )
