"""The host's half, without I/O: what a keep may ask for, and when (docs/spec/sallyport.md, 4)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, Literal

from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.record import record
from enarx.tcb.sallyport import limits
from enarx.tcb.sallyport.items import (
    Admit,
    Changed,
    Compiled,
    Connect,
    Deliver,
    Exited,
    Item,
    Listen,
    Progress,
    Ready,
    Reason,
    Refused,
)


class Scope(Enum):
    """What is not a list of endpoints."""

    ANY = auto()


Endpoints = frozenset[tuple[str, int]] | Literal[Scope.ANY]
"""Addresses or host names with ports, spelt as in Enarx.toml, or any at all."""


@record
class Permissions:
    """What the owner of the machine allows a keep to open; nothing is allowed by default."""

    listen: Endpoints
    connect: Endpoints


class State(Enum):
    """How far the keep has come."""

    BOOTING = auto()
    READY = auto()
    RUNNING = auto()
    EXITED = auto()


_NEXT: Final[Mapping[tuple[State, type[Item]], State]] = {
    (State.BOOTING, Progress): State.BOOTING,
    (State.BOOTING, Ready): State.READY,
    (State.BOOTING, Exited): State.EXITED,  # it could not lock itself down
    (State.READY, Progress): State.READY,
    (State.READY, Deliver): State.RUNNING,  # this and the next are what the host sends
    (State.READY, Admit): State.RUNNING,
    (State.RUNNING, Progress): State.RUNNING,
    (State.RUNNING, Listen): State.RUNNING,
    (State.RUNNING, Connect): State.RUNNING,
    (State.RUNNING, Compiled): State.RUNNING,
    (State.RUNNING, Changed): State.RUNNING,
    (State.RUNNING, Exited): State.EXITED,
}


class Host:
    """Check what one keep says. After ``ProtocolViolation`` the keep must be ended.

    ``max_bytes`` bounds the raw bytes that the keep may hand out over its whole life.
    """

    def __init__(self, permissions: Permissions, *, max_bytes: int = limits.MAX_BLOB_BYTES) -> None:
        self.state = State.BOOTING
        self._permissions = permissions
        self._room = max_bytes
        self._last_request = 0
        self._requests = limits.MAX_REQUESTS
        self._reports = limits.MAX_PROGRESS
        self._compiled = False

    def deliver(self, item: Deliver | Admit) -> Deliver | Admit:
        """Note that ``item`` is being sent; the keep must be ready for it, and gets it once."""
        self._advance(item)
        return item

    def received(self, item: Item, descriptors: int) -> Item:
        """Check ``item`` against the state and the owner's limits (4.4)."""
        if descriptors:
            raise ProtocolViolation(f"keep sent {descriptors} descriptors, which it never may")
        if isinstance(item, Deliver | Admit):
            raise ProtocolViolation(f"keep sent {type(item).__name__}, which only the host may")
        self._advance(item)
        if isinstance(item, Listen | Connect):
            if item.request <= self._last_request:
                raise ProtocolViolation(f"keep used request {item.request} after {self._last_request}")
            self._last_request = item.request
        elif isinstance(item, Compiled | Changed):
            self._spend(item)
        elif isinstance(item, Progress):
            self._reports -= 1
            if self._reports < 0:
                raise ProtocolViolation(f"keep sent more than {limits.MAX_PROGRESS} progress reports")
        return item

    def refusal(self, request: Listen | Connect) -> Refused | None:
        """Give the answer to a request that is not allowed, or None for one that is."""
        listen = isinstance(request, Listen)
        allowed = self._permissions.listen if listen else self._permissions.connect
        wanted = (request.address if isinstance(request, Listen) else request.host, request.port)
        self._requests -= 1
        if self._requests < 0:
            detail = f"a keep may make {limits.MAX_REQUESTS} requests"
            return Refused(request=request.request, reason=Reason.LIMIT, detail=detail)
        if allowed is Scope.ANY or wanted in allowed:
            return None
        detail = f"the owner of the machine does not allow to {'listen on' if listen else 'connect to'} it"
        return Refused(request=request.request, reason=Reason.NOT_PERMITTED, detail=detail)

    def _advance(self, item: Item) -> None:
        try:
            self.state = _NEXT[self.state, type(item)]
        except KeyError:
            raise ProtocolViolation(f"{type(item).__name__} in state {self.state.name}") from None

    def _spend(self, item: Compiled | Changed) -> None:
        if isinstance(item, Compiled):
            if self._compiled:
                raise ProtocolViolation("keep sent compiled code twice")
            self._compiled = True
        if item.size > self._room:
            raise ProtocolViolation(f"keep sent {item.size} raw bytes, {self._room} are left to it")
        self._room -= item.size
