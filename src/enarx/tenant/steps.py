"""What happens in a deployment, step by step: who says or does what, and which facts decided it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Who(StrEnum):
    """Whose word it is."""

    TENANT = "tenant"
    """Ours: what we checked and decided."""
    HOST = "host"
    """Not trusted."""
    KEEP = "keep"
    """Trusted as far as its evidence was accepted before."""


class What(StrEnum):
    """The kinds of steps, in the order in which they come."""

    ASKED = "asked"
    """A keep was asked for that takes a while to launch."""
    CREATED = "created"
    """The host says that it launched a keep."""
    ENDORSED = "endorsed"
    """Collateral is here; nothing of it is verified."""
    RELEASED = "released"
    """The launch of a pre-boot TEE was accepted, and its secret given."""
    CONNECTED = "connected"
    """TLS with something at the other end."""
    ACCEPTED = "accepted"
    """Evidence was verified, belongs to this session, and the policy accepts it."""
    REJECTED = "rejected"
    DELIVERED = "delivered"
    """Workload, configuration and secrets have left, for the accepted keep alone."""
    STARTED = "started"
    PROGRESS = "progress"
    FORGOTTEN = "forgotten"
    """The keep had to forget output that nobody fetched."""
    ENDED = "ended"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. ``facts`` are short texts, digests in hex; no secret is ever among them."""

    who: Who
    what: What
    text: str
    facts: Mapping[str, str] = field(default_factory=dict)


Observer = Callable[[Step], None]


def nobody(step: Step) -> None:
    """Watch nothing."""
