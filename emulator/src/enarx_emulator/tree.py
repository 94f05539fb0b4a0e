"""Files as one guest sees them: the interface of all faces of a TEE, and their composition."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from typing import Final, Protocol


class Tree(Protocol):
    """Files as one guest sees them; paths are relative, parts divided by ``/``. Everything raises ``OSError``."""

    def make(self, path: str) -> None:
        """Make a directory."""

    def remove(self, path: str) -> None:
        """Remove a directory that the guest made, or a file that may be removed."""

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file at once."""

    def read(self, path: str) -> bytes:
        """Read a whole file at once."""

    def list(self, path: str) -> list[str]:
        """Give the names in a directory, sorted."""


class Faces:
    """Several trees side by side, by the first part of the path."""

    def __init__(self, trees: Mapping[str, Tree]) -> None:
        self._trees = trees

    def make(self, path: str) -> None:
        """Make a directory."""
        self._tree(path).make(path)

    def remove(self, path: str) -> None:
        """Remove a directory or a file."""
        self._tree(path).remove(path)

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file at once."""
        self._tree(path).write(path, data)

    def read(self, path: str) -> bytes:
        """Read a whole file at once."""
        return self._tree(path).read(path)

    def list(self, path: str) -> list[str]:
        """Give the names in a directory."""
        return self._tree(path).list(path) if parts(path) else sorted(self._trees)

    def _tree(self, path: str) -> Tree:
        tree = self._trees.get(next(iter(parts(path)), ""))
        if tree is None:
            raise refused(errno.ENOENT, path)
        return tree


_PART: Final = re.compile(r"[^/\0]{1,255}")


def parts(path: str) -> list[str]:
    """Cut a path. Raises ``OSError``: nothing leads out of a tree, no part is empty."""
    if not path:
        return []
    found = path.split("/")
    for part in found:
        if part in (".", "..") or not _PART.fullmatch(part):
            raise refused(errno.ENAMETOOLONG if len(part) > 255 else errno.ENOENT, path)
    return found


def refused(number: int, path: str) -> OSError:
    """Make the ``OSError`` of this number."""
    return OSError(number, os.strerror(number), path)
