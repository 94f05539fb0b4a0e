"""Where facts come from: a file tree, and questions to the processor, the kernel and programs.

The tree is an argument, so that a copy of another machine's files can be judged like this machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import resource
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from enarx.host.platform._facts import Fact

Registers = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""
Cpuid = Callable[[int, int], Registers | None]
"""What the processor answers for a leaf and a subleaf; None when it cannot be asked."""
EAX, EBX, ECX, EDX = range(4)

FOLDERS: Final = ("/usr/local/bin", "/usr/bin", "/bin", "/opt/qemu/bin")
KVM_GET_API_VERSION: Final = 0xAE00
MAX_TEXT: Final = 1 << 20
TIMEOUT_S: Final = 10


def ask_kernel_for_cpuid(root: Path) -> Cpuid:
    """Read ``/dev/cpu/0/cpuid`` (Linux cpuid(4)), which root alone may on most machines."""

    def cpuid(leaf: int, subleaf: int) -> Registers | None:
        try:
            fd = os.open(root / "dev/cpu/0/cpuid", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            answer = os.pread(fd, 16, leaf | subleaf << 32)
        except OSError:
            return None
        finally:
            os.close(fd)
        return struct.unpack("<4I", answer) if len(answer) == 16 else None

    return cpuid


def ask_kvm_for_version(device: Path) -> int | None:
    """Give the version of KVM's interface, or None when the device does not answer."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return fcntl.ioctl(fd, KVM_GET_API_VERSION)
    except OSError:
        return None
    finally:
        os.close(fd)


def ask_program_for_version(program: Path) -> str:
    """Give what ``program`` says about its version, or nothing."""
    try:
        asked = subprocess.run([program, "--version"], capture_output=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.decode(errors="replace")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One machine to be judged."""

    root: Path
    machine: str = field(default_factory=platform.machine)
    cpuid: Cpuid = lambda leaf, subleaf: None
    kvm_version: Callable[[Path], int | None] = ask_kvm_for_version
    version_of: Callable[[Path], str] = lambda program: ""
    """What a program says about its version. Programs of a foreign tree are not run."""
    folders: Sequence[str] = FOLDERS
    """Where programs are looked for, in this order."""
    memlock: tuple[int, int] = field(default_factory=lambda: resource.getrlimit(resource.RLIMIT_MEMLOCK))

    def path(self, name: str) -> Path:
        """Give where ``name``, an absolute path of the machine, lies."""
        return self.root / name.lstrip("/")

    def exists(self, name: str) -> bool:
        """Say whether there is something at ``name``."""
        return self.path(name).exists()

    def opens(self, name: str, flags: int) -> bool:
        """Say whether this user can open ``name`` in the way of ``flags``."""
        try:
            os.close(os.open(self.path(name), flags | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    def bytes(self, name: str) -> bytes | None:
        """Give the content of a file of reasonable size; None when it cannot be read."""
        with contextlib.suppress(OSError), self.path(name).open("rb") as file:
            return file.read(MAX_TEXT)
        return None

    def text(self, name: str) -> str:
        """Give the content of a small text file without the white space around it; empty when it cannot be read."""
        return (self.bytes(name) or b"").decode(errors="replace").strip("\0 \n")

    def is_on(self, parameter: str) -> bool:
        """Say whether the parameter of a kernel module is switched on."""
        return self.text(parameter) in ("1", "Y", "y")

    def cpu(self) -> Mapping[str, str]:
        """Give the first processor's entries of ``/proc/cpuinfo``."""
        first = self.text("/proc/cpuinfo").split("\n\n")[0]
        pairs = (line.partition(":") for line in first.splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}

    def flags(self) -> frozenset[str]:
        """Give the processor's features by the kernel's names."""
        return frozenset(self.cpu().get("flags", "").split())


def this_machine() -> Machine:
    """Give the machine that this runs on, with the places from which this process starts programs."""
    root = Path("/")
    return Machine(
        root=root,
        cpuid=ask_kernel_for_cpuid(root),
        version_of=ask_program_for_version,
        folders=tuple(folder for folder in os.get_exec_path() if folder.startswith("/")),
    )


def device(machine: Machine, path: str, advice: str, *facts: Fact) -> Fact:
    """State that a device is there."""
    there = machine.exists(path)
    return Fact(
        name="Driver", passed=there, info=path, advice="" if there else advice, facts=facts if there else ()
    )


def switched_on(machine: Machine, name: str, parameter: str, advice: str) -> Fact:
    """State that a parameter of a kernel module is switched on."""
    on = machine.is_on(parameter)
    found = machine.text(parameter) or "absent"
    return Fact(name=name, passed=on, info=f"{parameter} is {found}", advice="" if on else advice)


def kvm(machine: Machine) -> Fact:
    """State that KVM is there and speaks the interface that has been the only one since 2007."""
    version = machine.kvm_version(machine.path("/dev/kvm"))
    api = Fact(
        name="API Version",
        passed=version == 12,
        info="no answer" if version is None else str(version),
        advice="" if version == 12 else "let this user open /dev/kvm, for example through the group kvm",
    )
    return device(
        machine, "/dev/kvm", "switch on virtualisation in the firmware and load kvm_amd or kvm_intel", api
    )
