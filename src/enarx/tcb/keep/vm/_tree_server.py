"""The files of the platform, for a keep that may open none: requests of ``PortTree`` answered from a tree.

The keep asks over a socket; it runs a workload and counts as hostile here. So names are plain, links are not followed,
and nothing outside the directory is reached.
"""

from __future__ import annotations

import os
import re
from typing import Final

from enarx.tcb.errors import Malformed
from enarx.tcb.keep.platform import Tree
from enarx.tcb.wire import FrameDecoder, Value, decode, encode, frame

MAX_REQUEST_BYTES: Final = 4096
MAX_FILE_BYTES: Final = 64 << 10
"""A quote has 5 KiB, the certificates of an SNP host up to 20."""
_PATH: Final = re.compile(r"(?:[a-z0-9_][a-z0-9_.-]*(?:/[a-z0-9_][a-z0-9_.-]*){0,3})?")
_EINVAL: Final = 22


class DirectoryTree:
    """The files below the directory ``root`` (``Tree``)."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def make(self, path: str) -> None:
        """Make a directory."""
        os.mkdir(_checked(path), dir_fd=self._root)

    def remove(self, path: str) -> None:
        """Remove a directory."""
        os.rmdir(_checked(path), dir_fd=self._root)

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file with one call, as attributes want it."""
        fd = self._open(path, os.O_WRONLY)
        try:
            if os.write(fd, data) != len(data):
                raise OSError(5, "written in part")
        finally:
            os.close(fd)

    def read(self, path: str) -> bytes:
        """Read a whole file."""
        fd = self._open(path, os.O_RDONLY)
        try:
            content = bytearray()
            while (part := os.read(fd, MAX_FILE_BYTES)) and len(content) <= MAX_FILE_BYTES:
                content += part
        finally:
            os.close(fd)
        if len(content) > MAX_FILE_BYTES:
            raise OSError(27, "file too large")
        return bytes(content)

    def list(self, path: str) -> list[str]:
        """Give the names in a directory."""
        fd = self._open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def _open(self, path: str, flags: int) -> int:
        name = path if path == "." else _checked(path)
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root)


def serve_tree(port: int, tree: Tree) -> None:
    """Answer on the descriptor ``port`` until its other end is closed. Raises ``Malformed``."""
    decoder = FrameDecoder(max_bytes=MAX_REQUEST_BYTES)
    while data := os.read(port, 1 << 16):
        decoder.feed(data)
        for body in decoder.frames():
            left = memoryview(frame(encode(_answer(tree, decode(body, max_bytes=MAX_REQUEST_BYTES)))))
            while left:
                left = left[os.write(port, left) :]


def _answer(tree: Tree, request: Value) -> list[Value]:
    try:
        match request:
            case ["make", str(path), b""]:
                tree.make(path)
            case ["remove", str(path), b""]:
                tree.remove(path)
            case ["write", str(path), bytes(data)]:
                tree.write(path, data)
            case ["read", str(path), b""]:
                return [0, tree.read(path)]
            case ["list", str(path), b""]:
                return [0, "\n".join(tree.list(path)).encode()]
            case _:
                return [_EINVAL, b""]
        return [0, b""]
    except Malformed:
        return [_EINVAL, b""]
    except OSError as error:
        return [error.errno or 5, b""]


def _checked(path: str) -> str:
    if not path or not _PATH.fullmatch(path):
        raise Malformed("path: expected plain names")
    return path
