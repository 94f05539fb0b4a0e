"""The file system of a workload: in the keep's memory, bounded, and with no way out.

A path is resolved from a directory descriptor along a trail of directories; ``..`` goes back along the trail
and never beyond its start, whatever symbolic links say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Final, NamedTuple

from enarx.tcb.errors import EnarxError
from enarx.tcb.keep.wasi._abi import Errno, FstFlags, WasiError
from enarx.tcb.keep.wasi._files import DIRECTORY_RIGHTS, FILE_RIGHTS, MAX_OFFSET, OpenDirectory
from enarx.tcb.keep.wasi._nodes import Device, Directory, File, Node, Symlink, Volume, names_of
from enarx.tcb.workload._tree import MAX_NAME_BYTES, MAX_PATH_BYTES, Entry, EntryKind, Tree

MAX_SYMLINKS: Final = 32
_ZEROS: Final = bytes(1 << 20)
_EXCLUSIVE: Final = (FstFlags.ATIM | FstFlags.ATIM_NOW, FstFlags.MTIM | FstFlags.MTIM_NOW)


class Place(NamedTuple):
    """Where a path leads: what is there, if anything, under which name in which directory.

    ``name`` is empty when the path ends in ``.`` or ``..``; ``slash`` says that it demands a directory.
    """

    parent: Directory
    name: str
    node: Node | None
    slash: bool


class FileSystem:
    """Volumes below one root. ``now`` gives nanoseconds since 1970.

    ``max_nodes`` bounds names (and unlinked files that are still open), ``max_bytes`` the sizes of files and
    symbolic links; both are checked before anything is allocated. ``hit`` names the limit that was met last.
    """

    def __init__(self, *, max_nodes: int, max_bytes: int, now: Callable[[], int]) -> None:
        self.now = now
        self.nodes = self.bytes = 0
        self.hit = ""
        self._max_nodes = max_nodes
        self._max_bytes = max_bytes
        self.inodes, self._devices = count(1), count(1)
        self.root = Directory(Volume(next(self._devices), True), next(self.inodes), now())
        dev = Directory(Volume(next(self._devices), False), next(self.inodes), now(), self.root)
        null = Device(dev.volume, next(self.inodes), now())
        self.root.links = dev.links = null.links = 1
        self.root.add("dev", dev)
        dev.add("null", null)

    # Paths

    def resolve(self, start: Directory, path: str, *, follow: bool) -> Place:
        """Walk ``path`` from ``start``; ``follow`` says whether a symbolic link at its end is followed."""
        trail, todo = [start], names_of(path)
        slash, links = path.endswith("/"), 0
        while todo:
            name = todo.pop()
            here = trail[-1]
            if name == ".":
                continue
            if name == "..":
                trail.pop()
                if not trail:
                    raise WasiError(Errno.PERM)
                continue
            node = here.get(name)
            if isinstance(node, Symlink) and (todo or follow):
                if (links := links + 1) > MAX_SYMLINKS:
                    raise WasiError(Errno.LOOP)
                slash = slash or (not todo and node.target.endswith("/"))
                todo += names_of(node.target)
            elif not todo:
                return Place(here, name, node, slash)
            elif isinstance(node, Directory):
                trail.append(node)
            else:
                raise WasiError(Errno.NOENT if node is None else Errno.NOTDIR)
        return Place(trail[-1].parent, "", trail[-1], True)

    def lookup(self, start: Directory, path: str, *, follow: bool) -> Node:
        """Give what is at ``path``."""
        place = self.resolve(start, path, follow=follow or path.endswith("/"))
        if place.node is None:
            raise WasiError(Errno.NOENT)
        if place.slash and not isinstance(place.node, Directory):
            raise WasiError(Errno.NOTDIR)
        return place.node

    # Changes

    def writable(self, node: Node) -> None:
        """Refuse a change on a read-only volume."""
        if not node.volume.writable:
            raise WasiError(Errno.ROFS)

    def vacant(self, place: Place) -> None:
        """Refuse unless a new name may be made at ``place``."""
        if place.node is not None:
            raise WasiError(Errno.EXIST)
        if not place.parent.links:
            raise WasiError(Errno.NOENT)
        self.writable(place.parent)

    def attach(self, parent: Directory, name: str, node: Node) -> None:
        """Enter ``node`` under ``name``, which is vacant."""
        if self.nodes >= self._max_nodes:
            self.hit = "files"
            raise WasiError(Errno.NOSPC)
        if not node.links:
            self._reserve(node.size)
            self.bytes += node.size
        self.nodes += 1
        parent.add(name, node)
        node.links += 1
        self.touch(parent, node)

    def detach(self, parent: Directory, name: str) -> None:
        """Take ``name`` out of ``parent``; what was there lives on while it has another name or is open."""
        node = parent.entries[name][1]
        parent.remove(name)
        node.links -= 1
        self.touch(parent, node)
        if node.links:
            self.nodes -= 1
        else:
            self.forget(node)

    def move(self, node: Node, old: Place, new: Place) -> None:
        """Give ``node`` a new name, which is free, for its old one."""
        if old.parent is new.parent:
            old.parent.retitle(old.name, new.name)
        else:
            old.parent.remove(old.name)
            new.parent.add(new.name, node)
            if isinstance(node, Directory):
                node.parent = new.parent
        self.touch(old.parent, node)
        self.touch(new.parent, node)

    def removable(self, place: Place) -> Node:
        """Give what is at ``place`` if its name may be taken away."""
        if place.node is None:
            raise WasiError(Errno.NOENT)
        self.writable(place.parent)
        if place.node.volume is not place.parent.volume:
            raise WasiError(Errno.BUSY)
        return place.node

    def forget(self, node: Node) -> None:
        """Free ``node`` if it has neither names nor open descriptors."""
        if node.links == node.opens == 0:
            self.nodes -= 1
            self.bytes -= node.size
            if isinstance(node, File):
                node.data = b""

    def touch(self, parent: Directory, node: Node) -> None:
        """Note that a name in ``parent`` changed."""
        parent.modified = parent.changed = node.changed = self.now()

    def set_times(self, node: Node, accessed: int, modified: int, flags: FstFlags) -> None:
        """Set the times that ``flags`` name."""
        if any(flags & pair == pair for pair in _EXCLUSIVE):
            raise WasiError(Errno.INVAL)
        self.writable(node)
        node.changed = now = self.now()
        if flags & _EXCLUSIVE[0]:
            node.accessed = accessed if flags & FstFlags.ATIM else now
        if flags & _EXCLUSIVE[1]:
            node.modified = modified if flags & FstFlags.MTIM else now

    # Contents

    def _reserve(self, more: int) -> None:
        if self.bytes + more > self._max_bytes:
            self.hit = "file system bytes"
            raise WasiError(Errno.NOSPC)

    def _extend(self, data: bytearray, piece: bytes | memoryview) -> None:
        try:
            data += piece
        except MemoryError:
            self.hit = "memory"
            raise WasiError(Errno.NOSPC) from None
        self.bytes += len(piece)

    def resize(self, file: File, size: int) -> None:
        """Cut ``file`` to ``size`` bytes or fill it up with zeros."""
        if size > MAX_OFFSET:
            raise WasiError(Errno.FBIG)
        self.writable(file)
        self._reserve(size - file.size)
        if size == 0:
            self.bytes -= file.size
            file.data = b""
        data = file.own()
        if size < len(data):
            self.bytes -= len(data) - size
            del data[size:]
        while len(data) < size:
            self._extend(data, _ZEROS[: size - len(data)])
        file.modified = file.changed = self.now()

    def write(self, file: File, at: int, buffers: Sequence[memoryview]) -> int:
        """Write ``buffers`` at ``at``; either there is room for all of them or nothing is written."""
        total = sum(map(len, buffers))
        if not total:
            return 0
        end = at + total
        if end > MAX_OFFSET:
            raise WasiError(Errno.FBIG)
        if end > file.size:
            self._reserve(end - file.size)
            if at > file.size:
                self.resize(file, at)
        data = file.own()
        for buffer in buffers:
            inside = min(len(buffer), len(data) - at)
            if inside:
                memoryview(data)[at : at + inside] = buffer[:inside]
            if inside < len(buffer):
                self._extend(data, buffer[inside:])
            at += len(buffer)
        file.modified = file.changed = self.now()
        return total

    # Delivery

    def _directory(self, path: str) -> Directory:
        """Give the directory at ``path`` from the root, made where it is missing."""
        here = self.root
        for name in path.split("/"):
            if name in ("", "."):
                continue
            node = here.get(name)
            if node is None and name != ".." and "\0" not in name and len(name.encode()) <= MAX_NAME_BYTES:
                node = Directory(here.volume, next(self.inodes), self.now(), here)
                self._deliver(here, name, node, path)
            if not isinstance(node, Directory):
                raise EnarxError(f"directory {path!r}: {name!r} cannot be a directory in the keep")
            here = node
        return here

    def _deliver(self, parent: Directory, name: str, node: Node, path: str) -> None:
        try:
            self.attach(parent, name, node)
        except WasiError:
            raise EnarxError(f"directory {path!r}: exceeds the limit of {self.hit}") from None

    def mount(self, tree: Tree, path: str, writable: bool) -> None:
        """Put ``tree`` at ``path``, where there may only be other mounts. Raises ``EnarxError``."""
        top = self._directory(path)
        used = any(node.volume is top.volume for _, node in top.entries.values())
        if used or top.volume is not top.parent.volume:
            raise EnarxError(f"directory {path!r}: something is there already")
        top.volume = Volume(next(self._devices), writable)
        made: dict[str, Node] = {"": top}
        for entry in tree.entries:
            above, _, name = entry.path.rpartition("/")
            parent = made[above]
            if not isinstance(parent, Directory) or parent.get(name) is not None:
                raise EnarxError(f"directory {path!r}: {entry.path!r} is there already")
            at = top.volume, next(self.inodes), entry.modified_ns
            match entry.kind:
                case EntryKind.FILE:
                    node: Node = File(*at, entry.data)
                case EntryKind.SYMLINK:
                    node = Symlink(*at, entry.data.decode())
                case EntryKind.DIRECTORY:
                    node = Directory(*at, parent)
            self._deliver(parent, name, node, path)
            made[entry.path] = node
        for entry in tree.entries:
            made[entry.path].modified = entry.modified_ns

    def harvest(self, path: str) -> Tree:
        """Give the tree at ``path``, without what is mounted in it. Raises ``EnarxError`` if it is too large.

        A file with several names comes out as often, so the limit of bytes counts once more.
        """
        top = self._directory(path)
        entries: list[Entry] = []
        size, todo = 0, [("", top)]
        while todo:
            prefix, here = todo.pop()
            for name, (_, node) in here.entries.items():
                data, kind = b"", EntryKind.DIRECTORY
                if node.volume is not top.volume:
                    continue
                size += node.size
                if size > self._max_bytes or len(prefix) > MAX_PATH_BYTES:
                    raise EnarxError(f"directory {path!r}: too large or too deep to be given back")
                if isinstance(node, Directory):
                    todo.append((f"{prefix}{name}/", node))
                elif isinstance(node, Symlink):
                    data, kind = node.target.encode(), EntryKind.SYMLINK
                elif isinstance(node, File):
                    data, kind = bytes(node.data), EntryKind.FILE
                entries.append(Entry(path=prefix + name, kind=kind, data=data, modified_ns=node.modified))
        return Tree(tuple(sorted(entries, key=lambda entry: entry.path)))

    def preopen(self, path: str, name: str) -> OpenDirectory:
        """Give a descriptor for the directory at ``path``, which the guest finds under ``name``."""
        opened = OpenDirectory(self, self._directory(path), DIRECTORY_RIGHTS, DIRECTORY_RIGHTS | FILE_RIGHTS)
        opened.preopen_name = name.encode()
        return opened
