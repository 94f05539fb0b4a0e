"""The secret of an SEV or SEV-ES launch, taken out of memory where the kernel has no driver that would give it.

The firmware (edk2, OvmfPkg/AmdSev) reserves a page whose first 0xC00 bytes the launch may fill. The record to which
its configuration table leads is in memory of ACPI, which ``/dev/mem`` gives nobody, so the page is found by what it
begins with: among the few pages that the firmware's map calls reserved.

The page is mapped, not read. Of what is encrypted a mapping of a process shows what was encrypted, whereas the kernel
copies for ``read`` from a mapping of its own that shows the encrypted bytes (docs/spec/sev-evidence.md).
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from typing import Final

from enarx.tcb.errors import Malformed
from enarx.tcb.keep.platform._launch_secret import FOLDER
from enarx.tcb.keep.vm._tree_server import DirectoryTree
from enarx.tcb.secret_table import TABLE_GUID, guid_bytes, read_secret_table
from enarx.tcb.session import LAUNCH_GUID

AREA_BYTES: Final = 0xC00
"""Behind them lie the hashes of the kernel (edk2, OvmfPkg/AmdSev/AmdSevX64.fdf)."""
PAGE_BYTES: Final = 4096
MAX_RANGE: Final = 16 * PAGE_BYTES
"""Larger reserved ranges are the firmware's own, or devices."""


class SecretTree:
    """The launch secret as a file of a ``Tree``, until it is removed."""

    def __init__(self, area: bytes) -> None:
        self._area: bytes | None = area

    def list(self, path: str) -> list[str]:
        """Give the folder."""
        return [FOLDER]

    def read(self, path: str) -> bytes:
        """Give the secret. Raises ``OSError``: EBADMSG for a damaged table, ENOENT for one without the secret."""
        try:
            found = read_secret_table(self._area)[0] if self._area is not None else {}
        except Malformed:
            raise OSError(errno.EBADMSG, "the table of launch secrets is damaged") from None
        secret = found.get(guid_bytes(LAUNCH_GUID))
        if path != f"{FOLDER}/{LAUNCH_GUID}" or secret is None:
            raise FileNotFoundError(errno.ENOENT, "the launch brought no such secret")
        return secret

    def remove(self, path: str) -> None:
        """Forget all secrets."""
        self._area = None

    def write(self, path: str, data: bytes = b"") -> None:
        """Refuse, as ``make`` does."""
        raise PermissionError(errno.EPERM, "nothing can be put here")

    make = write


def take_secret(memory: str = "/dev/mem", memory_map: str = "/sys/firmware/memmap") -> SecretTree | None:
    """Take the area out of memory, where zeros stay; None if none begins with a table. Raises ``OSError``."""
    fd = os.open(memory, os.O_RDWR | os.O_CLOEXEC)
    try:
        for place in _reserved(DirectoryTree(memory_map)):
            with mmap.mmap(fd, PAGE_BYTES, offset=place) as page:
                if page[: len(TABLE_GUID)] == TABLE_GUID:
                    area = page[:AREA_BYTES]
                    page[:] = bytes(PAGE_BYTES)
                    return SecretTree(area)
    finally:
        os.close(fd)
    return None


def _reserved(memory_map: DirectoryTree) -> Iterator[int]:
    """Give the pages of small reserved ranges, as the firmware told the kernel of them."""
    for entry in memory_map.list(""):
        start, end, kind = (memory_map.read(f"{entry}/{name}").strip() for name in ("start", "end", "type"))
        first, behind = int(start, 16), int(end, 16) + 1
        if kind == b"Reserved" and first % PAGE_BYTES == 0 and behind - first <= MAX_RANGE:
            yield from range(first, behind - PAGE_BYTES + 1, PAGE_BYTES)
