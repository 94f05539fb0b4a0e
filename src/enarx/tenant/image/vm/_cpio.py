"""Write the archive that Linux unpacks as its first file system: cpio in the "newc" form.

The same entries always give the same bytes: sorted by path, owner 0, time 0, inodes counted from 1.
Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from enarx.tcb.errors import Malformed

MAGIC: Final = "070701"
TRAILER: Final = "TRAILER!!!"
BLOCK_BYTES: Final = 512
MAX_PATH_BYTES: Final = 4095
MAX_CONTENT_BYTES: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file, directory or device; ``mode`` holds its kind as well."""

    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory() -> Entry:
    """A directory."""
    return Entry(mode=stat.S_IFDIR | 0o755)


def file(content: bytes, *, executable: bool = False) -> Entry:
    """A file that nobody may write."""
    return Entry(mode=stat.S_IFREG | (0o555 if executable else 0o444), content=content)


def character_device(major: int, minor: int, *, mode: int = 0o600) -> Entry:
    """A device node."""
    return Entry(mode=stat.S_IFCHR | mode, device=(major, minor))


def cpio(entries: Mapping[str, Entry]) -> bytes:
    """Pack ``entries``, whose paths have no slash at their ends; missing parent directories are added.

    Raises ``Malformed`` for a path or a content that the form cannot hold.
    """
    whole = {**{parent: directory() for parent in _parents(entries)}, **entries}
    chunks: list[bytes] = []
    for inode, path in enumerate(sorted(whole), 1):
        _check(path, whole[path])
        chunks += _member(path, whole[path], inode)
    chunks += _member(TRAILER, Entry(mode=0), 0)
    size = sum(map(len, chunks))
    return b"".join([*chunks, bytes(-size % BLOCK_BYTES)])


def _parents(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        parts = path.split("/")
        yield from ("/".join(parts[:depth]) for depth in range(1, len(parts)))


def _check(path: str, entry: Entry) -> None:
    parts = path.split("/")
    if not all(parts) or {".", ".."} & set(parts) or "\0" in path or len(path.encode()) > MAX_PATH_BYTES:
        raise Malformed(f"archive: path is {path!r}, expected names between single slashes")
    if len(entry.content) > MAX_CONTENT_BYTES:
        raise Malformed(f"archive: {path} has {len(entry.content)} bytes, limit is {MAX_CONTENT_BYTES}")


def _member(path: str, entry: Entry, inode: int) -> list[bytes]:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    owner, group, mtime, check = 0, 0, 0, 0
    fields = (
        inode,
        entry.mode,
        owner,
        group,
        links,
        mtime,
        len(entry.content),
        0,
        0,  # the device that holds the file
        *entry.device,
        len(name),
        check,
    )
    head = MAGIC.encode() + b"".join(b"%08X" % field for field in fields) + name
    return [head, bytes(-len(head) % 4), entry.content, bytes(-len(entry.content) % 4)]
