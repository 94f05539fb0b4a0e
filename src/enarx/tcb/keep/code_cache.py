"""Compiled code that an untrusted host keeps for us between runs.

Loading forged machine code would hand the keep over, so a copy is sealed under a key that only keeps of the same
owner have: HMAC-SHA-256 over what the code was made from (module, engine, configuration, processor) and the code
itself. A copy that does not open is as good as none: the module is compiled again.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Final

from enarx.tcb.wire import Value, encode

MAC_BYTES: Final = 32
LABEL: Final = "enarx compiled code 1"


class CodeCache:
    """The sealed copy of one module's code, if the host has one, and the new one, if one was made."""

    def __init__(self, *, key: bytes, sealed: bytes, made_from: Sequence[Value]) -> None:
        self._key = key
        self._sealed = sealed
        self._context = encode([LABEL, *made_from])
        self.fresh: bytes | None = None
        """Sealed code that was compiled in this run and that the host may keep."""

    def _mac(self, code: bytes | memoryview) -> bytes:
        mac = hmac.new(self._key, len(self._context).to_bytes(8, "big"), hashlib.sha256)
        mac.update(self._context)
        mac.update(code)
        return mac.digest()

    def open(self) -> bytes | None:
        """Give the code, or None when there is none that was sealed for exactly this."""
        if not self._key or len(self._sealed) <= MAC_BYTES:
            return None
        code = memoryview(self._sealed)[MAC_BYTES:]
        if not hmac.compare_digest(self._sealed[:MAC_BYTES], self._mac(code)):
            return None
        return bytes(code)

    def seal(self, serialize: Callable[[], bytearray]) -> None:
        """Seal freshly compiled code for the host to keep."""
        if self._key:
            code = bytes(serialize())
            self.fresh = self._mac(code) + code
