"""Write the keep image of this installation (``enarx.api.keep_image`` is its form)."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from enarx.api.keep_image import MANIFEST, Image, digest_line
from enarx.tcb.errors import Unavailable
from enarx.tenant.image._contents import PackedFile, image_files


def installed_image() -> Image:
    """Describe the image of this installation without building it. Raises ``Unavailable``."""
    return _described(image_files())


def build_image(path: Path) -> Image:
    """Write the archive of this installation's image to ``path``. Raises ``Unavailable``."""
    files = sorted(image_files(), key=lambda file: file.path)
    image = _described(files)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as made:
            try:
                with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                    archive.addfile(_member(MANIFEST, len(image.manifest)), io.BytesIO(image.manifest))
                    for file in files:
                        content = file.source.read_bytes()
                        archive.addfile(_member(file.path, len(content)), io.BytesIO(content))
                os.chmod(made.name, 0o644)
                os.replace(made.name, path)
            except BaseException:
                os.unlink(made.name)
                raise
    except OSError as error:
        raise Unavailable(f"{path}: {(error.strerror or str(error)).lower()}") from None
    return image


def _described(files: Iterable[PackedFile]) -> Image:
    size, lines = 0, []
    for file in sorted(files, key=lambda file: file.path):
        try:
            with file.source.open("rb", buffering=0) as source:
                digest = hashlib.file_digest(source, "sha256").digest()
                size += source.tell()
        except OSError as error:
            raise Unavailable(f"{file.source}: {(error.strerror or str(error)).lower()}") from None
        lines.append(digest_line(file.path, digest))
    return Image(manifest="".join(lines).encode(), size=size)


def _member(name: str, size: int) -> tarfile.TarInfo:
    """Name, size and nothing that differs from machine to machine."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o444, 0
    return member
