"""Who carries out the commands of a SEV launch: the processor through KVM, or a firmware as an object."""

from __future__ import annotations

import os
from typing import Any, Final, Protocol

from ketuvim import _numbers as n
from ketuvim import _structs as s
from ketuvim._ioctl import Descriptor, Pinned
from ketuvim.capabilities import VmType
from ketuvim.errors import KvmError, KvmUnavailable, Misuse
from ketuvim.sev_status import SevRefused, SevStatus
from ketuvim.vm import VirtualMachine

DEVICE: Final = "/dev/sev"
INIT, ES_INIT, LAUNCH_START, LAUNCH_UPDATE_DATA, LAUNCH_UPDATE_VMSA = range(5)
LAUNCH_SECRET, LAUNCH_MEASURE, LAUNCH_FINISH = range(5, 8)
GUEST_STATUS: Final = 16
INIT2: Final = 22
SNP_LAUNCH_START, SNP_LAUNCH_UPDATE, SNP_LAUNCH_FINISH = range(100, 103)
_MEASUREMENT_BYTES: Final = 48


class SevCommands(Protocol):
    """The commands of a launch. Addresses are the guest's physical ones."""

    def init(self, *, es: bool) -> None: ...
    def launch_start(self, policy: bytes, certificate: bytes | None, session: bytes | None) -> int: ...
    def launch_update_data(self, handle: int, address: int, size: int) -> None: ...
    def launch_update_vmsa(self, handle: int) -> None: ...
    def launch_measure(self, handle: int) -> bytes: ...
    def launch_secret(self, handle: int, header: bytes, payload: bytes, address: int) -> None: ...
    def launch_finish(self, handle: int) -> None: ...


class SevFirmware(Protocol):
    """A secure processor's firmware as a Python object, whose guests have memory of its own.

    ``running`` gives an object whose ``memory.read(address, size)`` is the guest's memory as the guest sees it.
    """

    def free_asid(self) -> int: ...
    def activate(self, handle: int, asid: int) -> None: ...
    def launch_start(
        self, policy: bytes, *, certificate: bytes | None = None, session: bytes | None = None
    ) -> int: ...
    def launch_update_data(self, handle: int, address: int, data: bytes) -> None: ...
    def launch_update_vmsa(self, handle: int, vmsa: bytes) -> None: ...
    def launch_measure(self, handle: int) -> bytes: ...
    def launch_secret(self, handle: int, *, header: bytes, payload: bytes, address: int) -> None: ...
    def launch_finish(self, handle: int) -> None: ...
    def running(self, handle: int) -> Any: ...


class PlainCommands:
    """A launch by ``firmware`` of a machine whose memory nobody encrypts: for emulated secure processors.

    What the firmware decrypted is copied into the machine's memory when the launch is finished.
    """

    __slots__ = ("_firmware", "_secrets", "_vm", "_vmsas")

    def __init__(self, vm: VirtualMachine, firmware: SevFirmware, *, vmsas: tuple[bytes, ...] = ()) -> None:
        self._vm = vm
        self._firmware = firmware
        self._vmsas = vmsas
        self._secrets: list[tuple[int, int]] = []

    def init(self, *, es: bool) -> None:
        """Do nothing: whoever owns the platform has initialised it."""

    def launch_start(self, policy: bytes, certificate: bytes | None, session: bytes | None) -> int:
        """Begin, and give the guest an address space identifier, as KVM does."""
        handle = self._firmware.launch_start(policy, certificate=certificate, session=session)
        self._firmware.activate(handle, self._firmware.free_asid())
        return handle

    def launch_update_data(self, handle: int, address: int, size: int) -> None:
        """Let the firmware measure what the machine has at the address."""
        self._firmware.launch_update_data(handle, address, self._vm.read(address, size))

    def launch_update_vmsa(self, handle: int) -> None:
        """Let the firmware measure the registers of each processor."""
        for vmsa in self._vmsas:
            self._firmware.launch_update_vmsa(handle, vmsa)

    def launch_measure(self, handle: int) -> bytes:
        """Give measurement and nonce."""
        return self._firmware.launch_measure(handle)

    def launch_secret(self, handle: int, header: bytes, payload: bytes, address: int) -> None:
        """Let the firmware decrypt a packet."""
        self._vm.region_at(address, len(payload))
        self._firmware.launch_secret(handle, header=header, payload=payload, address=address)
        self._secrets.append((address, len(payload)))

    def launch_finish(self, handle: int) -> None:
        """Finish, and show the guest what was decrypted for it."""
        self._firmware.launch_finish(handle)
        memory = self._firmware.running(handle).memory
        for address, size in self._secrets:
            self._vm.write(address, bytes(memory.read(address, size)))


