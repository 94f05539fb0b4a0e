"""The audit record: what happened and what was decided, each record chained to the one before by its hash."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from enarx.tcb.errors import Malformed
from enarx.tcb.record import record
from enarx.tcb.wire import Value, encode

LABEL: Final = "enarx-audit/1"
START: Final = bytes(32)
"""What the first record names as its predecessor."""
MAX_RECORDS: Final = 4096
MAX_CHALLENGES: Final = MAX_RECORDS - 16
"""A keep with so many records answers nobody new: what is left is for its own life, up to its end."""


@record
class AuditRecord:
    """One entry; ``facts`` never hold a secret. There is no time in it: who keeps a log adds his own."""

    index: int
    previous: bytes
    event: str
    facts: Value

    def digest(self) -> bytes:
        """SHA-256 over all fields: what the next record names."""
        return sha256(encode([LABEL, *self.fields()])).digest()

    def fields(self) -> list[Value]:
        """Give the record as a message holds it."""
        return [self.index, self.previous, self.event, self.facts]

    @classmethod
    def from_fields(cls, fields: Value) -> AuditRecord:
        """Read what ``fields`` gave. Raises ``Malformed``."""
        match fields:
            case [int(index), bytes(previous), str(event), facts] if len(previous) == len(START):
                return cls(index=index, previous=previous, event=event, facts=facts)
        raise Malformed("audit record: expected index, hash of the one before, event and facts")


class AuditLog:
    """Records in order; ``head`` commits to all of them."""

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []
        self.head = START

    def append(self, event: str, facts: Value) -> AuditRecord:
        """Add what happened. A log that is full takes no more: a keep makes a dozen records, not thousands."""
        if len(self.records) >= MAX_RECORDS:
            raise Malformed(f"audit log: more than {MAX_RECORDS} records")
        record = AuditRecord(index=len(self.records), previous=self.head, event=event, facts=facts)
        self.records.append(record)
        self.head = record.digest()
        return record


def verify_chain(records: Iterable[AuditRecord]) -> bytes:
    """Give the head of a complete chain. Raises ``Malformed`` where a record is missing, changed or out of place."""
    head = START
    for index, found in enumerate(records):
        if found.index != index or found.previous != head:
            raise Malformed(f"audit record {index}: it does not follow the one before it")
        head = found.digest()
    return head
