"""Each fault of an Intel platform is refused, by the check that it names."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from tests.forge import intel

from enarx.attest import EvidenceRejected, PolicyDenied
from enarx.tcb.errors import Malformed
from enarx_emulator.intel.faults import FAULTS

EVENTS: list[object] = [[1, 0xD, b"a kernel"], [2, 0xD, b"a command line"], [2, 0x4, bytes(4)]]
_CASES = [(fault.name, kind, fault.caught_by) for fault in FAULTS for kind in fault.kinds]


def _refused_by(name: str, kind: str) -> str:
    """The one check that fails, or the error."""
    store = intel.vendor_store()
    faulty = frozenset({name})
    machine = intel.machine(kind, store=store, faults=faulty)
    options = {"quote_version": 5, "events": EVENTS} if kind == "tdx" else {}
    answer = machine.command("launch", {"image": intel.IMAGE, **options})
    guest = answer["guest"]
    assert isinstance(guest, int)
    intel.quote(machine, guest, bytes(64))
    raw = intel.quote(machine, guest)
    vendor = intel.vendor(store, faults=faulty)
    collateral = vendor.collateral(kind.upper(), intel.model_of(machine), intel.NOW)
    if log := answer.get("event_log"):
        assert isinstance(log, bytes)
        collateral = intel.with_log(collateral, log)
    _, measurement = intel.launch(intel.machine(kind, store=store))
    try:
        intel.verify(raw, collateral, policy=intel.strict_policy(kind, measurement), trusted=intel.anchors())
    except PolicyDenied as denied:
        (failure,) = denied.failures
        return failure.name
    except EvidenceRejected as refused:
        return refused.check.name
    except Malformed as error:
        return type(error).__name__
    return "nothing"


@pytest.mark.parametrize(("name", "kind", "caught_by"), _CASES)
def test_a_fault_is_caught_by_the_check_that_it_names(name: str, kind: str, caught_by: str) -> None:
    assert fnmatchcase(_refused_by(name, kind), caught_by)


@pytest.mark.parametrize("kind", ["sgx", "tdx"])
def test_without_a_fault_all_is_accepted(kind: str) -> None:
    """Or the test above would prove nothing."""
    assert _refused_by("", kind) == "nothing"


def test_names_are_unique_and_there_are_enough() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names) >= 40
