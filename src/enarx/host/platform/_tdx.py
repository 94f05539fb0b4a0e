"""Intel TDX (Linux, arch/x86/tdx.rst; Intel TDX module base specification)."""

from __future__ import annotations

import os
from typing import Final

from enarx.host.platform._cpu import bit, processor
from enarx.host.platform._facts import Backend, Fact
from enarx.host.platform._machine import EBX, ECX, Machine, kvm, switched_on
from enarx.host.platform._qemu import qemu

PARAMETER: Final = "/sys/module/kvm_intel/parameters/tdx"
QGS: Final = "/var/run/tdx-qgs/qgs.socket"
GUEST: Final = "/dev/tdx_guest"
QEMU_VERSION: Final = (10, 1)


def tdx(machine: Machine) -> Backend:
    """Judge the machine as a host of TDX guests."""
    flags = machine.flags()
    host = "tdx_host_platform" in flags
    module = Fact(
        name="TDX module",
        passed=host and machine.is_on(PARAMETER),
        info="initialised by kvm_intel" if machine.is_on(PARAMETER) else "not initialised",
        advice=""
        if host and machine.is_on(PARAMETER)
        else "let the firmware load a TDX module, and see what the kernel's log says about virt/tdx",
    )
    platform = Fact(
        name="TDX host platform",
        passed=host,
        info="tdx_host_platform in /proc/cpuinfo" if host else "",
        advice=""
        if host
        else "switch on TDX, TME-MT and SEAM loader in the firmware's setup; Linux 6.8 or later",
        facts=(module,) if host else (),
    )
    return Backend(
        name="tdx",
        data=(
            kvm(machine),
            switched_on(
                machine,
                "TDX is enabled in host kernel",
                PARAMETER,
                "use Linux 6.16 or later with kvm_intel.tdx=1 nohibernate",
            ),
            processor(
                machine,
                "GenuineIntel",
                bit(
                    machine,
                    "Total Memory Encryption (TME)",
                    (7, 0, ECX, 13),
                    "switch on memory encryption in the firmware's setup",
                    flag="tme",
                ),
                bit(
                    machine,
                    "SGX Support",
                    (7, 0, EBX, 2),
                    "switch on SGX, which signs TDX quotes",
                    flag="sgx",
                ),
                platform,
            ),
            Fact(name="Inside a TDX guest", passed=True, info=GUEST if machine.exists(GUEST) else "no"),
        ),
        configuration=(quote_generation(machine), qemu(machine, "qemu-system-x86_64", QEMU_VERSION)),
    )


def quote_generation(machine: Machine) -> Fact:
    """State that the service that makes quotes listens, and to this user."""
    there = machine.exists(QGS)
    listens = there and os.access(machine.path(QGS), os.W_OK)
    start = "install and start Intel's qgsd, without a port in /etc/qgs.conf"
    join = "put this user into the group of the socket, usually qgsd"
    return Fact(
        name="Quote Generation Service socket",
        passed=listens,
        info=f"{QGS}, not for this user" if there and not listens else QGS,
        advice="" if listens else join if there else start,
    )
