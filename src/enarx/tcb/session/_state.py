"""The life of a keep: one table of states and moves, for both roles; what is not in it ends the keep."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.session._audit import AuditLog
from enarx.tcb.wire import Value


class State(StrEnum):
    """Where a keep is in its life (docs/spec/session.md, 2)."""

    INITIAL = "initial"
    EMPTY = "empty"
    ATTESTED = "attested"
    PROVISIONED = "provisioned"
    LOCKED = "locked"
    RUNNING = "running"
    EXITED = "exited"


class Move(StrEnum):
    """What takes a keep from one state to another."""

    BOOT = "boot"
    ATTEST = "attest"
    """Evidence of the empty keep was given (keep) or accepted (tenant)."""
    DELIVER = "deliver"
    """Workload, configuration and secrets are inside."""
    LOCK = "lock"
    """Digests are computed; evidence that names them was given (keep) or accepted (tenant)."""
    RUN = "run"
    END = "end"
    """The workload has ended."""
    FAIL = "fail"
    """Anything went wrong: the keep ends without having run, or while it runs."""


TRANSITIONS: Final[Mapping[tuple[State, Move], State]] = {
    (State.INITIAL, Move.BOOT): State.EMPTY,
    (State.EMPTY, Move.ATTEST): State.ATTESTED,
    (State.ATTESTED, Move.ATTEST): State.ATTESTED,  # somebody else asks: until the delivery, anybody may
    (State.ATTESTED, Move.DELIVER): State.PROVISIONED,
    (State.PROVISIONED, Move.LOCK): State.LOCKED,
    (State.LOCKED, Move.RUN): State.RUNNING,
    (State.RUNNING, Move.END): State.EXITED,
    (State.INITIAL, Move.FAIL): State.EXITED,
    (State.EMPTY, Move.FAIL): State.EXITED,
    (State.ATTESTED, Move.FAIL): State.EXITED,
    (State.PROVISIONED, Move.FAIL): State.EXITED,
    (State.LOCKED, Move.FAIL): State.EXITED,
    (State.RUNNING, Move.FAIL): State.EXITED,
}


class Life:
    """One keep's way through the table; every move leaves an audit record."""

    def __init__(self, audit: AuditLog) -> None:
        self.state = State.INITIAL
        self.audit = audit

    def move(self, move: Move, **facts: Value) -> None:
        """Go on, and record it with its ``facts``. Raises ``ProtocolViolation`` when the table has no such way."""
        after = TRANSITIONS.get((self.state, move))
        if after is None:
            raise ProtocolViolation(f"{move.value} is not possible in state {self.state.value}")
        self.state = after
        self.audit.append(f"life.{move.value}", {"state": after.value, **facts})

    def require(self, *states: State) -> None:
        """Raise ``ProtocolViolation`` unless the keep is in one of ``states``."""
        if self.state not in states:
            allowed = " or ".join(state.value for state in states)
            raise ProtocolViolation(f"expected state {allowed}, the keep is {self.state.value}")
