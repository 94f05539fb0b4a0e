"""The table of hashes through which a measured launch covers kernel, initial ramdisk and command line.

QEMU writes it (``kernel-hashes=on``) and OVMF's AmdSev build compares it with what the host hands over. Source: QEMU,
target/i386/sev.c (SevHashTable); edk2, OvmfPkg/AmdSev/BlobVerifierLibSevHashes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from enarx.attest._guid_table import PAGE_BYTES
from enarx.attest._unmeasurable import Unmeasurable

TABLE_BYTES: Final = 176
"""168 used, rounded up to the 16 bytes that LAUNCH_UPDATE_DATA wants."""
_HEADER: Final = UUID("9438d606-4f22-4cc9-b479-a793d411fd21")
_CMDLINE: Final = UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
_INITRD: Final = UUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
_KERNEL: Final = UUID("4de79437-abd2-427f-b835-d5b172d2045b")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelHashes:
    """SHA-256 of the three blobs; that of the command line covers its terminating NUL."""

    kernel: bytes
    initrd: bytes
    cmdline: bytes

    def __post_init__(self) -> None:
        for name, value in (("kernel", self.kernel), ("initrd", self.initrd), ("cmdline", self.cmdline)):
            if len(value) != 32:
                raise Unmeasurable(f"{name} hash has {len(value)} bytes, expected 32")

    def table(self) -> bytes:
        """Give the 176 bytes that are measured in SEV and SEV-ES."""
        blobs = ((_CMDLINE, self.cmdline), (_INITRD, self.initrd), (_KERNEL, self.kernel))
        entries = b"".join(guid.bytes_le + (50).to_bytes(2, "little") + value for guid, value in blobs)
        return (_HEADER.bytes_le + (168).to_bytes(2, "little") + entries).ljust(TABLE_BYTES, b"\0")

    def page(self, offset: int) -> bytes:
        """Give the page that is measured in SEV-SNP: zero but for the table at ``offset``."""
        if not 0 <= offset <= PAGE_BYTES - TABLE_BYTES:
            raise Unmeasurable(f"kernel hashes table at page offset {offset:#x} does not fit into the page")
        return (bytes(offset) + self.table()).ljust(PAGE_BYTES, b"\0")


def hash_kernel(kernel: bytes, *, initrd: bytes = b"", cmdline: str = "") -> KernelHashes:
    """Hash what QEMU gets as ``-kernel``, ``-initrd`` and ``-append``: files as they are, no initrd being empty."""
    if "\0" in cmdline:
        raise Unmeasurable("kernel command line holds a NUL")
    return KernelHashes(
        kernel=hashlib.sha256(kernel).digest(),
        initrd=hashlib.sha256(initrd).digest(),
        cmdline=hashlib.sha256(cmdline.encode() + b"\0").digest(),
    )
