"""Who carries out the commands of an SNP launch: the processor through KVM, or a firmware as an object."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Protocol

from ketuvim import _structs as s
from ketuvim._ioctl import Descriptor, Pinned
from ketuvim.capabilities import VmType
from ketuvim.errors import Misuse
from ketuvim.memory import PAGE
from ketuvim.sev_commands import (
    DEVICE,
    INIT2,
    SNP_LAUNCH_FINISH,
    SNP_LAUNCH_START,
    SNP_LAUNCH_UPDATE,
    KvmCommands,
)
from ketuvim.vm import VirtualMachine

ID_BLOCK_BYTES: Final = 96
ID_AUTH_BYTES: Final = 4096


class PageType(IntEnum):
    """How a page gets into the guest (56860, SNP_LAUNCH_UPDATE)."""

    NORMAL = 1
    ZERO = 3
    UNMEASURED = 4
    SECRETS = 5
    CPUID = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class IdBlock:
    """The tenant's expected identity (96 bytes) with its signature (4096 bytes)."""

    block: bytes
    auth: bytes
    author_key: bool = False

    def __post_init__(self) -> None:
        if len(self.block) != ID_BLOCK_BYTES or len(self.auth) != ID_AUTH_BYTES:
            raise Misuse(
                f"an identity has {ID_BLOCK_BYTES} and {ID_AUTH_BYTES} bytes, "
                f"not {len(self.block)} and {len(self.auth)}"
            )


class SnpCommands(Protocol):
    """Who carries out the commands: the processor through KVM, or firmware in the form of an object."""

    def init(self) -> None: ...
    def launch_start(self, policy: int, gosvw: bytes) -> None: ...
    def launch_update(self, address: int, data: bytearray, page_type: PageType) -> None: ...
    def launch_finish(self, host_data: bytes, identity: IdBlock | None) -> None: ...


class KvmSnpCommands:
    """The processor's own firmware, through ``/dev/sev`` and ``KVM_MEMORY_ENCRYPT_OP``."""

    __slots__ = ("_commands", "_vm")

    def __init__(self, vm: VirtualMachine, *, device: str | Descriptor = DEVICE) -> None:
        self._vm = vm
        self._commands = KvmCommands(vm, device=device)

    def init(self) -> None:
        """Let KVM prepare the machine."""
        if self._vm.kind is not VmType.SNP:
            raise Misuse(f"the machine is of the kind {self._vm.kind.name}, expected SNP")
        self._commands.command(INIT2, bytearray(s.SEV_INIT.size))

    def launch_start(self, policy: int, gosvw: bytes) -> None:
        """SNP_LAUNCH_START."""
        self._commands.command(SNP_LAUNCH_START, bytearray(s.SNP_LAUNCH_START.pack(policy, gosvw, 0)))

    def launch_update(self, address: int, data: bytearray, page_type: PageType) -> None:
        """SNP_LAUNCH_UPDATE; KVM may do it in several goes, and says how much is left."""
        place = Pinned(data)
        at, source, left = address, place.address, place.size
        while left:
            packed = bytearray(s.SNP_LAUNCH_UPDATE.pack(at // PAGE, source, left, page_type, 0))
            self._commands.command(SNP_LAUNCH_UPDATE, packed)
            page, source, remaining, _, _ = s.SNP_LAUNCH_UPDATE.unpack(packed)
            if remaining >= left:
                raise Misuse(f"KVM took nothing of {left} bytes at {at:#x}")
            at, left = page * PAGE, remaining

    def launch_finish(self, host_data: bytes, identity: IdBlock | None) -> None:
        """SNP_LAUNCH_FINISH."""
        block = auth = None
        if identity is not None:
            block, auth = Pinned(bytearray(identity.block)), Pinned(bytearray(identity.auth))
        packed = s.SNP_LAUNCH_FINISH.pack(
            0 if block is None else block.address,
            0 if auth is None else auth.address,
            identity is not None,
            identity is not None and identity.author_key,
            0,
            host_data,
            0,
        )
        self._commands.command(SNP_LAUNCH_FINISH, bytearray(packed))


class SnpFirmware(Protocol):
    """A secure processor's firmware as a Python object, whose guests have memory of its own (see ``SevFirmware``)."""

    def free_asid(self) -> int: ...
    def gctx_create(self) -> int: ...
    def launch_start(self, handle: int, policy: int, *, gosvw: bytes = ...) -> None: ...
    def activate(self, handle: int, asid: int) -> None: ...
    def launch_update(self, handle: int, page_type: int, gpa: int, data: bytes) -> None: ...
    def launch_finish(
        self,
        handle: int,
        *,
        id_block: bytes | None = None,
        id_auth: bytes | None = None,
        auth_key_en: bool = False,
        host_data: bytes = ...,
    ) -> None: ...
    def running(self, handle: int) -> Any: ...


class PlainSnpCommands:
    """A launch by ``firmware`` of a machine whose memory nobody encrypts: for emulated secure processors.

    ``handle`` is the firmware's number of the guest. What the firmware made of the pages (it fills some of them) is
    copied into the machine's memory when the launch is finished.
    """

    __slots__ = ("_firmware", "_pages", "_vm", "handle")

    def __init__(self, vm: VirtualMachine, firmware: SnpFirmware) -> None:
        self._vm = vm
        self._firmware = firmware
        self._pages: list[int] = []
        self.handle = 0

    def init(self) -> None:
        """Make the guest's context; whoever owns the platform has initialised it."""
        self.handle = self._firmware.gctx_create()

    def launch_start(self, policy: int, gosvw: bytes) -> None:
        """Begin, and give the guest an address space identifier, as KVM does."""
        self._firmware.launch_start(self.handle, policy, gosvw=gosvw)
        self._firmware.activate(self.handle, self._firmware.free_asid())

    def launch_update(self, address: int, data: bytearray, page_type: PageType) -> None:
        """Let the firmware measure page by page."""
        self._vm.region_at(address, len(data))
        for at in range(0, len(data), PAGE):
            self._firmware.launch_update(self.handle, page_type, address + at, bytes(data[at : at + PAGE]))
            self._pages.append(address + at)

    def launch_finish(self, host_data: bytes, identity: IdBlock | None) -> None:
        """Finish, and show the guest its pages."""
        self._firmware.launch_finish(
            self.handle,
            id_block=None if identity is None else identity.block,
            id_auth=None if identity is None else identity.auth,
            auth_key_en=identity is not None and identity.author_key,
            host_data=host_data,
        )
        memory = self._firmware.running(self.handle).memory
        for address in self._pages:
            self._vm.write(address, bytes(memory.read(address, PAGE)))
