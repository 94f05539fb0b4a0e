"""Intel TDX: TDVF measures kernel, ramdisk and command line into RTMRs; the guest gets quotes through QEMU's socket."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enarx.api.vm_image import VmImage
from enarx.host import platform
from enarx.host.backends._machine import MachineBackend
from enarx.host.platform._machine import Machine
from enarx.host.platform._tdx import tdx
from enarx.host.vm import Protection

QUOTE_SOCKET: Final = "/var/run/tdx-qgs/qgs.socket"
"""Where Intel's quote generation service listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxLaunch:
    """What a TD is given beside its pages; each of the identities has 48 bytes."""

    quote_socket: str = QUOTE_SOCKET
    mr_config_id: bytes = bytes(48)
    mr_owner: bytes = bytes(48)
    mr_owner_config: bytes = bytes(48)

    def objects(self) -> tuple[str]:
        """Give the argument of ``-object``."""
        guest = {
            "qom-type": "tdx-guest",
            "id": "tee0",
            "sept-ve-disable": True,
            "mrconfigid": b64encode(self.mr_config_id).decode(),
            "mrowner": b64encode(self.mr_owner).decode(),
            "mrownerconfig": b64encode(self.mr_owner_config).decode(),
            "quote-generation-socket": {"type": "unix", "path": self.quote_socket},
        }
        return (json.dumps(guest),)


class TdxBackend(MachineBackend):
    """``--backend tdx``."""

    protection = Protection.TDX
    least_qemu = (10, 1)

    def judge(self, machine: Machine) -> platform.Backend:
        """Look for TDX."""
        return tdx(machine)

    def firmware(self, image: VmImage) -> Path | None:
        """Take the OVMF that measures what it starts."""
        return image.firmware

    def objects(self) -> Sequence[str]:
        """Give the TD."""
        return TdxLaunch().objects()
