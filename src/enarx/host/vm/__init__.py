"""Keeps as virtual machines: QEMU started with the image and one port, watched, and ended with its reason."""

from enarx.host.vm._accelerator import Accelerator, find_accelerator
from enarx.host.vm._keep import Boot, VmKeep
from enarx.host.vm._options import Guest, Protection, qemu_command
from enarx.host.vm._tpm import Seeds, Tpm

__all__ = [
    "Accelerator",
    "Boot",
    "Guest",
    "Protection",
    "Seeds",
    "Tpm",
    "VmKeep",
    "find_accelerator",
    "qemu_command",
]
