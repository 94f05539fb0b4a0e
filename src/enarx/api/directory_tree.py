"""Copies of directories: read once, by descriptor, without following what others put in the way.

No step follows a symbolic link, so that nobody who writes in a directory can lead us out of it (O_NOFOLLOW at each
level). A file that changes while it is read is an error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from enarx.tcb.errors import EnarxError
from enarx.tcb.workload import Entry, EntryKind, Tree

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK: Final = 1 << 20
MAX_DEPTH: Final = 100


class _Reader:
    """Copies one directory within limits."""

    def __init__(self, path: str, max_bytes: int, max_entries: int) -> None:
        self._path = path
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._left = max_bytes
        self.entries: list[Entry] = []

    def directory(self, fd: int, prefix: str) -> None:
        for name in sorted(os.listdir(fd)):
            path = prefix + name
            if len(self.entries) >= self._max_entries:
                raise EnarxError(f"directory {self._path}: more than {self._max_entries} files")
            if path.count("/") > MAX_DEPTH:
                raise EnarxError(f"{self._path}/{path}: lies deeper than {MAX_DEPTH} directories")
            with failing(self._path, path):
                self._entry(fd, name, path)

    def _entry(self, fd: int, name: str, path: str) -> None:
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            target = os.fsencode(os.readlink(name, dir_fd=fd))
            self._add(path, EntryKind.SYMLINK, target, found)
        elif stat.S_ISDIR(found.st_mode):
            with opened(name, DIRECTORY, fd) as inner:
                self._add(path, EntryKind.DIRECTORY, b"", os.fstat(inner))
                self.directory(inner, path + "/")
        elif stat.S_ISREG(found.st_mode):
            with opened(name, FILE, fd) as inner:
                before = os.fstat(inner)
                if not stat.S_ISREG(before.st_mode):
                    raise EnarxError(f"{self._path}/{path}: was replaced while it was read")
                self._add(path, EntryKind.FILE, self._content(inner, before, path), before)
        else:
            raise EnarxError(
                f"{self._path}/{path}: neither file, directory nor symbolic link",
                hint="move it out of the directory",
            )

    def _add(self, path: str, kind: EntryKind, data: bytes, found: os.stat_result) -> None:
        self.entries.append(Entry(path=path, kind=kind, data=data, modified_ns=max(0, found.st_mtime_ns)))

    def _content(self, fd: int, before: os.stat_result, path: str) -> bytes:
        if before.st_size > self._left:
            raise EnarxError(f"directory {self._path}: more than {self._max_bytes} bytes")
        data = bytearray()
        while chunk := os.read(fd, min(_CHUNK, before.st_size + 1 - len(data))):
            data += chunk
            if len(data) > before.st_size:
                break
        after = os.fstat(fd)
        if len(data) != before.st_size or (after.st_size, after.st_mtime_ns) != (
            before.st_size,
            before.st_mtime_ns,
        ):
            raise EnarxError(
                f"{self._path}/{path}: changed while it was read", hint="try again when it rests"
            )
        self._left -= len(data)
        return bytes(data)


def read_tree(path: str, *, max_bytes: int, max_entries: int) -> Tree:
    """Copy the directory at ``path``. Raises ``EnarxError`` naming what cannot be copied or is too much.

    A symbolic link is copied as a link, also one that leads out; in the keep it leads nowhere.
    """
    with opened_top(path) as fd:
        return read_open_tree(fd, path, max_bytes=max_bytes, max_entries=max_entries)


def read_open_tree(fd: int, path: str, *, max_bytes: int, max_entries: int) -> Tree:
    """Copy the directory that ``fd`` is; errors call it ``path``. Otherwise like ``read_tree``."""
    reader = _Reader(path, max_bytes, max_entries)
    reader.directory(fd, "")
    return Tree(tuple(sorted(reader.entries, key=lambda entry: entry.path)))


@contextlib.contextmanager
def opened_top(path: str) -> Iterator[int]:
    """Open the directory that the user named; this one name may be a symbolic link."""
    with contextlib.ExitStack() as stack:
        with failing(path):
            fd = stack.enter_context(opened(path, DIRECTORY & ~os.O_NOFOLLOW))
        yield fd


@contextlib.contextmanager
def opened(name: str, flags: int, dir_fd: int | None = None) -> Iterator[int]:
    """Open something for a while. Raises ``OSError``."""
    fd = os.open(name, flags, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def failing(*path: str) -> Iterator[None]:
    """Turn what the operating system refuses into our error, with the path."""
    try:
        yield
    except OSError as error:
        raise EnarxError(f"{'/'.join(path)}: {os.strerror(error.errno or errno.EIO).lower()}") from None
