"""What this machine offers to keeps.

>>> report = inspect()
>>> [backend.name for backend in report.backends if backend.usable]
['process']
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from enarx import __version__
from enarx.host.platform._facts import Backend, Fact, Report
from enarx.host.platform._kvm import kvm_backend, vm, vm_tpm
from enarx.host.platform._machine import Machine, this_machine
from enarx.host.platform._pef import pef
from enarx.host.platform._process import Probe, process, run_probe
from enarx.host.platform._sev import sev, snp
from enarx.host.platform._sgx import sgx
from enarx.host.platform._tdx import tdx

__all__ = ["Backend", "Fact", "Machine", "Report", "inspect", "judge"]


def inspect(root: Path = Path("/")) -> Report:
    """Look at this machine, or at what a copy of another one's files below ``root`` tells."""
    now = datetime.now(UTC)
    if root != Path("/"):
        return judge(Machine(root=root), now=now, probe=lambda: "")
    return judge(this_machine(), now=now, probe=run_probe)


def judge(machine: Machine, *, now: datetime, probe: Probe) -> Report:
    """Judge ``machine`` for every kind of keep; ``probe`` tries the sandbox of a process keep."""
    system = os.uname()
    return Report(
        enarx=__version__,
        system={
            "name": system.sysname,
            "release": system.release,
            "version": system.version,
            "machine": machine.machine,
        },
        backends=(
            sgx(machine, now),
            tdx(machine),
            snp(machine, now),
            sev(machine),
            pef(machine),
            kvm_backend(machine),
            vm(machine),
            vm_tpm(machine),
            process(machine, probe),
        ),
    )
