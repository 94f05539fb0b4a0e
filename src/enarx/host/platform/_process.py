"""The process keep: which layers of its sandbox this machine allows.

They are tried, not deduced: a child process locks itself down as a keep does and tells how it went.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

from enarx.host.platform._facts import Backend, Fact
from enarx.host.platform._machine import Machine

PROBE: Final = ("-I", "-m", "enarx.tcb.keep.lockdown")
TIMEOUT_S: Final = 20
ADVICE: Final = {
    "user namespace": "allow them: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1 (Debian) and"
    " kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); a container's seccomp profile must permit unshare",
    "empty root": "run on a kernel with tmpfs, and let /proc be mounted",
    "Landlock": "use Linux 5.13 or later with landlock in the boot parameter lsm=",
    "seccomp": "use a kernel with CONFIG_SECCOMP_FILTER on x86_64 or aarch64",
    "write xor execute": "use Linux 6.3 or later, or a kernel with CONFIG_SECCOMP_FILTER",
}
NAMESPACES: Final = "make it possible for this user, as for the user namespace"

Probe = Callable[[], str]
"""Gives what the child process prints."""


def run_probe() -> str:
    """Lock a child process down; what it prints is empty when it failed to tell."""
    try:
        asked = subprocess.run(
            [sys.executable, *PROBE],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.decode(errors="replace")


def process(machine: Machine, probe: Probe) -> Backend:
    """Judge the machine for process keeps, which run everywhere on Linux and are safer with every layer."""
    linux = machine.exists("/proc/self")
    system = Fact(
        name="Linux with /proc", passed=linux, advice="" if linux else "run on Linux, with /proc mounted"
    )
    return Backend(
        name="process", data=(system, _cgroups(machine)), configuration=_sandbox(probe()) if linux else ()
    )


def _sandbox(answer: str) -> tuple[Fact, ...]:
    try:
        steps = json.loads(answer)
        return tuple(_step(str(step["step"]), step["applied"] is True, str(step["detail"])) for step in steps)
    except (ValueError, KeyError, TypeError):
        return (
            Fact(
                name="Sandbox",
                passed=False,
                info="the process that tried it gave no answer",
                advice=f"see what {' '.join(('python3', *PROBE))} says",
            ),
        )


def _step(name: str, applied: bool, detail: str) -> Fact:
    advice = ADVICE.get(name, NAMESPACES if name.endswith("namespace") else "")
    return Fact(name=_capital(name), passed=applied, info=detail, advice="" if applied else advice)


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _cgroups(machine: Machine) -> Fact:
    controllers: Sequence[str] = machine.text("/sys/fs/cgroup/cgroup.controllers").split()
    info = ", ".join(controllers) or "no controllers of version 2: limits are those of the process alone"
    return Fact(name="Control groups", passed=True, info=info)
