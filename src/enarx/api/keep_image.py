"""The keep image as one file: a tar archive that is the same bytes wherever it is built from the same files.

Its first member is ``MANIFEST``: one line for each file, SHA-256 in hex, two spaces, the path, sorted by path, as
``sha256sum`` writes them. That list is what a platform measures; whoever starts the image holds every file against it.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from enarx.tcb.errors import Malformed, Unavailable

MANIFEST: Final = "MANIFEST"
MAX_IMAGE_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What an image is known by."""

    manifest: bytes
    size: int
    """Bytes of all its files."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the manifest: the name of the image."""
        return sha256(self.manifest).digest()


def read_image(path: Path) -> Image:
    """Describe the archive at ``path``, whose files must be those that its manifest lists. Raises ``Malformed``."""
    manifest, size = b"", 0
    listed: list[str] = []
    for at, (name, content) in enumerate(members(path)):
        if at == 0:
            manifest = content
        else:
            listed.append(manifest_line(name, content))
            size += len(content)
    if "".join(listed).encode() != manifest:
        raise Malformed("image: its files are not those of its manifest", hint="build it anew")
    return Image(manifest=manifest, size=size)


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Give name and content of each file in the archive, the manifest first. Raises ``Malformed``, ``Unavailable``."""
    left = MAX_IMAGE_BYTES
    try:
        with tarfile.open(path, mode="r:") as archive:
            for at, member in enumerate(archive):
                content = archive.extractfile(member) if member.isreg() else None
                if content is None or (at == 0) != (member.name == MANIFEST):
                    raise Malformed(f"image: {member.name!r} is out of place", hint=f"{MANIFEST} comes first")
                left -= member.size
                if left < 0:
                    raise Malformed(f"image: more than {MAX_IMAGE_BYTES} bytes")
                yield member.name, content.read()
    except tarfile.TarError as error:
        hint = "enarx image build makes one; an image of VM keeps is a directory"
        raise Malformed(f"image: no archive that can be read: {path}: {error}", hint=hint) from None
    except OSError as error:
        raise Unavailable(f"{path}: {(error.strerror or str(error)).lower()}") from None


def manifest_line(name: str, content: bytes) -> str:
    """Give the line of one file."""
    return digest_line(name, sha256(content).digest())


def digest_line(name: str, digest: bytes) -> str:
    """Give the line of one file of which only the digest is at hand."""
    return f"{digest.hex()}  {name}\n"
