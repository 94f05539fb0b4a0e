"""MRENCLAVE: SHA-256 over the log of how an enclave was built, in blocks of 64 bytes.

Source: Intel SDM volume 3D, ECREATE, EADD, EEXTEND, "Enclave measurement". An SGXS file is exactly this log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from enarx.attest._unmeasurable import Unmeasurable
from enarx.tcb.errors import Malformed

PAGE_BYTES: Final = 4096
CHUNK_BYTES: Final = 256
"""What one EEXTEND measures."""
MAX_SGXS_BYTES: Final = 1 << 30
_BLOCK: Final = 64


class Permission(IntFlag):
    """SECINFO.FLAGS, the low bits."""

    NONE = 0
    R = 1
    W = 2
    X = 4
    RWX = 7


class PageType(IntEnum):
    """SECINFO.FLAGS.PAGE_TYPE of the pages that EADD takes."""

    TCS = 1
    REG = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page to add. Pages that are not ``measured`` are covered by address, type and permissions alone."""

    offset: int
    page_type: PageType
    permissions: Permission = Permission.NONE
    contents: bytes
    measured: bool = True


class EnclaveLog:
    """The measurement as it grows: ECREATE, then pages in the loader's order."""

    def __init__(self, *, size: int, ssa_frame_pages: int = 1) -> None:
        """``size`` in bytes, a power of two. Raises ``Unmeasurable``."""
        if size < 2 * PAGE_BYTES or size & (size - 1) or size >= 1 << 64:
            raise Unmeasurable(f"enclave size {size:#x} is not a power of two of at least two pages")
        if not 1 <= ssa_frame_pages < 1 << 32:
            raise Unmeasurable(f"enclave has ssa frames of {ssa_frame_pages} pages, expected at least one")
        self._size = size
        self._added: set[int] = set()
        self._hash = hashlib.sha256(
            (b"ECREATE\0" + ssa_frame_pages.to_bytes(4, "little") + size.to_bytes(8, "little")).ljust(
                _BLOCK, b"\0"
            )
        )

    def add(self, page: Page) -> None:
        """EADD ``page``, and EEXTEND all of it when it is ``measured``. Raises ``Unmeasurable``."""
        self._check(page)
        self._added.add(page.offset)
        flags = page.page_type << 8 | page.permissions
        log = [
            (b"EADD\0\0\0\0" + page.offset.to_bytes(8, "little") + flags.to_bytes(8, "little")).ljust(
                _BLOCK, b"\0"
            )
        ]
        if page.measured:
            for at in range(0, PAGE_BYTES, CHUNK_BYTES):
                log.append((b"EEXTEND\0" + (page.offset + at).to_bytes(8, "little")).ljust(_BLOCK, b"\0"))
                log.append(page.contents[at : at + CHUNK_BYTES])
        self._hash.update(b"".join(log))

    def digest(self) -> bytes:
        """Give MRENCLAVE of the pages so far (32 bytes)."""
        return self._hash.digest()

    def _check(self, page: Page) -> None:
        if page.offset % PAGE_BYTES or not 0 <= page.offset < self._size:
            raise Unmeasurable(
                f"enclave page at {page.offset:#x} is no page of an enclave of {self._size:#x} bytes"
            )
        if page.offset in self._added:
            raise Unmeasurable(f"enclave page at {page.offset:#x} is added twice")
        if len(page.contents) != PAGE_BYTES:
            raise Unmeasurable(
                f"enclave page at {page.offset:#x} has {len(page.contents)} bytes, expected {PAGE_BYTES}"
            )
        if page.page_type is PageType.TCS and page.permissions:
            raise Unmeasurable(f"enclave page at {page.offset:#x} is a tcs, which has no permissions")
        if page.permissions & Permission.W and not page.permissions & Permission.R:
            raise Unmeasurable(f"enclave page at {page.offset:#x} is writable and not readable")


def mrenclave(*, size: int, pages: Iterable[Page], ssa_frame_pages: int = 1) -> bytes:
    """Give MRENCLAVE of an enclave of ``size`` bytes made of ``pages`` in this order (32 bytes)."""
    log = EnclaveLog(size=size, ssa_frame_pages=ssa_frame_pages)
    for page in pages:
        log.add(page)
    return log.digest()


def flat_pages(
    image: bytes, *, tcs: Iterable[int] = (0,), permissions: Permission = Permission.RWX
) -> tuple[Page, ...]:
    """Describe an image that lies in the enclave from offset 0, with a TCS at each page number of ``tcs``."""
    if not image or len(image) % PAGE_BYTES:
        raise Unmeasurable(f"enclave image of {len(image):#x} bytes is no positive number of whole pages")
    numbers = frozenset(tcs)
    if unknown := [number for number in numbers if not 0 <= number < len(image) // PAGE_BYTES]:
        raise Unmeasurable(f"enclave image has no page {unknown[0]} for a tcs")
    pages = []
    for offset in range(0, len(image), PAGE_BYTES):
        is_tcs = offset // PAGE_BYTES in numbers
        pages.append(
            Page(
                offset=offset,
                page_type=PageType.TCS if is_tcs else PageType.REG,
                permissions=Permission.NONE if is_tcs else permissions,
                contents=image[offset : offset + PAGE_BYTES],
            )
        )
    return tuple(pages)


def enclave_size(image_bytes: int) -> int:
    """Give the smallest size, a power of two, that holds an image."""
    return max(2 * PAGE_BYTES, 1 << (image_bytes - 1).bit_length())


def sgxs_mrenclave(stream: bytes) -> bytes:
    """Give MRENCLAVE of an SGXS file after checking that it is such a log. Raises ``Malformed``."""
    if len(stream) > MAX_SGXS_BYTES:
        raise Malformed(f"sgxs: {len(stream)} bytes, at most {MAX_SGXS_BYTES} are allowed")
    at, added = 0, -1
    while at < len(stream):
        block = stream[at : at + _BLOCK]
        tag, offset = block[:8], int.from_bytes(block[8:16], "little")
        used = {b"ECREATE\0": 20, b"EADD\0\0\0\0": 64, b"EEXTEND\0": 16}.get(tag)
        if len(block) != _BLOCK or used is None:
            raise Malformed(
                f"sgxs: no ECREATE, EADD or EEXTEND block at {at:#x}",
                hint="UNMEASRD blocks are not supported",
            )
        if (tag == b"ECREATE\0") != (at == 0):
            raise Malformed(f"sgxs: ECREATE must be the first block and no other, found {tag!r} at {at:#x}")
        if any(block[used:]):
            raise Malformed(f"sgxs: reserved bytes of the block at {at:#x} are not zero")
        at += _BLOCK
        if tag == b"EADD\0\0\0\0":
            added = offset
        elif tag == b"EEXTEND\0":
            if offset % CHUNK_BYTES or not added <= offset < added + PAGE_BYTES or added < 0:
                raise Malformed(f"sgxs: EEXTEND of {offset:#x} is outside the page added before")
            at += CHUNK_BYTES
    if not stream or at != len(stream):
        raise Malformed(f"sgxs: ends at {len(stream):#x} inside a block")
    return hashlib.sha256(stream).digest()
