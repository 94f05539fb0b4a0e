"""Directories of a component, as real ones in a file system that exists in this keep's mount namespace alone.

Nobody else can reach it, so nothing here needs to guard against a change in between; what the guest left behind is
read without following links all the same.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enarx.tcb.errors import EnarxError
from enarx.tcb.workload import Directory, Entry, EntryKind, Tree

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a directory lies and what the guest calls it."""

    path: str
    name: str
    writable: bool


class NativeFiles:
    """The directories of one run below ``root``."""

    def __init__(self, root: str, directories: Sequence[Directory]) -> None:
        self.hit = ""
        self.places = [
            Place(path=f"{root}/{number}", name=directory.name, writable=directory.writable)
            for number, directory in enumerate(directories)
        ]
        try:
            for place, directory in zip(self.places, directories, strict=True):
                os.mkdir(place.path, 0o700)
                _write(place.path, directory.tree)
            if all(place.name != "/" for place in self.places):
                self.places.append(Place(path=f"{root}/root", name="/", writable=True))
                os.mkdir(f"{root}/root", 0o700)
        except OSError as error:
            raise EnarxError(
                f"the files of the component cannot be laid out: {(error.strerror or '').lower()}",
                hint="raise --limit storage=… or files=…, or let this machine make mount namespaces",
            ) from None

    def harvest(self, name: str) -> Tree:
        """Give the content of the directory ``name`` as the guest left it."""
        path = next(place.path for place in self.places if place.name == name)
        return Tree(tuple(_entries(path, "")))


def _write(path: str, tree: Tree) -> None:
    for entry in tree.entries:
        target = f"{path}/{entry.path}"
        if entry.kind is EntryKind.DIRECTORY:
            os.mkdir(target, 0o700)
        elif entry.kind is EntryKind.SYMLINK:
            os.symlink(entry.data, os.fsencode(target))
        else:
            fd = os.open(target, _NEW, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(entry.data)
    for entry in reversed(tree.entries):  # a directory's time changes with its content
        times = (entry.modified_ns, entry.modified_ns)
        os.utime(f"{path}/{entry.path}", ns=times, follow_symlinks=False)


def _entries(base: str, prefix: str) -> Iterator[Entry]:
    for name in sorted(os.listdir(f"{base}/{prefix}")):
        path = f"{prefix}{name}"
        found = os.lstat(f"{base}/{path}")
        if stat.S_ISDIR(found.st_mode):
            yield Entry(path=path, kind=EntryKind.DIRECTORY, modified_ns=found.st_mtime_ns)
            yield from _entries(base, f"{path}/")
        elif stat.S_ISLNK(found.st_mode):
            target = os.readlink(os.fsencode(f"{base}/{path}"))
            yield Entry(path=path, kind=EntryKind.SYMLINK, data=target, modified_ns=found.st_mtime_ns)
        elif stat.S_ISREG(found.st_mode):
            with os.fdopen(os.open(f"{base}/{path}", _READ), "rb") as file:
                yield Entry(path=path, kind=EntryKind.FILE, data=file.read(), modified_ns=found.st_mtime_ns)
