"""What one run may use at most: a table of names, units and ranges, and the reader of ``NAME=VALUE``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Final

from enarx.tcb.errors import Malformed
from enarx.tcb.record import record, replace
from enarx.tcb.wire import Value
from enarx.tcb.workload._wording import nearest, shown

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30


class InvalidLimit(Malformed):
    """A limit is unknown, not a number in its unit, or out of range."""


class Unit(Enum):
    """What a limit counts; the value is the name of the unit in which it is stored."""

    BYTES = " bytes"
    NUMBER = ""
    TIME = " milliseconds"


SUFFIXES: Final[Mapping[Unit, Mapping[str, int]]] = {
    Unit.BYTES: {"": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "k": 10**3, "M": 10**6, "G": 10**9},
    Unit.NUMBER: {"": 1, "k": 10**3, "M": 10**6},
    Unit.TIME: {"": 1000, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000},
}
"""What may follow a number, and its factor."""


@record
class Limits:
    """The limits of a run. ``None`` is no limit of ours."""

    memory_bytes: int = 4 * GIB
    table_elements: int = 10_000_000
    stack_bytes: int = 512 * KIB
    time_ms: int | None = None
    output_bytes: int | None = None
    files: int = 16_384
    storage_bytes: int = GIB
    descriptors: int = 1024
    threads: int = 64
    module_bytes: int = 256 * MIB

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            value = getattr(self, limit.field)
            if value is None and limit.optional:
                continue
            if type(value) is not int or not limit.low <= value <= limit.high:
                raise InvalidLimit(
                    f"{name}: expected {limit.low} to {limit.high}{limit.unit.value}, found {shown(value)}"
                )

    def value(self) -> dict[str, Value]:
        """Give the form that crosses the wall and enters digests."""
        return {limit.field: getattr(self, limit.field) for limit in LIMITS.values()}

    @classmethod
    def from_value(cls, value: Value) -> Limits:
        """Read what ``value`` gave. Raises ``Malformed``."""
        if not isinstance(value, dict) or value.keys() != {limit.field for limit in LIMITS.values()}:
            raise Malformed("limits: expected a map with every limit and nothing else")
        return cls(**value)  # type: ignore[arg-type] # __post_init__ checks every type


@record(kw_only=False)
class Limit:
    """How one limit is written, and its range, both ends included."""

    field: str
    unit: Unit
    low: int
    high: int
    meaning: str

    @property
    def optional(self) -> bool:
        """Whether ``none`` may be written."""
        return self.field in ("time_ms", "output_bytes")


LIMITS: Final[Mapping[str, Limit]] = {
    "memory": Limit("memory_bytes", Unit.BYTES, 64 * KIB, 4 * GIB, "linear memory of the workload"),
    "table": Limit(
        "table_elements", Unit.NUMBER, 1, 1 << 32, "elements of all its tables, shared out evenly"
    ),
    "stack": Limit("stack_bytes", Unit.BYTES, 64 * KIB, 64 * MIB, "call stack of each of its threads"),
    "time": Limit("time_ms", Unit.TIME, 1, 10 * 365 * 24 * 3_600_000, "wall time from its start"),
    "output": Limit(
        "output_bytes", Unit.BYTES, 1, 1 << 50, "written to standard output and standard error together"
    ),
    "files": Limit("files", Unit.NUMBER, 1, 1 << 24, "files, directories and links in its file system"),
    "storage": Limit("storage_bytes", Unit.BYTES, 1, 1 << 40, "content of its file system"),
    "descriptors": Limit("descriptors", Unit.NUMBER, 3, 1 << 16, "open descriptors at a time"),
    "threads": Limit("threads", Unit.NUMBER, 1, 1024, "threads at a time, the first included"),
    "module": Limit("module_bytes", Unit.BYTES, 8, 2 * GIB, "size of the Wasm file"),
}
"""Every limit by the name that users write."""


def parse_limit(text: str, limits: Limits | None = None) -> Limits:
    """Change one limit, as in ``memory=64MiB``, ``time=1m``, ``output=none``. Raises ``InvalidLimit``."""
    name, equals, written = text.partition("=")
    limit = LIMITS.get(name)
    if limit is None or not equals:
        hint = nearest(name, LIMITS) if limit is None else f"write {name}=VALUE"
        raise InvalidLimit(f"expected NAME=VALUE with a known name, found {shown(text)}", hint=hint)
    if written == "none" and limit.optional:
        return replace(limits or Limits(), **{limit.field: None})
    number = re.fullmatch(r"(\d{1,19})([A-Za-z]*)", written, re.ASCII)
    if number is None or number[2] not in SUFFIXES[limit.unit]:
        units = ", ".join(filter(None, SUFFIXES[limit.unit]))
        hint = f"write {name}=none for no limit" if limit.optional else ""
        expected = f"a whole number, alone or with one of {units}"
        raise InvalidLimit(f"{name}: expected {expected}, found {shown(written)}", hint=hint)
    return replace(limits or Limits(), **{limit.field: int(number[1]) * SUFFIXES[limit.unit][number[2]]})
