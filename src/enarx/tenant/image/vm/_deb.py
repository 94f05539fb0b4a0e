"""Read Debian packages: what they would unpack, without ``dpkg`` and without writing a file.

Source: deb(5). Packages that are compressed with zstd, which Debian does not use, are refused.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from enarx.tcb.errors import Malformed

AR_MAGIC: Final = b"!<arch>\n"
_HEADER_BYTES: Final = 60
MAX_UNPACKED_BYTES: Final = 1 << 30
"""Far more than any package we lock; bounds what a damaged one can take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file or symbolic link of a package; ``path`` is relative to the root."""

    path: str
    content: bytes = b""
    executable: bool = False
    target: str = ""
    """Where a symbolic link points; empty for a file."""


def read_deb(data: bytes, wanted: Callable[[str], bool] = lambda path: True) -> Iterator[Member]:
    """Give those files and links of a package whose path is ``wanted``. Raises ``Malformed``."""
    left = MAX_UNPACKED_BYTES
    try:
        with tarfile.open(fileobj=_data_archive(data), mode="r|") as archive:
            for member in archive:
                path = _path(member.name)
                left -= member.size
                if left < 0:
                    raise Malformed(f"package: unpacks to more than {MAX_UNPACKED_BYTES} bytes")
                if not wanted(path):
                    continue
                if member.issym():
                    yield Member(path=path, target=member.linkname)
                elif member.isfile() and (content := archive.extractfile(member)) is not None:
                    yield Member(path=path, content=content.read(), executable=bool(member.mode & 0o100))
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise Malformed(f"package: its archive of files cannot be read: {error}") from None


def _data_archive(data: bytes) -> lzma.LZMAFile:
    names = []
    for name, content in _ar(data):
        if name == "data.tar.xz":
            return lzma.LZMAFile(io.BytesIO(content))
        names.append(name)
    raise Malformed(f"package: expected data.tar.xz, found {', '.join(names) or 'nothing'}")


def _ar(data: bytes) -> Iterator[tuple[str, bytes]]:
    if not data.startswith(AR_MAGIC):
        raise Malformed("package: does not start as an ar archive")
    at = len(AR_MAGIC)
    while at < len(data):
        header = data[at : at + _HEADER_BYTES]
        digits = header[48:58].strip()
        if len(header) < _HEADER_BYTES or header[58:60] != b"`\n" or not digits.isdigit():
            raise Malformed(f"package: no ar header at offset {at:#x}")
        start, size = at + _HEADER_BYTES, int(digits)
        if start + size > len(data):
            raise Malformed(f"package: a member ends at {start + size:#x}, behind its {len(data):#x} bytes")
        yield header[:16].decode("ascii", "replace").rstrip(" /"), data[start : start + size]
        at = start + size + size % 2


def _path(name: str) -> str:
    path = name.removeprefix("./").rstrip("/")
    if path.startswith("/") or ".." in path.split("/"):
        raise Malformed(f"package: path {name!r} leads out of the root")
    return path
