"""Keeps in virtual machines without a TEE: isolated by KVM, or emulated."""

from __future__ import annotations

from typing import Final

from enarx.host.platform._cpu import bit, processor
from enarx.host.platform._facts import Backend, Fact
from enarx.host.platform._machine import EBX, ECX, Machine, kvm
from enarx.host.platform._qemu import program_fact, qemu

QEMU_VERSION: Final = (7, 2)
SWTPM_VERSION: Final = (0, 7)
TOO_OLD: Final = "this needs a processor made after 2013"


def kvm_backend(machine: Machine) -> Backend:
    """Judge the machine for virtual machines that KVM runs."""
    return Backend(
        name="kvm",
        data=(
            kvm(machine),
            processor(
                machine,
                "",
                bit(machine, "CPU supports FSGSBASE instructions", (7, 0, EBX, 0), TOO_OLD, flag="fsgsbase"),
                bit(machine, "CPU supports RDRAND instruction", (1, 0, ECX, 30), TOO_OLD, flag="rdrand"),
            ),
        ),
    )


def vm(machine: Machine) -> Backend:
    """Judge the machine for virtual machines that QEMU runs, if need be without KVM."""
    there = machine.kvm_version(machine.path("/dev/kvm")) is not None
    program = "qemu-system-ppc64" if machine.machine == "ppc64le" else f"qemu-system-{machine.machine}"
    return Backend(
        name="vm",
        data=(
            qemu(machine, program, QEMU_VERSION),
            Fact(
                name="KVM", passed=True, info="/dev/kvm" if there else "absent: keeps are emulated, and slow"
            ),
        ),
    )


def vm_tpm(machine: Machine) -> Backend:
    """Judge the machine for virtual machines that QEMU runs and a TPM in software measures."""
    return Backend(
        name="vm-tpm",
        data=(
            qemu(machine, "qemu-system-x86_64", QEMU_VERSION),
            program_fact(machine, "swtpm", "swtpm", SWTPM_VERSION),
            Fact(
                name="Memory encryption",
                passed=True,
                info="none: no TEE, whoever runs the machine can read its keeps",
            ),
        ),
    )
