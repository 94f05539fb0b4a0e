"""A virtual machine: its memory, its processors, its interrupts, and an end at which nothing can be left behind."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Self

from ketuvim import _numbers as n
from ketuvim import _structs as s
from ketuvim._ioctl import Descriptor
from ketuvim.capabilities import Capability, VmType
from ketuvim.errors import KvmUnavailable, Misuse
from ketuvim.memory import (
    PAGE,
    GuestMemfd,
    GuestMemfdFlags,
    Mapping,
    MemoryFlags,
    MemoryRegion,
    require_sealed,
)
from ketuvim.notify import GsiRoute, Ioeventfd, Irqfd, pack_routes
from ketuvim.vcpu import VirtualCpu

if TYPE_CHECKING:
    from ketuvim.system import Kvm

_SPACE_SHIFT: Final = 16
_open_machines: Final[weakref.WeakSet[VirtualMachine]] = weakref.WeakSet()


class VirtualMachine:
    """A machine; ``Kvm.create_vm`` makes it. Close it, or use it in a ``with`` block.

    Closing stops and closes its processors first, then the machine, then frees its memory. One that is merely dropped
    is freed in the same order, since processors keep it alive.
    """

    __slots__ = ("__weakref__", "_lock", "_regions", "_vcpus", "descriptor", "kind", "kvm", "ring_lock")

    def __init__(self, kvm: Kvm, kind: VmType) -> None:
        self.kvm = kvm
        self.kind = kind
        self._lock = threading.Lock()
        self.ring_lock = threading.Lock()
        self._regions: list[MemoryRegion] = []
        self._vcpus: weakref.WeakSet[VirtualCpu] = weakref.WeakSet()
        self.descriptor = Descriptor(kvm.descriptor.ioctl(n.CREATE_VM, int(kind)))
        _open_machines.add(self)

    @property
    def closed(self) -> bool:
        """Say whether it was closed."""
        return self.descriptor.closed

    @property
    def regions(self) -> tuple[MemoryRegion, ...]:
        """Its memory."""
        return tuple(self._regions)

    def check(self, capability: int | Capability) -> int:
        """Give what KVM says of an extension for this machine."""
        return self.descriptor.ioctl(n.CHECK_EXTENSION, int(capability))

    def enable(self, capability: int, *arguments: int) -> None:
        """Switch on an extension; up to four arguments."""
        packed = s.ENABLE_CAP.pack(capability, 0, *arguments, *[0] * (4 - len(arguments)))
        self.descriptor.ioctl(n.ENABLE_CAP, bytearray(packed))

    # memory

    def add_region(
        self,
        address: int,
        size: int,
        *,
        flags: MemoryFlags = MemoryFlags.NONE,
        space: int = 0,
        file: int | None = None,
        file_offset: int = 0,
        guest_memfd: GuestMemfd | None = None,
        guest_memfd_offset: int = 0,
    ) -> MemoryRegion:
        """Give the guest ``size`` bytes at physical ``address``, both whole pages.

        The memory is new and zero, or that of ``file`` (a memfd that is sealed against shrinking, since the process
        would die of memory without a file), or that of ``guest_memfd``, which the host sees only where its flags have
        ``MMAP``. ``space`` is an address space (1 is that of system management mode).
        """
        if address % PAGE or size % PAGE or size <= 0 or address < 0:
            raise Misuse(f"a region has whole pages of {PAGE} bytes, not {size} bytes at {address:#x}")
        if space and space not in range(self.check(Capability.MULTI_ADDRESS_SPACE)):
            raise Misuse(f"there is no address space {space}")
        mapping = self._mapping(size, file, file_offset, guest_memfd, guest_memfd_offset)
        with self._lock:
            try:
                region = MemoryRegion(
                    self,
                    slot=self._free_slot(space),
                    address=address,
                    size=size,
                    flags=flags,
                    mapping=mapping,
                    memfd=guest_memfd,
                    memfd_offset=guest_memfd_offset,
                )
            except BaseException:
                if mapping is not None:
                    mapping.close()
                raise
            self._regions.append(region)
        return region

    def create_guest_memfd(self, size: int, flags: GuestMemfdFlags = GuestMemfdFlags.NONE) -> GuestMemfd:
        """Make memory that only this machine can use (``Capability.GUEST_MEMFD``)."""
        if not self.check(Capability.GUEST_MEMFD):
            raise KvmUnavailable("this KVM has no guest_memfd")
        fd = self.descriptor.ioctl(n.CREATE_GUEST_MEMFD, bytearray(s.GUEST_MEMFD.pack(size, flags)))
        return GuestMemfd(fd, size, flags)

    def set_private(self, address: int, size: int, private: bool) -> None:
        """Make a range of physical addresses private or shared (``Capability.MEMORY_ATTRIBUTES``)."""
        packed = s.MEMORY_ATTRIBUTES.pack(address, size, int(private) << 3, 0)
        self.descriptor.ioctl(n.SET_MEMORY_ATTRIBUTES, bytearray(packed))

    def region_at(self, address: int, size: int = 1) -> MemoryRegion:
        """Give the region in which all of ``size`` bytes at a physical address lie."""
        for region in self._regions:
            if region.address <= address and address + size <= region.address + region.size:
                return region
        raise Misuse(f"no region holds {size} bytes at {address:#x}")

    def read(self, address: int, size: int) -> bytes:
        """Copy memory out, from a physical address."""
        region = self.region_at(address, size)
        return region.read(address - region.address, size)

    def write(self, address: int, data: bytes) -> None:
        """Copy ``data`` into memory, to a physical address."""
        region = self.region_at(address, len(data))
        region.write(address - region.address, data)

    # processors and interrupts

    def create_vcpu(self, id_: int = 0) -> VirtualCpu:
        """Make the processor with this number."""
        vcpu = VirtualCpu(self, id_)
        with self._lock:
            self._vcpus.add(vcpu)
        return vcpu

    def create_irqchip(self) -> None:
        """Let KVM emulate the interrupt controllers; before the first processor."""
        self.descriptor.ioctl(n.CREATE_IRQCHIP)

    def create_timer(self) -> None:
        """Let KVM emulate the PIT; after ``create_irqchip``."""
        self.descriptor.ioctl(n.CREATE_PIT2, bytearray(s.PIT_CONFIG.pack(0)))

    def set_tss_address(self, address: int) -> None:
        """Give KVM three pages of physical addresses that the guest does not use (Intel needs them)."""
        self.descriptor.ioctl(n.SET_TSS_ADDR, address)

    def set_identity_map_address(self, address: int) -> None:
        """Give KVM one more such page."""
        self.descriptor.ioctl(n.SET_IDENTITY_MAP_ADDR, bytearray(s.U64.pack(address)))

    def irq_line(self, irq: int, level: bool) -> None:
        """Raise or lower an interrupt line."""
        self.descriptor.ioctl(n.IRQ_LINE, bytearray(s.IRQ_LEVEL.pack(irq, level)))

    def signal_msi(self, address: int, data: int) -> bool:
        """Deliver a message signalled interrupt; say whether the guest took it."""
        packed = s.MSI.pack(address & 0xFFFFFFFF, address >> 32, data, 0, 0)
        return self.descriptor.ioctl(n.SIGNAL_MSI, bytearray(packed)) > 0

    def route(self, routes: Iterable[GsiRoute]) -> None:
        """Say where each interrupt number leads, in place of what was."""
        self.descriptor.ioctl(n.SET_GSI_ROUTING, pack_routes(list(routes)))

    def irqfd(self, eventfd: int, gsi: int, *, resample: int | None = None) -> Irqfd:
        """Let a write to ``eventfd`` raise an interrupt; ``resample`` is signalled when the guest is done with it."""
        return Irqfd(self.descriptor, eventfd, gsi, resample)

    def ioeventfd(
        self, eventfd: int, address: int, size: int, *, match: int | None = None, port: bool = False
    ) -> Ioeventfd:
        """Let a write of the guest signal ``eventfd`` instead of an exit; ``match`` limits it to one value."""
        return Ioeventfd(self.descriptor, eventfd, address, size, match, port=port)

    def coalesce(self, address: int, size: int, *, port: bool = False) -> None:
        """Collect writes to a range; ``VirtualCpu.coalesced`` gives them."""
        packed = s.COALESCED_ZONE.pack(address, size, port)
        self.descriptor.ioctl(n.REGISTER_COALESCED_MMIO, bytearray(packed))

    def uncoalesce(self, address: int, size: int, *, port: bool = False) -> None:
        """Let writes to the range be exits again."""
        packed = s.COALESCED_ZONE.pack(address, size, port)
        self.descriptor.ioctl(n.UNREGISTER_COALESCED_MMIO, bytearray(packed))

    @property
    def clock_ns(self) -> int:
        """What kvmclock shows the guest, in nanoseconds."""
        packed = bytearray(s.CLOCK.size)
        self.descriptor.ioctl(n.GET_CLOCK, packed)
        return int(s.CLOCK.unpack(packed)[0])

    @clock_ns.setter
    def clock_ns(self, value: int) -> None:
        self.descriptor.ioctl(n.SET_CLOCK, bytearray(s.CLOCK.pack(value, 0, 0, 0)))

    # the end

    def close(self) -> None:
        """Stop and close the processors, close the machine, free its memory; a second time does nothing."""
        for vcpu in list(self._vcpus):
            vcpu.close()
        with self._lock:
            self.descriptor.close()
            regions, self._regions = self._regions, []
        for region in regions:
            region.abandon()
        _open_machines.discard(self)

    def disown(self) -> None:
        """Let go of a machine that belongs to the process from which this one was forked: only that one can use it."""
        self._lock, self.ring_lock = threading.Lock(), threading.Lock()
        for vcpu in list(self._vcpus):
            vcpu.disown()
        self.descriptor.disown()

    def forget(self, part: MemoryRegion | VirtualCpu) -> None:
        """Take note that a part was closed."""
        with self._lock:
            if isinstance(part, VirtualCpu):
                self._vcpus.discard(part)
            elif part in self._regions:
                self._regions.remove(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _mapping(
        self, size: int, file: int | None, offset: int, memfd: GuestMemfd | None, memfd_offset: int
    ) -> Mapping | None:
        """Map what the host may see of the region's memory."""
        if memfd is None:
            if file is not None:
                require_sealed(file, offset + size)
            return Mapping(size, file=file, offset=offset)
        if file is not None:
            raise Misuse("a region has the memory of a file or of a guest_memfd, not of both")
        if memfd.flags & GuestMemfdFlags.MMAP:
            return Mapping(size, file=memfd.fileno(), offset=memfd_offset)
        return None

    def _free_slot(self, space: int) -> int:
        """Give the lowest number of a slot that is free in an address space."""
        taken = {region.slot for region in self._regions}
        slot = space << _SPACE_SHIFT
        while slot in taken:
            slot += 1
        return slot


@atexit.register
def _close_all() -> None:
    """Let no guest run on while the interpreter takes its memory apart."""
    for machine in list(_open_machines):
        machine.close()


def _disown_all() -> None:
    """Keep a forked child from stopping, or waiting for, guests of its parent."""
    for machine in list(_open_machines):
        machine.disown()
    _open_machines.clear()


os.register_at_fork(after_in_child=_disown_all)
