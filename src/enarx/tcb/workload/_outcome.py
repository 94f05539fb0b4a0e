"""How a workload ended, as the keep tells it."""

from __future__ import annotations

from enum import StrEnum
from typing import cast

from enarx.tcb.errors import Malformed
from enarx.tcb.record import record
from enarx.tcb.wire import Value


class Ending(StrEnum):
    """The ways in which a run ends; only ``EXITED`` is the program's own doing."""

    EXITED = "exited"
    TRAPPED = "trapped"
    STACK_OVERFLOW = "stack-overflow"
    MEMORY_LIMIT = "memory-limit"
    TABLE_LIMIT = "table-limit"
    OUTPUT_LIMIT = "output-limit"
    STORAGE_LIMIT = "storage-limit"
    THREAD_LIMIT = "thread-limit"
    TIME_LIMIT = "time-limit"
    STOPPED = "stopped"
    MALFORMED = "malformed"
    UNLINKABLE = "unlinkable"
    UNSUPPORTED = "unsupported"
    UNAVAILABLE = "unavailable"
    KEEP_LOST = "keep-lost"


@record
class Outcome:
    """The end of a run: ``code`` is the program's own (0 to 255), ``detail`` and ``hint`` are for people."""

    ending: Ending
    code: int = 0
    detail: str = ""
    hint: str = ""
    memory_bytes: int = 0

    def value(self) -> Value:
        """Give the form that crosses the wall."""
        return [self.ending.value, self.code, self.detail, self.hint, self.memory_bytes]

    @classmethod
    def from_value(cls, value: Value) -> Outcome:
        """Read what ``value`` gave. Raises ``Malformed``."""
        match value:
            case [str(ending), int(code), str(detail), str(hint), int(memory)] if (
                ending in _ENDINGS and 0 <= code <= 255 and memory >= 0
            ):
                return cls(ending=Ending(ending), code=code, detail=detail, hint=hint, memory_bytes=memory)
        raise Malformed("outcome: expected ending, exit code, detail, hint and memory")


_ENDINGS = cast("frozenset[str]", frozenset(Ending))
