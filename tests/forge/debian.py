"""Debian packages, shared libraries and compressed kernels, as small as their forms allow."""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
from collections.abc import Mapping, Sequence


def ar(members: Mapping[str, bytes]) -> bytes:
    """An ar archive."""
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
        parts += [head.encode(), content, bytes(len(content) % 2)]
    return b"".join(parts)


def tar(
    files: Mapping[str, bytes], links: Mapping[str, str] | None = None, *, executable: Sequence[str] = ()
) -> bytes:
    """A tar archive of files, each with its parent directory, and symbolic links."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            folder = tarfile.TarInfo(f"./{name.rpartition('/')[0]}")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode = len(content), 0o755 if name in executable else 0o644
            archive.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(f"./{name}")
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    return made.getvalue()


def deb(
    files: Mapping[str, bytes], links: Mapping[str, str] | None = None, *, executable: Sequence[str] = ()
) -> bytes:
    """A package."""
    data = lzma.compress(tar(files, links, executable=executable))
    return ar({"debian-binary": b"2.0\n", "control.tar.xz": lzma.compress(tar({})), "data.tar.xz": data})


def library(needed: Sequence[str] = (), *, symbols: bytes = b"") -> bytes:
    """A shared library without code that is linked with ``needed``; ``symbols`` lie behind its segments."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    offsets = [1 + sum(len(name) + 1 for name in needed[:number]) for number in range(len(needed))]
    head, table = 64, 64 + 2 * 56
    address = 0x10000  # where the file is mapped, so that addresses are not offsets
    dynamic = b"".join(struct.pack("<qQ", 1, offset) for offset in offsets)
    at = table + len(dynamic) + 2 * 16
    dynamic += struct.pack("<qQ", 5, address + at) + bytes(16)
    size = at + len(strings)
    segments = struct.pack("<IIQQQQQQ", 1, 4, 0, address, address, size, size, 0x1000)
    segments += struct.pack(
        "<IIQQQQQQ", 2, 4, table, address + table, address + table, len(dynamic), len(dynamic), 8
    )
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 3, 62, 1, 0, head, size, 0, 64, 56, 2, 64, 5, 4)
    return header + segments + dynamic + strings + symbols


def compressed_kernel(kernel: bytes, payload: bytes, size: int) -> bytes:
    """Put a zstd ``payload`` behind ``kernel``, a bzImage, as what it unpacks to ``size`` bytes."""
    image = bytearray(kernel)
    image[0x1F1] = 4
    setup = (image[0x1F1] + 1) * 512
    content = payload + size.to_bytes(4, "little")
    image[0x248:0x24C] = (len(kernel) - setup).to_bytes(4, "little")
    image[0x24C:0x250] = len(content).to_bytes(4, "little")
    return bytes(image) + content
