"""How many tables a module has: the engine limits each of them, a keep all together."""

from __future__ import annotations

from typing import Final

HEADER_BYTES: Final = 8
TABLE_SECTION: Final = 4


def count_tables(module: bytes | memoryview) -> int:
    """Give the entries of the table section of a module that the engine has accepted (Wasm 3.0, 5.5)."""
    at = HEADER_BYTES
    while at < len(module):
        section = module[at]
        size, at = _number(module, at + 1)
        if section == TABLE_SECTION:
            return _number(module, at)[0]
        at += size
    return 0


def _number(module: bytes | memoryview, at: int) -> tuple[int, int]:
    """Read an unsigned LEB128 at ``at``: the number, and where it ends."""
    value = shift = 0
    while True:
        byte = module[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