class KvmCommands:
    """A launch by the processor's own firmware, through ``/dev/sev`` and ``KVM_MEMORY_ENCRYPT_OP``.

    The memory that the machine has at ``init`` is pinned. Needs a processor with SEV, and firmware that is set up.
    """

    __slots__ = ("_device", "_vm")

    def __init__(self, vm: VirtualMachine, *, device: str | Descriptor = DEVICE) -> None:
        self._vm = vm
        self._device = open_device(device) if isinstance(device, str) else device

    def init(self, *, es: bool) -> None:
        """Let KVM prepare the machine, by the command that fits its kind."""
        expected = (VmType.SEV_ES if es else VmType.SEV, VmType.DEFAULT)
        if self._vm.kind not in expected:
            raise Misuse(f"the machine is of the kind {self._vm.kind.name}, expected {expected[0].name}")
        if self._vm.kind is VmType.DEFAULT:
            self.command(ES_INIT if es else INIT)
        else:
            self.command(INIT2, bytearray(s.SEV_INIT.size))
        for region in self._vm.regions:
            packed = s.ENC_REGION.pack(region.mapping.pinned.address, region.size)
            self._vm.descriptor.ioctl(n.MEMORY_ENCRYPT_REG_REGION, bytearray(packed))

    def launch_start(self, policy: bytes, certificate: bytes | None, session: bytes | None) -> int:
        """LAUNCH_START; KVM activates the guest as well."""
        one, two = _pinned(certificate), _pinned(session)
        packed = bytearray(
            s.SEV_LAUNCH_START.pack(
                0, int.from_bytes(policy, "little"), *_pointer(one), *_pointer(two)
            )
        )  # fmt: skip
        self.command(LAUNCH_START, packed)
        return int(s.SEV_LAUNCH_START.unpack(packed)[0])

    def launch_update_data(self, handle: int, address: int, size: int) -> None:
        """LAUNCH_UPDATE_DATA: encrypt in place."""
        self.command(LAUNCH_UPDATE_DATA, bytearray(s.SEV_BUFFER.pack(self._host(address, size), size)))

    def launch_update_vmsa(self, handle: int) -> None:
        """LAUNCH_UPDATE_VMSA, for all processors."""
        self.command(LAUNCH_UPDATE_VMSA)

    def launch_measure(self, handle: int) -> bytes:
        """LAUNCH_MEASURE."""
        answer = bytearray(_MEASUREMENT_BYTES)
        place = Pinned(answer)
        self.command(LAUNCH_MEASURE, bytearray(s.SEV_BUFFER.pack(place.address, place.size)))
        return bytes(answer)

    def launch_secret(self, handle: int, header: bytes, payload: bytes, address: int) -> None:
        """LAUNCH_SECRET: decrypt in place."""
        one, two = _pinned(header), _pinned(payload)
        target = self._host(address, len(payload))
        packed = s.SEV_LAUNCH_SECRET.pack(*_pointer(one), target, len(payload), *_pointer(two))
        self.command(LAUNCH_SECRET, bytearray(packed))

    def launch_finish(self, handle: int) -> None:
        """LAUNCH_FINISH."""
        self.command(LAUNCH_FINISH)

    def guest_status(self) -> tuple[int, int, int]:
        """GUEST_STATUS: give handle, policy and state."""
        packed = bytearray(s.SEV_GUEST_STATUS.size)
        self.command(GUEST_STATUS, packed)
        handle, policy, state = s.SEV_GUEST_STATUS.unpack(packed)
        return handle, policy, state

    def command(self, number: int, argument: bytearray | None = None) -> None:
        """Issue a command (``KVM_SEV_*``); raise ``SevRefused`` with the firmware's status where it refuses."""
        place = None if argument is None else Pinned(argument)
        address = 0 if place is None else place.address
        packed = bytearray(s.SEV_CMD.pack(number, address, 0, self._device.fileno()))
        try:
            self._vm.descriptor.ioctl(n.MEMORY_ENCRYPT_OP, packed)
        except KvmError as error:
            status = s.SEV_CMD.unpack(packed)[2]
            if status:
                raise SevRefused(f"KVM_SEV command {number}", SevStatus.of(status)) from error
            raise

    def close(self) -> None:
        """Close ``/dev/sev``."""
        self._device.close()

    def _host(self, address: int, size: int) -> int:
        """Give where the host has a piece of the guest's memory."""
        region = self._vm.region_at(address, size)
        return region.mapping.pinned.address + address - region.address


def open_device(path: str = DEVICE) -> Descriptor:
    """Open the secure processor; raise ``KvmUnavailable`` where there is none."""
    try:
        return Descriptor(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        hint = "SEV needs an AMD EPYC processor with SEV enabled in firmware and kernel"
        raise KvmUnavailable(f"{path} cannot be opened: {error.strerror}", hint=hint) from None


def _pinned(data: bytes | None) -> Pinned | None:
    return None if data is None else Pinned(bytearray(data))


def _pointer(place: Pinned | None) -> tuple[int, int]:
    return (0, 0) if place is None else (place.address, place.size)
