"""QEMU's command line for each way to protect a guest, as tables.

What differs between the ways is the machine, the object that protects it, and who starts the kernel. Files are
descriptors that the caller has opened, so that what was measured is what is started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from enarx.host.vm._accelerator import Accelerator

PROGRAM: Final = "qemu-system-x86_64"
PORT: Final = "org.enarx.keep"
PLATFORM_PORT: Final = "org.enarx.platform"
MEMORY_MIB: Final = 512
_ALWAYS: Final = (
    *("-nodefaults", "-no-user-config", "-no-reboot"),
    *("-display", "none", "-monitor", "none", "-serial", "none"),
    *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
)
TRANSLATED: Final = "max,cx16=off,erms=off,fsrm=off"
"""The processor of QEMU's translator without what it claims and does badly: cmpxchg16b, whose flags QEMU 7.2 gets
wrong, and fast string moves, which it does byte by byte; whoever believes in them copies four to nine times slower.
"""
_BARE: Final = "q35,sata=off,smbus=off,smm=off,vmport=off,i8042=off"


class Protection(Enum):
    """What keeps the host out of the guest."""

    NONE = "vm"
    TPM = "vm-tpm"
    SEV = "sev"
    SEV_ES = "sev-es"
    SNP = "snp"
    TDX = "tdx"
    PEF = "pef"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a protection wants of the machine."""

    machine: str
    cpu: str
    program: str = PROGRAM
    firmware: str = ""
    """The option that takes the firmware, with ``{}`` for its file; without it QEMU starts the kernel."""
    bounce: bool = True
    """Whether devices may reach only what the guest shows them."""
    paused: bool = False
    """Whether it waits for its tenant's secret before it runs."""


_PFLASH: Final = "-drive if=pflash,format=raw,unit=0,readonly=on,file={}"
SHAPES: Final[Mapping[Protection, Shape]] = {
    Protection.NONE: Shape(machine=_BARE, cpu="max", bounce=False),
    Protection.TPM: Shape(machine="q35,smm=off,vmport=off", cpu="max", bounce=False, firmware="-bios {}"),
    Protection.SEV: Shape(
        machine="q35,smm=off,vmport=off,confidential-guest-support=tee0",
        cpu="EPYC",
        firmware=_PFLASH,
        paused=True,
    ),
    Protection.SEV_ES: Shape(
        machine="q35,smm=off,vmport=off,confidential-guest-support=tee0",
        cpu="EPYC",
        firmware=_PFLASH,
        paused=True,
    ),
    Protection.SNP: Shape(
        machine="q35,smm=off,vmport=off,confidential-guest-support=tee0,memory-backend=ram0",
        cpu="EPYC-v4",
        firmware="-bios {}",
    ),
    Protection.TDX: Shape(
        machine="q35,smm=off,hpet=off,kernel-irqchip=split,confidential-guest-support=tee0",
        cpu="host",
        firmware="-bios {}",
    ),
    Protection.PEF: Shape(
        machine="pseries,confidential-guest-support=tee0", cpu="host", program="qemu-system-ppc64"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Descriptors that QEMU inherits."""

    kernel: int
    initrd: int
    firmware: int | None = None
    keep: int
    """The host's side of the port, and of the one to an emulated platform."""
    platform: int | None = None
    control: int
    tpm: int | None = None
    """The channel by which QEMU controls a TPM in software."""

    def all(self) -> tuple[int, ...]:
        """Give all of them."""
        found = (self.kernel, self.initrd, self.firmware, self.keep, self.platform, self.control, self.tpm)
        return tuple(fd for fd in found if fd is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """What is the same for a guest wherever it runs, and measured where something measures."""

    cmdline: str
    memory_mib: int = MEMORY_MIB
    vcpus: int = 1
    objects: Sequence[str] = field(default=())
    """Arguments of ``-object`` that protect it."""
    extra: Sequence[str] = field(default=())


def qemu_command(
    protection: Protection, guest: Guest, files: Files, accelerator: Accelerator
) -> Sequence[str]:
    """Give the whole command line. TEEs need KVM, whatever was measured."""
    shape = SHAPES[protection]
    kvm = accelerator.kvm or shape.bounce
    cpu = shape.cpu if shape.cpu != "max" else "host" if kvm else TRANSLATED
    firmware = shape.firmware.format(f"/proc/self/fd/{files.firmware}").split() if shape.firmware else []
    device = ",iommu_platform=on,disable-legacy=on" if shape.bounce else ""
    command = [
        shape.program,
        *_ALWAYS,
        *("-machine", shape.machine, "-accel", "kvm" if kvm else "tcg,thread=multi", "-cpu", cpu),
        *("-m", f"{guest.memory_mib}M", "-smp", str(guest.vcpus)),
        *("-kernel", f"/proc/self/fd/{files.kernel}", "-initrd", f"/proc/self/fd/{files.initrd}"),
        *("-append", guest.cmdline),
        *firmware,
        *(part for it in guest.objects for part in ("-object", it)),
        *("-device", f"virtio-serial-pci,id=vs0,max_ports=3{device}"),
        *_port("keep", files.keep, PORT),
        *(_port("platform", files.platform, PLATFORM_PORT) if files.platform is not None else ()),
        *("-chardev", f"socket,id=control,fd={files.control}", "-qmp", "chardev:control"),
        *(_tpm(files.tpm) if files.tpm is not None else ()),
        *guest.extra,
    ]
    return [*command, "-S"] if shape.paused else command


def _tpm(fd: int) -> tuple[str, ...]:
    channel = ("-chardev", f"socket,id=tpm,fd={fd}", "-tpmdev", "emulator,id=tpm0,chardev=tpm")
    return (*channel, "-device", "tpm-crb,tpmdev=tpm0")


def _port(name: str, fd: int, called: str) -> tuple[str, ...]:
    return (
        *("-chardev", f"socket,id={name},fd={fd}"),
        *("-device", f"virtserialport,id=port-{name},chardev={name},bus=vs0.0,name={called}"),
    )
