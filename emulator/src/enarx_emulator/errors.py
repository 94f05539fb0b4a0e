"""What goes wrong on an emulated platform."""

from __future__ import annotations

from enum import IntEnum

from enarx.tcb.errors import EnarxError


class EmulatorError(EnarxError):
    """The emulator was misused, or cannot go on."""


class FirmwareError(EmulatorError):
    """The firmware refused a command: ``status`` is the vendor's own code, by the vendor's name."""

    def __init__(self, status: IntEnum, message: str, *, hint: str = "") -> None:
        super().__init__(f"{status.name}: {message}", hint=hint)
        self.status = status


class Refused(EmulatorError):
    """A platform process refused a command; ``status`` and ``name`` are its firmware's code, 0 and empty if it was not
    the firmware that refused.
    """

    def __init__(self, message: str, *, status: int = 0, name: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.name = name
