"""Every named way in which an emulated platform can be wrong, and the check that catches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Final

from enarx_emulator.errors import EmulatorError

MODULES: Final = (
    "enarx_emulator.amd.faults",
    "enarx_emulator.intel.faults",
    "enarx_emulator.ibm.faults",
    "enarx_emulator.tsm",
)
"""Each has a tuple ``FAULTS``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way of being wrong, applied where it occurs: in a chain, a report, collateral, an interface."""

    name: str
    """Lower case with hyphens, unique: ``snp-stale-tcb``."""
    kinds: tuple[str, ...]
    """The kinds of machine that can have it."""
    effect: str
    """What is wrong, in one clause."""
    caught_by: str
    """The check in the verifier's ledger (``snp.signature``), the error of an interface (``EBUSY``) or the firmware's
    status (``U_PERMISSION``) that must catch it."""


@cache
def registry() -> Mapping[str, Fault]:
    """Give every fault by its name."""
    found: dict[str, Fault] = {}
    for module in MODULES:
        faults: tuple[Fault, ...] = import_module(module).FAULTS
        for fault in faults:
            if fault.name in found:
                raise EmulatorError(f"two faults have the name {fault.name}")
            found[fault.name] = fault
    return found


def check_faults(names: frozenset[str], kind: str) -> None:
    """Raise ``EmulatorError`` unless every name is a fault that a machine of this kind can have."""
    for name in sorted(names):
        fault = registry().get(name)
        if fault is None:
            raise EmulatorError(
                f"fault is {name!r}, which does not exist", hint="enarx-emulator faults lists them"
            )
        if kind not in fault.kinds:
            raise EmulatorError(f"fault {name} is one of {', '.join(fault.kinds)}, the machine is {kind}")
