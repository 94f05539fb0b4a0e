"""What can go wrong, by who must act.

``KvmUnavailable`` the machine, ``KvmError`` the kernel's refusal, ``Misuse`` the caller, ``GuestFailed`` the guest.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ketuvim.exits import Failure
    from ketuvim.registers import Registers, SpecialRegisters


class KetuvimError(Exception):
    """The root of every error that this library raises on purpose; ``hint`` says what would help, or is empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class KvmUnavailable(KetuvimError):
    """There is no usable KVM here, or not the feature of it that was asked for."""


class KvmError(KetuvimError):
    """The kernel refused a request; ``errno`` and ``request`` say which and why."""

    def __init__(self, request: str, errno: int, *, hint: str = "") -> None:
        super().__init__(f"{request} failed: {os.strerror(errno)} (errno {errno})", hint=hint)
        self.request = request
        self.errno = errno


class Misuse(KetuvimError):
    """The call does not fit the state of the object: closed, running elsewhere, out of order, out of range."""


class GuestFailed(KetuvimError):
    """The guest cannot go on; the exit and the registers at that moment are in the error."""

    def __init__(
        self,
        message: str,
        *,
        exit_: Failure | None,
        registers: Registers,
        special_registers: SpecialRegisters,
    ) -> None:
        super().__init__(f"{message}, rip {registers.rip:#x}")
        self.exit = exit_
        self.registers = registers
        self.special_registers = special_registers


class TripleFault(GuestFailed):
    """The guest shut down: an exception while it handled an exception of its exception handler."""


class EmulationFailed(GuestFailed):
    """KVM could not go on by itself, mostly because of an instruction that it cannot interpret."""


class EntryFailed(GuestFailed):
    """The processor refused to enter the guest: its registers hold a state that cannot be."""


class UnknownExit(GuestFailed):
    """The guest stopped for a reason that this library has no name for."""


class MemoryGone(GuestFailed):
    """The guest used memory that its host cannot give: beyond the end of a file, or unmapped behind our back."""


class Unclaimed(GuestFailed):
    """The guest used a port or an address that no memory and no device answers to."""


class GuestStuck(GuestFailed):
    """The guest did not come to an end in the time that it had."""
