"""The interface between a platform process and the firmware that it runs. No I/O: a machine keeps nothing on disk
itself, it is given stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from enarx.tcb.wire import Value
from enarx_emulator.seed import Seed
from enarx_emulator.tree import Tree


class Store(Protocol):
    """Named bytes that outlive the process; names are plain file names."""

    def get(self, name: str) -> bytes | None:
        """Give what was put last under this name, or ``None``."""

    def put(self, name: str, data: bytes) -> None:
        """Keep it: when this returns it survives the end of the process."""

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Give what has this name; when nothing has, make and keep it, while no other process does."""

    def names(self) -> list[str]:
        """Give every name that has something, sorted."""


class Guest(Protocol):
    """One measured guest whose launch is finished."""

    def tree(self) -> Tree:
        """The files that Linux would show inside this guest; the same object every time."""


class Machine(Protocol):
    """One emulated machine with one kind of TEE. Without I/O; one thread uses it."""

    @property
    def kind(self) -> str:
        """Which of ``kinds.KINDS``."""

    def command(self, name: str, arguments: Mapping[str, object]) -> Mapping[str, Value]:
        """Run one of the host's firmware commands. Raises ``FirmwareError``, ``Malformed`` for wrong arguments.

        Every machine has ``info`` (kind, product, emulated, platform_id, roots in PEM, tcb, firmware, and what its
        vendor adds), ``launch`` (an image, and what the TEE needs beside; gives guest and measurement) and ``stop``.
        Those that are attested before a guest runs (SEV, SEV-ES, PEF) have ``measure``, ``secret`` and ``finish``.
        """

    def guest(self, handle: int) -> Guest:
        """Give a launched guest. Raises ``FirmwareError`` unless its launch is finished."""

    def save(self) -> Mapping[str, Value]:
        """Give what the machine must have again to be the same machine; guests are not part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a machine is made from: each TEE's ``machine`` module has ``make(setup) -> Machine``."""

    kind: str
    product: str | None = None
    """``milan``, ``genoa``, … as the vendor names it; ``None``: the usual one of this kind."""
    seed: Seed
    vendor: Store
    """The vendor's own secrets, which are not the machine's: roots and authorities, made when first needed because
    RSA keys take longer than a platform may take to start."""
    saved: Mapping[str, Value] | None = None
    """What ``save`` gave, when the machine existed before."""
    faults: frozenset[str] = field(default_factory=frozenset)
