"""The faults of IBM platforms: what a hypervisor, or somebody on the way of a blob, can try against an ultravisor.

That files of a blob change places is not among them: the format does not authenticate their names, so whoever seals
more than one must say in each what it is.
"""

from __future__ import annotations

from typing import Final

from enarx_emulator.faults import Fault

_REFUSED: Final = "U_PERMISSION"
FAULTS: Final = tuple(
    Fault(name=f"pef-{name}", kinds=("pef",), effect=effect, caught_by=caught_by)
    for name, effect, caught_by in (
        ("kernel-replaced", "one bit of the kernel is another than the owner sealed", _REFUSED),
        ("kernel-appended", "something follows the kernel in memory", _REFUSED),
        ("initrd-appended", "the host adds files to the initial file system", _REFUSED),
        ("bootargs-changed", "the host adds to the kernel's command line", _REFUSED),
        ("rtas-replaced", "the host gives the guest another RTAS", _REFUSED),
        ("other-machine", "the machine is not the one whose key was published", _REFUSED),
        ("blob-flipped", "a bit of the blob is flipped on the way", _REFUSED),
        ("blob-truncated", "the blob's last byte is missing", "U_PARAMETER"),
    )
)
