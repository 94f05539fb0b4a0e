"""Kernels as firmware sees them: PE images with a Linux boot header, of a few pages."""

from __future__ import annotations

import hashlib
from typing import Final

SIGNATURE_BYTES: Final = 0x148
PE_AT: Final = 0x280


def bz_image(*, seed: int = 0, signature: bytes = b"", sections: int = 2, protocol: int = 0x20F) -> bytes:
    """A PE32+ image with ``sections`` of one page each behind its headers of one page, then ``signature``."""
    body = bytearray(hashlib.shake_128(bytes([seed])).digest(0x1000 * (1 + sections)))
    body[:2] = b"MZ"
    _put(body, 0x3C, 4, PE_AT)
    body[0x1F1] = 0x27
    body[0x202:0x206] = b"HdrS"
    _put(body, 0x206, 2, protocol)
    body[0x210:0x240] = bytes(0x30)
    body[0x211] = 0x01
    _put(body, 0x22C, 4, 0x7FFFFFFF)
    _put(body, 0x236, 2, 0x7F)
    body[PE_AT : PE_AT + 4] = b"PE\0\0"
    _put(body, PE_AT + 6, 2, sections)
    _put(body, PE_AT + 20, 2, 112 + 6 * 8)
    optional = PE_AT + 24
    _put(body, optional, 2, 0x20B)
    _put(body, optional + 60, 4, 0x1000)
    _put(body, optional + 108, 4, 6)
    _put(body, optional + 112 + 32, 4, len(body) if signature else 0)
    _put(body, optional + 112 + 36, 4, len(signature))
    for number in range(sections):
        at = optional + 112 + 48 + 40 * number
        _put(body, at + 16, 4, 0x1000)
        _put(body, at + 20, 4, 0x1000 * (1 + number))
    return bytes(body) + signature


CHECKSUM_AT: Final = PE_AT + 24 + 64
CERTIFICATE_ENTRY_AT: Final = PE_AT + 24 + 112 + 32


def _put(data: bytearray, at: int, size: int, value: int) -> None:
    data[at : at + size] = value.to_bytes(size, "little")
