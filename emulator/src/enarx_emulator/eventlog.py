"""Measured-boot event logs in the crypto-agile form, as firmware keeps them.

Source: TCG PC Client Platform Firmware Profile 1.06, section 10; ACPI 6.5, table CCEL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HASHES: Final = {4: hashlib.sha1, 0xB: hashlib.sha256, 0xC: hashlib.sha384, 0xD: hashlib.sha512}
NO_ACTION: Final = 3


def u(value: int, size: int = 4) -> bytes:
    """Give a little-endian number."""
    return value.to_bytes(size, "little")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An event whose digests are those of ``measured``, or else of its data."""

    index: int
    kind: int
    data: bytes
    measured: bytes | None = None

    @property
    def measured_data(self) -> bytes:
        """What the digests are of."""
        return self.data if self.measured is None else self.measured

    def digest(self, algorithm: int) -> bytes:
        """Give what the register is extended with."""
        return HASHES[algorithm](self.measured_data).digest()

    def pack(self, algorithms: Sequence[int]) -> bytes:
        """Give the bytes of TCG_PCR_EVENT2."""
        packed = u(self.index) + u(self.kind) + u(len(algorithms))
        for number in algorithms:
            digest = self.digest(number)
            packed += u(number, 2) + (bytes(len(digest)) if self.kind == NO_ACTION else digest)
        return packed + u(len(self.data)) + self.data


def spec_id(algorithms: Sequence[int], *, sizes: Sequence[int] | None = None, index: int = 0) -> bytes:
    """Give the first event, which names the algorithms."""
    widths = sizes or [HASHES[number]().digest_size for number in algorithms]
    body = b"Spec ID Event03\0" + u(0) + bytes((0, 2, 0, 2)) + u(len(algorithms))
    body += (
        b"".join(u(number, 2) + u(size, 2) for number, size in zip(algorithms, widths, strict=True)) + b"\0"
    )
    return u(index) + u(NO_ACTION) + bytes(20) + u(len(body)) + body


def event_log(entries: Sequence[Entry], *, algorithms: Sequence[int] = (4, 0xB)) -> bytes:
    """Give a whole log."""
    return spec_id(algorithms) + b"".join(entry.pack(algorithms) for entry in entries)


def cc_log(entries: Sequence[Entry], *, area: int = 4096, fill: bytes = b"\xff") -> bytes:
    """Give the area of a CCEL: what follows the log is filled."""
    return event_log(entries, algorithms=(0xC,)).ljust(area, fill)
