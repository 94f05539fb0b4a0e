"""The hash by which firmware measures and signatures name a PE image (Authenticode).

It covers the file without its checksum and its signatures. Source: Microsoft, "Windows Authenticode Portable
Executable Signature Format"; TCG PC Client Platform Firmware Profile 1.06, section 10.2.3, as edk2's
DxeTpm2MeasureBootLib does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enarx.attest._eventlog import Algorithm, hash_bytes
from enarx.tcb.errors import Malformed

MAX_SECTIONS: Final = 96
"""What Windows loads; kernels have a handful."""
_OPTIONAL: Final = {0x10B: 96, 0x20B: 112}
"""Magic of the optional header (PE32, PE32+) and where its data directories begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Headers:
    """Positions in the file."""

    checksum: int
    certificates: int | None
    """The directory entry of the signatures, where there is one."""
    end: int
    sections: tuple[tuple[int, int], ...]
    """Start and size of raw data, by start."""
    certificate_bytes: int


def authenticode_digest(image: bytes, algorithm: Algorithm) -> bytes:
    """Hash a PE image as it lies in its file. Raises ``Malformed``."""
    headers = _parse(image)
    parts = [image[: headers.checksum]]
    if headers.certificates is None:
        parts.append(image[headers.checksum + 4 : headers.end])
    else:
        parts.append(image[headers.checksum + 4 : headers.certificates])
        parts.append(image[headers.certificates + 8 : headers.end])
    hashed = headers.end
    for start, size in headers.sections:
        parts.append(image[start : start + size])
        hashed += size
    if hashed + headers.certificate_bytes > len(image):
        raise Malformed(f"pe image: headers and sections describe more than its {len(image)} bytes")
    parts.append(image[hashed : len(image) - headers.certificate_bytes])
    return hash_bytes(algorithm, b"".join(parts))


def _parse(image: bytes) -> _Headers:
    if image[:2] != b"MZ":
        raise Malformed(
            "pe image: does not begin with MZ", hint="the kernel must be built with CONFIG_EFI_STUB"
        )
    coff = _u(image, 0x3C, 4)
    if image[coff : coff + 4] != b"PE\0\0":
        raise Malformed(
            f"pe image: there is no PE header at {coff:#x}", hint="the kernel must have an EFI stub"
        )
    count, optional_bytes = _u(image, coff + 6, 2), _u(image, coff + 20, 2)
    optional = coff + 24
    magic = _u(image, optional, 2)
    if magic not in _OPTIONAL:
        raise Malformed(f"pe image: optional header has unknown magic {magic:#x}")
    directories = optional + _OPTIONAL[magic]
    has_certificates = _u(image, directories - 4, 4) > 4
    table, end = optional + optional_bytes, _u(image, optional + 60, 4)
    if count > MAX_SECTIONS or table + 40 * count > end or end > len(image):
        raise Malformed(f"pe image: {count} sections or headers of {end:#x} bytes do not fit into the file")
    if directories + (40 if has_certificates else 0) > table:
        raise Malformed(f"pe image: optional header of {optional_bytes} bytes is too short")
    return _Headers(
        checksum=optional + 64,
        certificates=directories + 32 if has_certificates else None,
        end=end,
        sections=_sections(image, table, count, end),
        certificate_bytes=_u(image, directories + 36, 4) if has_certificates else 0,
    )


def _sections(image: bytes, table: int, count: int, end: int) -> tuple[tuple[int, int], ...]:
    sections = []
    for at in range(table, table + 40 * count, 40):
        if size := _u(image, at + 16, 4):
            sections.append((_u(image, at + 20, 4), size))
    sections.sort()
    for start, size in sections:
        if start < end or start + size > len(image):
            raise Malformed(
                f"pe image: section {start:#x}+{size:#x} overlaps what is before it, or ends outside"
            )
        end = start + size
    return tuple(sections)


def _u(image: bytes, at: int, size: int) -> int:
    if at + size > len(image):
        raise Malformed(f"pe image: ends at {len(image):#x}, before the field at {at:#x}")
    return int.from_bytes(image[at : at + size], "little")
