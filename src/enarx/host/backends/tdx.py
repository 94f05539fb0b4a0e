"""Intel TDX: TDVF measures kernel, ramdisk and command line into RTMRs; the guest gets quotes through QEMU's socket."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enarx.api.vm_image import VmImage
from enarx.attest.measure import mrtd, parse_td_firmware
from enarx.host import platform
from enarx.host.backends._machine import MachineBackend, check_size
from enarx.host.platform._machine import Machine
from enarx.host.platform._tdx import tdx
from enarx.host.vm import Protection
from enarx.tcb.errors import Malformed

QUOTE_SOCKET: Final = "/var/run/tdx-qgs/qgs.socket"
"""Where Intel's quote generation service listens."""

MAX_SOCKET_BYTES: Final = 107
"""Of unix(7), without the last zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxLaunch:
    """What a TD is given beside its pages; each of the identities has 48 bytes."""

    quote_socket: str = QUOTE_SOCKET
    mr_config_id: bytes = bytes(48)
    mr_owner: bytes = bytes(48)
    mr_owner_config: bytes = bytes(48)

    def __post_init__(self) -> None:
        # QEMU looks at all of these only when the machine starts, and at the path when the first quote is wanted.
        for name in ("mr_config_id", "mr_owner", "mr_owner_config"):
            check_size(name, getattr(self, name), 48)
        if len(os.fsencode(self.quote_socket)) > MAX_SOCKET_BYTES:
            raise Malformed(f"quote_socket: a path of more than {MAX_SOCKET_BYTES} bytes is no socket")

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

    def check_firmware(self, content: bytes) -> None:
        """Refuse OVMF that TDX cannot start."""
        mrtd(parse_td_firmware(content))

    def objects(self) -> Sequence[str]:
        """Give the TD."""
        return TdxLaunch().objects()
