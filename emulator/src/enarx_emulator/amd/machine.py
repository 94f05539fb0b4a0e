"""AMD machines as the platform process runs them: ``sev``, ``sev-es`` and ``snp``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from enarx.tcb.wire import Value
from enarx_emulator.amd.chip import Chip, product, raised
from enarx_emulator.amd.sev_machine import SevMachine
from enarx_emulator.amd.snp_machine import SnpMachine
from enarx_emulator.amd.vendor import AmdVendor
from enarx_emulator.errors import EmulatorError
from enarx_emulator.machine import Machine, Setup


def make(
    setup: Setup, *, vendor: AmdVendor | None = None, random: Callable[[int], bytes] = os.urandom
) -> Machine:
    """Make the machine, or the same again from what it saved. ``vendor``: other than one over the setup's store."""
    maker = AmdVendor(setup.vendor, faults=setup.faults) if vendor is None else vendor
    saved = setup.saved or {}
    kept = _table(saved.get("chip", {}))
    before = kept.get("product")
    name = before if setup.product is None and isinstance(before, str) else setup.product
    fuses = maker.manufacture(product(name), setup.seed.child("amd chip"))
    chip = Chip.restore(fuses, kept) if "chip" in saved else Chip(fuses)
    match setup.kind:
        case "snp":
            if "snp-old-firmware" in setup.faults:
                chip.committed = chip.current = raised(fuses.product.firmware, by=-1)
                chip.commit()
            if "snp-uncommitted-firmware" in setup.faults:
                chip.update(raised(chip.committed))
            return SnpMachine(chip, maker, random=random, faults=setup.faults)
        case "sev" | "sev-es":
            keys = _table(saved.get("sev", {}))
            return SevMachine(setup.kind, chip, maker, random=random, faults=setup.faults, saved=keys)
    raise EmulatorError(f"kind is {setup.kind!r}, expected sev, sev-es or snp")


def _table(value: Value) -> Mapping[str, Value]:
    if not isinstance(value, dict):
        raise EmulatorError("saved state of the machine is not what this release wrote")
    return value
