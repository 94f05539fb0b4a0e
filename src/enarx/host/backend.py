"""What a TEE contributes outside: whether it is there, what its vendor says of it, and how a keep is launched on it.

Backends are entry points of the group ``enarx.backends``: a name, and a callable that gets what stands behind ``=`` in
``--backend NAME=ARGUMENT``. Installed is available, never enabled: the owner of a machine names those to use. Nothing
here is trusted by a tenant.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, Protocol

from enarx.tcb.errors import Unavailable

ENTRY_POINTS: Final = "enarx.backends"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that a backend needs."""

    name: str
    passed: bool
    detail: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Whether a backend can launch keeps now, and why."""

    ready: bool
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsements:
    """What the vendor says of this machine, passed on as it came; a tenant verifies it or gets it elsewhere."""

    certificates: tuple[bytes, ...] = ()
    """DER."""
    crls: tuple[bytes, ...] = ()
    documents: tuple[tuple[str, bytes], ...] = ()
    """By kind (``enarx.attest.collateral.Kind``)."""
    roots: tuple[bytes, ...] = ()
    """PEM. Nobody trusts them for standing here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """What is launched: the archive of a keep image, and what a pre-boot TEE gets from the tenant (CBOR, opaque)."""

    image: Path
    tenant: bytes = b""


class Launched(Protocol):
    """One keep on the platform."""

    @property
    def pid(self) -> int | None:
        """Its process, where it is one of this machine that the host may watch."""

    @property
    def launch(self) -> bytes:
        """What the tenant of a pre-boot TEE must see before it gives its secret (CBOR, opaque); else nothing."""

    @property
    def channel(self) -> socket.socket | None:
        """The host's end of the keep's channel; None as long as a pre-boot TEE waits for its secret.

        The keep is ready: what it sends first has been read.
        """

    def secret(self, packet: bytes) -> None:
        """Hand over the tenant's packet to a pre-boot TEE, and start the keep. Raises ``EnarxError``."""

    def stop(self) -> None:
        """End it and give back what it holds; safe to call twice."""


class Backend(Protocol):
    """One way to launch keeps. Safe for several threads."""

    @property
    def name(self) -> str:
        """How the owner of the machine named it."""

    @property
    def tee(self) -> str:
        """Which TEE: the name in policies and evidence (``snp``, ``sgx``, …)."""

    @property
    def emulated(self) -> bool:
        """Whether it protects nothing."""

    def support(self) -> Support:
        """Look whether keeps can be launched."""

    def endorsements(self) -> Endorsements:
        """Give what a tenant needs to verify evidence of this machine. Raises ``EnarxError``."""

    def prepare(self, image: Path) -> None:
        """Load an image, so that its launches do not wait. Raises ``EnarxError``."""

    def launch(self, request: LaunchRequest) -> Launched:
        """Launch a keep. Raises ``EnarxError``."""

    def close(self) -> None:
        """Let go of the platform; keeps end."""


def open_backend(text: str) -> Backend:
    """Open the backend that ``NAME`` or ``NAME=ARGUMENT`` names. Raises ``Unavailable``."""
    name, _, argument = text.partition("=")
    offered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in offered:
        known = ", ".join(sorted(offered)) or "none"
        raise Unavailable(f"no backend is called {name!r}", hint=f"installed are: {known}")
    make: Callable[[str], Backend] = offered[name].load()
    return make(argument)
