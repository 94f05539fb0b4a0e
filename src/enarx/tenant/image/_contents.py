"""What is packed into a keep image: our own trusted code and the locked distributions that it stands on."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Final

import enarx
from enarx.tcb.errors import Unavailable

DISTRIBUTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "cbor2": (),
    "cffi": ("cffi/*",),
    "cryptography": (),
    "pycparser": ("pycparser/*",),
    "pyopenssl": (),
    "typing-extensions": (),
    "wasmtime": (),
}
"""The distributions of requirements/keep.txt, and what of them stays out: cffi's compiler for C declarations and
pycparser are needed when extension modules are built, not when they run."""
NOT_CODE: Final = ("*.pyc", "*.pyi", "*.typed", "*.h", "*.cfg", "*.dist-info/*", "tests/*", "test/*")
"""What no distribution needs at run time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedFile:
    """One file of the image: ``path`` is its place below the image's module directory, ``source`` where it is now."""

    path: str
    source: Path
    distribution: str = ""
    """The distribution that brings it; empty for our own."""


def image_files() -> list[PackedFile]:
    """Every file of the image, ours first. Raises ``Unavailable``."""
    return [*own_files(), *(file for name in DISTRIBUTIONS for file in distribution_files(name))]


def own_files(home: Path | None = None) -> list[PackedFile]:
    """Our own part of the image: the docstring in ``enarx/__init__.py`` and everything in ``enarx/tcb``."""
    home = home or Path(enarx.__path__[0])
    sources = [home / "__init__.py", *sorted(path for path in (home / "tcb").rglob("*") if path.is_file())]
    return [
        PackedFile(path=PurePosixPath("enarx", source.relative_to(home)).as_posix(), source=source)
        for source in sources
        if "__pycache__" not in source.parts
    ]


def distribution_files(name: str) -> list[PackedFile]:
    """What the installed distribution ``name`` brings into the image. Raises ``Unavailable``."""
    return sorted(_distribution_files(name), key=lambda file: file.path)


def is_packed(distribution: str, path: PurePosixPath) -> bool:
    """Whether the file of a distribution at ``path`` goes into the image."""
    if ".." in path.parts or "__pycache__" in path.parts:
        return False
    for pattern in (*NOT_CODE, *DISTRIBUTIONS[distribution]):
        below = pattern.removesuffix("/*")  # all that is in such a directory, wherever that is
        if fnmatch.filter(path.parts if below == pattern else path.parts[:-1], below):
            return False
    return True


def _distribution_files(name: str) -> Iterator[PackedFile]:
    try:
        files = metadata.files(name) or ()
    except metadata.PackageNotFoundError:
        hint = "pip install 'enarx[keep]'"
        raise Unavailable(f"the distribution {name} is not installed, but keeps need it", hint=hint) from None
    for file in files:
        path = PurePosixPath(file)
        if is_packed(name, path):
            yield PackedFile(path=path.as_posix(), source=Path(str(file.locate())), distribution=name)
