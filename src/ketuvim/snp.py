"""The launch of SEV-SNP guests, step by step: each state is a type, as in ``ketuvim.sev`` (AMD publication 56860).

``SnpLaunch`` (initialised) → ``start`` → ``SnpStarted`` → ``finish`` → ``SnpLaunched``. The guest's memory is a
``GuestMemfd``, made private with ``VirtualMachine.set_private`` before ``update`` fills it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from ketuvim.errors import Misuse
from ketuvim.memory import PAGE
from ketuvim.snp_commands import IdBlock, PageType, SnpCommands
from ketuvim.typestate import LaunchState
from ketuvim.vm import VirtualMachine

HOST_DATA_BYTES: Final = 32
GOSVW_BYTES: Final = 16
POLICY_SMT: Final = 1 << 16
POLICY_RESERVED: Final = 1 << 17
"""The bit of a guest policy that is always one."""
POLICY_MIGRATE: Final = 1 << 18
POLICY_DEBUG: Final = 1 << 19


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
