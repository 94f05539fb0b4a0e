"""IBM PEF: the guest enters secure mode by itself, with what was sealed for this machine into its kernel's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from enarx.api.vm_image import VmImage
from enarx.host import platform
from enarx.host.backend import Launched
from enarx.host.backends._machine import MachineBackend
from enarx.host.platform._machine import Machine
from enarx.host.platform._pef import pef
from enarx.host.vm import Protection
from enarx.tcb.errors import Unavailable

OBJECTS: Final = ("pef-guest,id=tee0",)


class PefBackend(MachineBackend):
    """``--backend pef``."""

    protection = Protection.PEF
    least_qemu = (6, 0)

    def judge(self, machine: Machine) -> platform.Backend:
        """Look for PEF."""
        return pef(machine)

    def firmware(self, image: VmImage) -> Path | None:
        """Take the kernel: SLOF comes with QEMU, and the ultravisor measures what it is given."""
        return image.kernel

    def objects(self) -> Sequence[str]:
        """Give the guest."""
        return OBJECTS

    def start(self, image: VmImage, tenant: bytes) -> Launched:
        """Refuse: there is no image of this release for POWER."""
        raise Unavailable(
            "pef: this release builds images of VM keeps for x86-64 only", hint="use the emulated platform"
        )
