"""The launch of SEV-SNP guests, step by step: each state is a type, as in ``ketuvim.sev`` (AMD publication 56860).

``SnpLaunch`` (initialised) → ``start`` → ``SnpStarted`` → ``finish`` → ``SnpLaunched``. The guest's memory is a
``GuestMemfd``, made private with ``VirtualMachine.set_private`` before ``update`` fills it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol, Self

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
from ketuvim.typestate import LaunchState
from ketuvim.vm import VirtualMachine

HOST_DATA_BYTES: Final = 32
ID_BLOCK_BYTES: Final = 96
ID_AUTH_BYTES: Final = 4096
GOSVW_BYTES: Final = 16
POLICY_SMT: Final = 1 << 16
POLICY_RESERVED: Final = 1 << 17
"""The bit of a guest policy that is always one."""
POLICY_MIGRATE: Final = 1 << 18
POLICY_DEBUG: Final = 1 << 19


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


class SnpLaunch(LaunchState[SnpCommands]):
    """A machine for which SEV-SNP is initialised."""

    __slots__ = ()

    @classmethod
    def new(cls, vm: VirtualMachine, commands: SnpCommands) -> Self:
        """Initialise SEV-SNP for a machine."""
        commands.init()
        return cls(vm, commands)

    def start(self, policy: int, *, gosvw: bytes = bytes(GOSVW_BYTES)) -> SnpStarted:
        """SNP_LAUNCH_START under a guest policy; ``gosvw`` (16 bytes) are workarounds the guest may see."""
        if not policy & POLICY_RESERVED or len(gosvw) != GOSVW_BYTES:
            raise Misuse(f"bit 17 of the policy {policy:#x} is one, and gosvw has {GOSVW_BYTES} bytes")
        self._leave()
        self._commands.launch_start(policy, gosvw)
        return SnpStarted(self._vm, self._commands)


class SnpStarted(LaunchState[SnpCommands]):
    """The guest's first contents are being measured and encrypted."""

    __slots__ = ()

    def update(self, address: int, data: bytes, page_type: PageType = PageType.NORMAL) -> None:
        """SNP_LAUNCH_UPDATE: whole pages at a physical address."""
        self._check()
        if address % PAGE or not data or len(data) % PAGE:
            raise Misuse(
                f"memory is measured in pages of {PAGE} bytes, not {len(data)} bytes at {address:#x}"
            )
        self._commands.launch_update(address, bytearray(data), page_type)

    def finish(
        self, *, host_data: bytes = bytes(HOST_DATA_BYTES), identity: IdBlock | None = None
    ) -> SnpLaunched:
        """SNP_LAUNCH_FINISH: the guest may run; ``host_data`` (32 bytes) will be in its reports."""
        if len(host_data) != HOST_DATA_BYTES:
            raise Misuse(f"host_data has {HOST_DATA_BYTES} bytes, not {len(host_data)}")
        self._leave()
        self._commands.launch_finish(host_data, identity)
        return SnpLaunched(vm=self._vm)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpLaunched:
    """A machine that was launched."""

    vm: VirtualMachine
