"""What a client and a host agent say to each other over HTTP. Nothing here is trusted by a tenant.

Bytes are base64 in JSON. The channel to a keep is an upgrade of a request to ``/v1/keeps/{id}/channel``; what flows
after it is TLS that ends in the keep.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

PROTOCOL: Final = "enarx-session/1"
"""Token of the upgrade (RFC 9110, section 7.8)."""
ANY: Final = "any"
MAX_BODY_BYTES: Final = 2 << 20


class KeepState(Enum):
    """What the host knows about a keep."""

    AWAITING_SECRET = "awaiting-secret"  # noqa: S105 (a state)
    """Launched and measured on a TEE that attests before boot; its tenant must see the measurement first."""
    READY = "ready"
    """It runs; what it runs the host does not know."""
    ENDED = "ended"


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Fact(_Strict, frozen=True, kw_only=True):
    """One thing that a backend needs."""

    name: str
    passed: bool
    detail: str
    advice: str = ""


class Backend(_Strict, frozen=True, kw_only=True):
    """One way in which this machine launches keeps."""

    name: str
    tee: str
    emulated: bool
    ready: bool
    facts: list[Fact]


class Info(_Strict, frozen=True, kw_only=True):
    """What the machine offers."""

    version: str
    image: str
    """SHA-256 of the manifest of the keep image, in hex."""
    backends: list[Backend]
    max_keeps: int
    keeps: int


class HostImage(_Strict, frozen=True, kw_only=True):
    """What the machine launches: by it a tenant who finds another measurement can say what differs."""

    manifest: str
    cmdline: str = ""
    """Of an image of VM keeps; empty for process keeps."""


class NewKeep(_Strict, frozen=True, kw_only=True):
    """Ask for a keep. ``tenant`` is what a pre-boot TEE gets from its tenant."""

    tee: str = ANY
    tenant: bytes = b""


class KeepInfo(_Strict, frozen=True, kw_only=True):
    """One keep. ``launch`` is what the tenant of a pre-boot TEE must see before it gives its secret."""

    id: str
    tee: str
    backend: str
    emulated: bool
    state: KeepState
    created: str
    """RFC 3339, by the host's clock."""
    ended: str = ""
    """Why it ended, as far as the host knows."""
    launch: bytes = b""


class KeepList(_Strict, frozen=True, kw_only=True):
    """All keeps of the asker."""

    keeps: list[KeepInfo]


class Secret(_Strict, frozen=True, kw_only=True):
    """The packet of a pre-boot TEE's tenant, which only the measured guest can open."""

    packet: bytes


class Health(_Strict, frozen=True, kw_only=True):
    """The agent is up. Whether it can launch keeps is in ``Info``."""

    status: str = "ok"


class Document(_Strict, frozen=True, kw_only=True):
    """One item of collateral that is neither certificate nor revocation list."""

    kind: str
    data: bytes


class Platform(_Strict, frozen=True, kw_only=True):
    """What the vendor says of this machine. ``roots`` are a convenience and no reason to trust them."""

    tee: str
    emulated: bool
    certificates: list[bytes]
    crls: list[bytes]
    documents: list[Document]
    roots: list[bytes]
