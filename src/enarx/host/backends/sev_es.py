"""AMD SEV-ES: SEV whose processor state is encrypted and measured, too."""

from __future__ import annotations

from enarx.host.backends.sev import SevBackend
from enarx.host.vm import Protection


class SevEsBackend(SevBackend):
    """``--backend sev-es=FILE``."""

    protection = Protection.SEV_ES
    least_qemu = (9, 1)
