"""Fixed-size structures as tables of offset, size and name, to be held against the specification line by line."""

from __future__ import annotations

from collections.abc import Mapping

from enarx.tcb.errors import Malformed
from enarx.tcb.record import record


@record(kw_only=False)
class Layout:
    """A fixed-size structure: every byte belongs to a named field or is reserved and must be zero."""

    name: str
    size: int
    fields: Mapping[str, range]
    reserved: tuple[range, ...] = ()

    def __post_init__(self) -> None:
        spans = sorted((*self.fields.values(), *self.reserved), key=lambda span: span.start)
        end = 0
        for span in spans:
            if span.start != end or span.step != 1 or not span:
                raise ValueError(f"{self.name}: the table has a gap or an overlap at {end:#x}")
            end = span.stop
        if end != self.size:
            raise ValueError(f"{self.name}: the table covers {end:#x} of {self.size:#x} bytes")

    def split(self, data: bytes) -> dict[str, bytes]:
        """Cut ``data`` into its fields. Raises ``Malformed`` on another length or a reserved byte that is not zero."""
        if len(data) != self.size:
            raise Malformed(f"{self.name}: expected {self.size:#x} bytes, got {len(data):#x}")
        for gap in self.reserved:
            if data.count(0, gap.start, gap.stop) != len(gap):
                raise Malformed(f"{self.name}: reserved bytes {gap.start:#x}..{gap.stop:#x} are not zero")
        return {name: data[at.start : at.stop] for name, at in self.fields.items()}
