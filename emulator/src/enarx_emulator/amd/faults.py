"""The faults of AMD platforms."""

from __future__ import annotations

from typing import Final

from enarx_emulator.faults import Fault

FAULTS: Final[tuple[Fault, ...]] = ()
