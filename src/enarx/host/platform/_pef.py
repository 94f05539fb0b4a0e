"""IBM PEF, the Protected Execution Facility of POWER9 and later (Linux, arch/powerpc/ultravisor.rst)."""

from __future__ import annotations

from typing import Final

from enarx.host.platform._facts import Backend, Fact
from enarx.host.platform._machine import Machine, kvm
from enarx.host.platform._qemu import qemu

FIRMWARE: Final = ("/sys/firmware/ultravisor", "/proc/device-tree/ibm,ultravisor")
GUEST: Final = "/sys/devices/system/cpu/svm"
MODULE: Final = "/sys/module/kvm_hv"
QEMU_VERSION: Final = (6, 0)
PROCESSORS: Final = ("POWER9", "POWER10", "POWER11")


def pef(machine: Machine) -> Backend:
    """Judge the machine as a host of secure guests."""
    right = machine.machine == "ppc64le"
    architecture = Fact(
        name="Architecture",
        passed=right,
        info=machine.machine,
        advice="" if right else "this needs an OpenPOWER machine, little-endian",
    )
    if not right:
        return Backend(name="pef", data=(architecture,))
    cpu = machine.cpu().get("cpu", "")
    found = [path for path in FIRMWARE if machine.exists(path)]
    hypervisor = machine.exists(MODULE)
    secure = machine.text(GUEST) == "1"
    return Backend(
        name="pef",
        data=(
            architecture,
            Fact(
                name="CPU",
                passed=cpu.startswith(PROCESSORS),
                info=cpu,
                advice="" if cpu.startswith(PROCESSORS) else "this needs POWER9 or later",
            ),
            Fact(
                name="Ultravisor",
                passed=bool(found),
                info=found[0] if found else "",
                advice="" if found else "install firmware with the ultravisor, and switch on secure memory",
            ),
            kvm(machine),
            Fact(
                name="KVM without a hypervisor below",
                passed=hypervisor,
                info=MODULE,
                advice="" if hypervisor else "run PowerNV (bare metal) and load kvm_hv",
            ),
            Fact(name="Inside a secure guest", passed=True, info=GUEST if secure else "no"),
        ),
        configuration=(qemu(machine, "qemu-system-ppc64", QEMU_VERSION),),
    )
