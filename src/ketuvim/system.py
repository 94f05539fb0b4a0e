"""KVM itself: ``/dev/kvm``, what it can do, and new virtual machines."""

from __future__ import annotations

import os
import platform
from typing import Final, Self

from ketuvim import _numbers as n
from ketuvim import _structs as s
from ketuvim._ioctl import Descriptor, Request
from ketuvim.capabilities import Capability, VmType
from ketuvim.cpu_state import MAX_CPUID_ENTRIES
from ketuvim.errors import KvmError, KvmUnavailable
from ketuvim.state import CpuidEntry, unpack_cpuid
from ketuvim.vm import VirtualMachine

API_VERSION: Final = 12
DEVICE: Final = "/dev/kvm"
_MAX_MSRS: Final = 4096


class Kvm:
    """The opened device. Machines that came from it live on after it is closed."""

    __slots__ = ("descriptor", "vcpu_mmap_size")

    def __init__(self, descriptor: Descriptor) -> None:
        version = descriptor.ioctl(n.GET_API_VERSION)
        if version != API_VERSION:
            raise KvmUnavailable(f"invalid kvm version: expected {API_VERSION}, found {version}")
        self.descriptor = descriptor
        self.vcpu_mmap_size = descriptor.ioctl(n.GET_VCPU_MMAP_SIZE)

    @classmethod
    def open(cls, path: str = DEVICE) -> Self:
        """Open the device; raise ``KvmUnavailable`` where there is none, or none for us."""
        if platform.machine() != "x86_64":
            raise KvmUnavailable(f"this library knows x86_64, and this machine is {platform.machine()}")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            hint = {
                FileNotFoundError: "load kvm_intel or kvm_amd, or allow nested virtualisation",
                PermissionError: "join the group that owns the device",
            }.get(type(error), "")
            raise KvmUnavailable(f"{path} cannot be opened: {error.strerror}", hint=hint) from None
        descriptor = Descriptor(fd)
        try:
            return cls(descriptor)
        except KvmError as error:
            descriptor.close()
            raise KvmUnavailable(f"{path} is not KVM: {error}") from None

    def check(self, capability: int | Capability) -> int:
        """Give what KVM says of an extension: 0 for no, 1 for yes, or a number that belongs to it."""
        return self.descriptor.ioctl(n.CHECK_EXTENSION, int(capability))

    def capabilities(self) -> dict[Capability, int]:
        """Give every extension that this KVM has and this library can name."""
        found = {capability: self.check(capability) for capability in Capability}
        return {capability: value for capability, value in found.items() if value}

    def vm_types(self) -> frozenset[VmType]:
        """Give the kinds of machine that can be made; the default one always can."""
        bits = self.check(Capability.VM_TYPES)
        return frozenset(kind for kind in VmType if bits >> kind & 1 or kind is VmType.DEFAULT)

    def supported_cpuid(self) -> list[CpuidEntry]:
        """Give what CPUID can tell a guest here."""
        return self._cpuid(n.GET_SUPPORTED_CPUID)

    def emulated_cpuid(self) -> list[CpuidEntry]:
        """Give what KVM can imitate though the processor lacks it."""
        return self._cpuid(n.GET_EMULATED_CPUID)

    def msrs(self) -> list[int]:
        """Give the model specific registers that a guest has and that must be saved."""
        return self._msrs(n.GET_MSR_INDEX_LIST)

    def feature_msrs(self) -> list[int]:
        """Give the model specific registers that describe the host's features."""
        return self._msrs(n.GET_MSR_FEATURE_INDEX_LIST)

    def create_vm(self, kind: VmType = VmType.DEFAULT) -> VirtualMachine:
        """Make a machine without memory and processors."""
        if kind is not VmType.DEFAULT and kind not in self.vm_types():
            raise KvmUnavailable(f"this KVM cannot make machines of the kind {kind.name}")
        return VirtualMachine(self, kind)

    def close(self) -> None:
        """Close the device."""
        self.descriptor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cpuid(self, request: Request) -> list[CpuidEntry]:
        entries = bytearray(s.CPUID_ENTRY.size * MAX_CPUID_ENTRIES)
        packed = bytearray(s.CPUID_HEADER.pack(MAX_CPUID_ENTRIES)) + entries
        self.descriptor.ioctl(request, packed)
        return unpack_cpuid(packed)

    def _msrs(self, request: Request) -> list[int]:
        packed = bytearray(s.MSR_LIST.pack(_MAX_MSRS)) + bytearray(s.U32.size * _MAX_MSRS)
        self.descriptor.ioctl(request, packed)
        count, *indices = memoryview(packed).cast("I")
        return list(indices[:count])
