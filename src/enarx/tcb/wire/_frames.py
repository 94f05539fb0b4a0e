"""Length-prefixed framing with a maximum: four bytes of big-endian length, then the body. Bytes in, bodies out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from enarx.tcb.errors import Malformed

HEADER_BYTES: Final = 4


def frame(body: bytes) -> bytes:
    """Put the length in front of ``body`` (at most 2^32 - 1 bytes)."""
    return len(body).to_bytes(HEADER_BYTES, "big") + body


class FrameDecoder:
    """Cut a stream into bodies, whatever the sizes in which the stream arrives."""

    def __init__(self, *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the stream."""
        self._buffer += data

    def frames(self) -> Iterator[bytes]:
        """Give every complete body. Raises ``Malformed`` as soon as a length exceeds the maximum."""
        while len(self._buffer) >= HEADER_BYTES:
            size = int.from_bytes(self._buffer[:HEADER_BYTES], "big")
            if size > self.max_bytes:
                raise Malformed(f"frame announces {size} bytes, at most {self.max_bytes} are allowed")
            if len(self._buffer) < HEADER_BYTES + size:
                return
            body = bytes(self._buffer[HEADER_BYTES : HEADER_BYTES + size])
            del self._buffer[: HEADER_BYTES + size]
            yield body
