"""What the states of a launch have in common: a step leaves the state behind for good."""

from __future__ import annotations

from typing import Generic, TypeVar

from ketuvim.errors import Misuse
from ketuvim.vm import VirtualMachine

Commands = TypeVar("Commands")


class LaunchState(Generic[Commands]):
    """One state of a machine's launch, and who carries out its steps."""

    __slots__ = ("_commands", "_left", "_vm")

    def __init__(self, vm: VirtualMachine, commands: Commands) -> None:
        self._vm = vm
        self._commands = commands
        self._left = False

    def _check(self) -> None:
        """Refuse a state that was left."""
        if self._left:
            raise Misuse(f"the launch is past the state {type(self).__name__}")

    def _leave(self) -> None:
        """Leave the state; what comes next may fail, and the launch is over then."""
        self._check()
        self._left = True
