"""What the in-memory file system is made of: volumes, and the files, directories and links on them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import ClassVar, Final, NamedTuple

from enarx.tcb.keep.wasi._abi import Errno, FileType, WasiError
from enarx.tcb.keep.wasi._fds import FileStat
from enarx.tcb.workload._tree import MAX_NAME_BYTES, MAX_PATH_BYTES

FIRST_COOKIE: Final = 2
"""Cookies 0 and 1 stand before ``.`` and ``..``."""


class Volume(NamedTuple):
    """One mounted tree; links and renames never leave it."""

    device: int
    writable: bool


class Node:
    """Something with an inode; ``links`` counts its names, ``opens`` its descriptors. Times are in ns."""

    __slots__ = ("accessed", "changed", "inode", "links", "modified", "opens", "volume")
    filetype: ClassVar[FileType]

    def __init__(self, volume: Volume, inode: int, now: int) -> None:
        self.volume = volume
        self.inode = inode
        self.links = self.opens = 0
        self.accessed = self.modified = self.changed = now

    @property
    def size(self) -> int:
        """The number of bytes that count against the quota."""
        return 0

    def stat(self) -> FileStat:
        """Give what ``filestat`` says."""
        times = {"accessed": self.accessed, "modified": self.modified, "changed": self.changed}
        what = {"device": self.volume.device, "inode": self.inode, "links": self.links, "size": self.size}
        return FileStat(filetype=self.filetype, **what, **times)


class Device(Node):
    """``/dev/null``."""

    __slots__ = ()
    filetype = FileType.CHARACTER_DEVICE


class File(Node):
    """A regular file. Delivered content stays the immutable bytes it came as until it is first changed."""

    __slots__ = ("data",)
    filetype = FileType.REGULAR_FILE

    def __init__(self, volume: Volume, inode: int, now: int, data: bytes | bytearray = b"") -> None:
        super().__init__(volume, inode, now)
        self.data = data

    @property
    def size(self) -> int:
        return len(self.data)

    def own(self) -> bytearray:
        """Give the content as a buffer that can be changed."""
        if not isinstance(self.data, bytearray):
            try:
                self.data = bytearray(self.data)
            except MemoryError:
                raise WasiError(Errno.NOMEM) from None
        return self.data


class Symlink(Node):
    """A symbolic link."""

    __slots__ = ("target",)
    filetype = FileType.SYMBOLIC_LINK

    def __init__(self, volume: Volume, inode: int, now: int, target: str) -> None:
        super().__init__(volume, inode, now)
        self.target = target

    @property
    def size(self) -> int:
        return len(self.target.encode())


class Directory(Node):
    """A directory. Each name gets a serial number that is its cookie, so that a listing survives changes."""

    __slots__ = ("_names", "_next", "_serials", "entries", "parent")
    filetype = FileType.DIRECTORY

    def __init__(self, volume: Volume, inode: int, now: int, parent: Directory | None = None) -> None:
        super().__init__(volume, inode, now)
        self.parent = parent or self
        self.entries: dict[str, tuple[int, Node]] = {}
        self._serials: list[int] = []
        self._names: list[str] = []
        self._next = FIRST_COOKIE

    def get(self, name: str) -> Node | None:
        """Give what ``name`` stands for."""
        found = self.entries.get(name)
        return found[1] if found else None

    def add(self, name: str, node: Node) -> None:
        """Enter ``name``, which is free, after all others."""
        self.entries[name] = self._next, node
        self._serials.append(self._next)
        self._names.append(name)
        self._next += 1

    def remove(self, name: str) -> None:
        """Take ``name`` out."""
        at = bisect_left(self._serials, self.entries.pop(name)[0])
        del self._serials[at], self._names[at]

    def retitle(self, old: str, new: str) -> None:
        """Give ``old`` the free name ``new`` in its place: a listing under way does not meet it again."""
        self.entries[new] = self.entries.pop(old)
        self._names[bisect_left(self._serials, self.entries[new][0])] = new

    def listing(self, cookie: int) -> Iterator[tuple[int, str, Node]]:
        """Give next cookie, name and node from ``cookie`` on; entries may come and go meanwhile."""
        while (at := bisect_left(self._serials, cookie)) < len(self._serials):
            cookie = self._serials[at] + 1
            name = self._names[at]
            yield cookie, name, self.entries[name][1]


def names_of(path: str) -> list[str]:
    """Cut ``path`` into its names, the first one last."""
    if not path:
        raise WasiError(Errno.NOENT)
    if "\0" in path:
        raise WasiError(Errno.INVAL)
    if path[0] == "/":
        raise WasiError(Errno.PERM)
    names = [name for name in path.split("/") if name]
    if len(path.encode()) > MAX_PATH_BYTES or any(len(name.encode()) > MAX_NAME_BYTES for name in names):
        raise WasiError(Errno.NAMETOOLONG)
    return names[::-1]
