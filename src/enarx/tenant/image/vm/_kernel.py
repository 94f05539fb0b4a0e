"""Take a Debian kernel apart: the kernel proper inside a bzImage, and the few modules that a keep loads.

Source: Linux, Documentation/arch/x86/boot.rst (boot protocol 2.08: payload_offset, payload_length).
"""

from __future__ import annotations

import lzma
from collections.abc import Callable
from typing import Final

from enarx.tcb.errors import Malformed
from enarx.tenant.image.vm._elf import is_elf

MODULES: Final = ("configfs", "tsm", "sev-guest", "tdx-guest")
"""What reports come through on real platforms, each after those that it needs."""
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_MIN_BYTES: Final = 0x1000
_SIZE_BYTES: Final = 4
"""The size of the unpacked payload, little endian, which the kernel's build puts behind it."""
MAX_UNPACKED_BYTES: Final = 256 << 20
Unpack = Callable[[bytes, int], bytes]
"""Decompress a zstd frame whose content has at most so many bytes."""


def payload(kernel: bytes) -> tuple[bytes, int]:
    """Give the compressed kernel inside a bzImage, and the size of its content. Raises ``Malformed``."""
    if len(kernel) < _MIN_BYTES or kernel[0x202:0x206] != b"HdrS":
        raise Malformed("kernel: no Linux boot header, expected a bzImage")
    if (version := int.from_bytes(kernel[0x206:0x208], "little")) < 0x208:
        raise Malformed(f"kernel: boot protocol is {version:#x}, expected 0x208 or newer")
    setup_sectors = kernel[0x1F1] or 4
    start = (setup_sectors + 1) * 512 + int.from_bytes(kernel[0x248:0x24C], "little")
    length = int.from_bytes(kernel[0x24C:0x250], "little")
    content = kernel[start : start + length]
    if length <= _SIZE_BYTES or len(content) != length or not content.startswith(_ZSTD_MAGIC):
        raise Malformed("kernel: its payload is not compressed with zstd, or lies outside the file")
    size = int.from_bytes(content[-_SIZE_BYTES:], "little")
    if not 0 < size <= MAX_UNPACKED_BYTES:
        raise Malformed(f"kernel: its payload unpacks to {size} bytes, limit is {MAX_UNPACKED_BYTES}")
    return content[:-_SIZE_BYTES], size


def vmlinux(kernel: bytes, unpack: Unpack) -> bytes:
    """Give the ELF file inside a bzImage. Raises ``Malformed``."""
    content, size = payload(kernel)
    unpacked = unpack(content, size)
    if len(unpacked) != size or not is_elf(unpacked):
        raise Malformed("kernel: its payload does not unpack to an ELF file of the size that it states")
    return unpacked


def unpack_module(content: bytes) -> bytes:
    """Decompress a module (``.ko.xz``). Raises ``Malformed``."""
    try:
        unpacked = lzma.decompress(content, format=lzma.FORMAT_XZ)
    except lzma.LZMAError as error:
        raise Malformed(f"kernel: a module cannot be unpacked: {error}") from None
    if not is_elf(unpacked):
        raise Malformed("kernel: a module is not an ELF file")
    return unpacked
