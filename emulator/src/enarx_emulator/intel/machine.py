"""Machines of Intel's as the platform process runs them: ``sgx`` and ``tdx``."""

from __future__ import annotations

from enarx_emulator.errors import EmulatorError
from enarx_emulator.intel.sgx_machine import SgxMachine
from enarx_emulator.intel.tdx_machine import TdxMachine
from enarx_emulator.machine import Machine, Setup


def make(setup: Setup) -> Machine:
    """Make the machine, or the same again from what it saved. Raises ``EmulatorError``."""
    match setup.kind:
        case "sgx":
            return SgxMachine(setup)
        case "tdx":
            return TdxMachine(setup)
    raise EmulatorError(f"kind is {setup.kind!r}, expected sgx or tdx")
