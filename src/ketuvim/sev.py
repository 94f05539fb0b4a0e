"""The launch of SEV and SEV-ES guests, step by step: each state is a type, and only its steps are its methods.

``Launch`` (initialised), ``start``, ``Started``, ``measure``, ``Measured``, ``finish``, ``Launched``. A step out of
order is no method of the state, so it neither type-checks nor runs; a state that was left refuses everything.
Structures are those of the SEV API (AMD publication 55766); their contents are the business of firmware and tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Final, NewType, Self

from ketuvim.errors import Misuse
from ketuvim.sev_commands import SevCommands
from ketuvim.typestate import LaunchState
from ketuvim.vm import VirtualMachine

Handle = NewType("Handle", int)
"""The firmware's number of a guest."""

MEASURE_BYTES: Final = 32
NONCE_BYTES: Final = 16
HEADER_BYTES: Final = 52
SESSION_BYTES: Final = 128
CERTIFICATE_BYTES: Final = 2084
VMSA_BYTES: Final = 4096
_BLOCK: Final = 16


class PolicyFlags(IntFlag):
    """What the tenant allows the host to do with the guest (55766, table 2)."""

    NONE = 0
    NODBG = 1 << 0
    NOKS = 1 << 1
    ES = 1 << 2
    NOSEND = 1 << 3
    DOMAIN = 1 << 4
    SEV = 1 << 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The guest's policy: flags, and the oldest API of firmware that may run it."""

    flags: PolicyFlags = PolicyFlags.NODBG
    api_major: int = 0
    api_minor: int = 0

    def pack(self) -> bytes:
        """Write the four bytes of POLICY."""
        return self.flags.to_bytes(2, "little") + bytes((self.api_major, self.api_minor))


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the tenant sends to begin: policy, Diffie-Hellman certificate (2084 bytes), session (128 bytes).

    Without certificate and session nobody shares a secret with the guest.
    """

    policy: Policy
    certificate: bytes | None = None
    session: bytes | None = None

    def __post_init__(self) -> None:
        _length("certificate", self.certificate, CERTIFICATE_BYTES)
        _length("session", self.session, SESSION_BYTES)
        if (self.certificate is None) != (self.session is None):
            raise Misuse("certificate and session come together or not at all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What the firmware says about the launch: MEASURE (32 bytes) and MNONCE (16 bytes)."""

    measure: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A packet from the tenant that only this launch can open: header (52 bytes) and encrypted payload."""

    header: bytes
    payload: bytes

    def __post_init__(self) -> None:
        _length("header", self.header, HEADER_BYTES)
        if not self.payload or len(self.payload) % _BLOCK:
            raise Misuse(f"the payload has a multiple of {_BLOCK} bytes, not {len(self.payload)}")


class Launch(LaunchState[SevCommands]):
    """A machine for which SEV is initialised, with all its memory in place."""

    __slots__ = ()

    @classmethod
    def new(cls, vm: VirtualMachine, commands: SevCommands, *, es: bool = False) -> Self:
        """Initialise SEV, or SEV-ES, for a machine; ``commands`` says which firmware does it."""
        commands.init(es=es)
        return cls(vm, commands)

    def start(self, start: Start) -> Started:
        """LAUNCH_START: the firmware makes the guest's key and opens the tenant's session."""
        self._leave()
        handle = self._commands.launch_start(start.policy.pack(), start.certificate, start.session)
        return Started(self._vm, self._commands, Handle(handle))


class Started(LaunchState[SevCommands]):
    """The guest has a key; its first contents are being measured and encrypted."""

    __slots__ = ("handle",)

    def __init__(self, vm: VirtualMachine, commands: SevCommands, handle: Handle) -> None:
        super().__init__(vm, commands)
        self.handle = handle

    def update_data(self, address: int, size: int) -> None:
        """LAUNCH_UPDATE_DATA: measure and encrypt memory of the guest that was written before."""
        self._check()
        if address % _BLOCK or size % _BLOCK or size <= 0:
            raise Misuse(f"memory is measured in blocks of {_BLOCK} bytes, not {size} bytes at {address:#x}")
        self._commands.launch_update_data(self.handle, address, size)

    def update_vmsa(self) -> None:
        """LAUNCH_UPDATE_VMSA: measure and encrypt the registers of all processors (SEV-ES)."""
        self._check()
        self._commands.launch_update_vmsa(self.handle)

    def measure(self) -> Measured:
        """LAUNCH_MEASURE: ask for the measurement; nothing can be added to it after that."""
        self._leave()
        answer = self._commands.launch_measure(self.handle)
        if len(answer) != MEASURE_BYTES + NONCE_BYTES:
            raise Misuse(f"the firmware gave a measurement of {len(answer)} bytes")
        measurement = Measurement(measure=answer[:MEASURE_BYTES], nonce=answer[MEASURE_BYTES:])
        return Measured(self._vm, self._commands, self.handle, measurement)


class Measured(LaunchState[SevCommands]):
    """The tenant can judge the measurement, and send secrets to the guest that has it."""

    __slots__ = ("handle", "measurement")

    def __init__(
        self, vm: VirtualMachine, commands: SevCommands, handle: Handle, measurement: Measurement
    ) -> None:
        super().__init__(vm, commands)
        self.handle = handle
        self.measurement = measurement

    def inject(self, secret: Secret, address: int) -> None:
        """LAUNCH_SECRET: decrypt a packet of the tenant into the guest's memory."""
        self._check()
        if address % _BLOCK:
            raise Misuse(f"a secret lies at a multiple of {_BLOCK}, not at {address:#x}")
        self._commands.launch_secret(self.handle, secret.header, secret.payload, address)

    def finish(self) -> Launched:
        """LAUNCH_FINISH: the guest may run."""
        self._leave()
        self._commands.launch_finish(self.handle)
        return Launched(handle=self.handle, vm=self._vm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A machine that was launched, under the firmware's number."""

    handle: Handle
    vm: VirtualMachine


def _length(name: str, data: bytes | None, expected: int) -> None:
    if data is not None and len(data) != expected:
        raise Misuse(f"{name} has {expected} bytes, not {len(data)}")
