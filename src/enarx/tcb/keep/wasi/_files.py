"""Descriptors for what the in-memory file system holds. Nothing here reaches a file of any other system.

The caller checks that a descriptor has the right of a call (``PATH_UNLINK_FILE`` for ``unlink_file`` ...).
Checked here are ``PATH_CREATE_FILE`` and ``PATH_FILESTAT_SET_SIZE``, which ``open`` needs for some flags, and
``FD_READ`` and ``FD_WRITE`` once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Final

from enarx.tcb.keep.wasi._abi import Errno, FdFlags, FileType, FstFlags, OFlags, Rights, WasiError, Whence
from enarx.tcb.keep.wasi._fds import Buffers, Descriptor, FileStat, Readiness
from enarx.tcb.keep.wasi._nodes import FIRST_COOKIE, Directory, File, Node, Symlink, names_of

if TYPE_CHECKING:
    from enarx.tcb.keep.wasi._vfs import FileSystem

MAX_OFFSET: Final = (1 << 63) - 1
_SHARED: Final = Rights.FD_DATASYNC | Rights.FD_SYNC | Rights.FD_FILESTAT_GET | Rights.FD_FILESTAT_SET_TIMES
FILE_RIGHTS: Final = (
    _SHARED
    | (Rights.FD_READ | Rights.FD_WRITE | Rights.FD_SEEK | Rights.FD_TELL | Rights.FD_FDSTAT_SET_FLAGS)
    | (Rights.FD_ADVISE | Rights.FD_ALLOCATE | Rights.FD_FILESTAT_SET_SIZE | Rights.POLL_FD_READWRITE)
)
_PATH_RIGHTS: Final = (right for right in Rights if str(right.name).startswith("PATH_"))
DIRECTORY_RIGHTS: Final = reduce(or_, _PATH_RIGHTS, _SHARED | Rights.FD_READDIR)


class _Open(Descriptor):
    """A descriptor for a node."""

    def __init__(self, fs: FileSystem, node: Node, rights: Rights, passed: Rights, flags: FdFlags) -> None:
        super().__init__(rights=rights, inheriting=passed, flags=flags)
        self._fs = fs
        self._node = node
        node.opens += 1

    def set_flags(self, flags: FdFlags) -> None:
        """Take the flags; memory is always in sync and never blocks, so only APPEND has an effect."""
        self.flags = flags

    def filestat(self) -> FileStat:
        return self._node.stat()

    def set_times(self, accessed: int, modified: int, flags: FstFlags) -> None:
        self._fs.set_times(self._node, accessed, modified, flags)

    def close(self) -> None:
        self._node.opens -= 1
        self._fs.forget(self._node)


class OpenNull(_Open):
    """``/dev/null``, opened: reads give the end, writes vanish."""

    filetype = FileType.CHARACTER_DEVICE

    def read(self, buffers: Buffers) -> int:
        return 0

    def write(self, buffers: Buffers) -> int:
        return sum(map(len, buffers))

    def seek(self, offset: int, whence: Whence) -> int:
        return 0


class OpenFile(_Open):
    """A regular file, opened; positions as in POSIX."""

    filetype = FileType.REGULAR_FILE

    def __init__(self, fs: FileSystem, file: File, rights: Rights, flags: FdFlags) -> None:
        super().__init__(fs, file, rights, Rights(0), flags)
        self._file = file
        self._position = 0

    def read(self, buffers: Buffers) -> int:
        size = self.pread(buffers, self._position)
        self._position += size
        return size

    def pread(self, buffers: Buffers, offset: int) -> int:
        # The operator of flags costs as much as reading 32 KiB.
        if not int.__and__(self.rights, Rights.FD_READ):
            raise WasiError(Errno.BADF)
        if offset > MAX_OFFSET:
            raise WasiError(Errno.INVAL)
        at = offset
        with memoryview(self._file.data) as data:
            end = len(data)
            for buffer in buffers:
                if at >= end:
                    break
                size = min(len(buffer), end - at)
                buffer[:size] = data[at : at + size]
                at += size
        self._file.accessed = self._fs.now()
        return at - offset

    def write(self, buffers: Buffers) -> int:
        """Write at the current position, or at the end with APPEND."""
        at = self._file.size if int.__and__(self.flags, FdFlags.APPEND) else self._position
        size = self.pwrite(buffers, at)
        self._position = at + size
        return size

    def pwrite(self, buffers: Buffers, offset: int) -> int:
        """Write at ``offset`` without moving the position; APPEND does not matter, as POSIX has it."""
        if not int.__and__(self.rights, Rights.FD_WRITE):
            raise WasiError(Errno.BADF)
        return self._fs.write(self._file, offset, buffers)

    def seek(self, offset: int, whence: Whence) -> int:
        """Move the position and give it; beyond the end is allowed."""
        match whence:
            case Whence.CUR:
                offset += self._position
            case Whence.END:
                offset += self._file.size
            case Whence.SET:
                pass
        if not 0 <= offset <= MAX_OFFSET:
            raise WasiError(Errno.INVAL)
        self._position = offset
        return offset

    def allocate(self, offset: int, length: int) -> None:
        """Make the file at least ``offset`` + ``length`` bytes long."""
        if not length:
            raise WasiError(Errno.INVAL)
        if offset + length > self._file.size:
            self._fs.resize(self._file, offset + length)

    def advise(self, offset: int, length: int, advice: int) -> None:
        """Take the hint and forget it."""
        if advice > 5 or offset > MAX_OFFSET or length > MAX_OFFSET:
            raise WasiError(Errno.INVAL)

    def set_size(self, size: int) -> None:
        self._fs.resize(self._file, size)

    def ready(self, *, write: bool) -> Readiness:
        return Readiness(available=0 if write else max(0, self._file.size - self._position))


class OpenDirectory(_Open):
    """A directory, opened: the capability from which paths start."""

    filetype = FileType.DIRECTORY

    def __init__(self, fs: FileSystem, directory: Directory, rights: Rights, inheriting: Rights) -> None:
        super().__init__(fs, directory, rights, inheriting, FdFlags(0))
        self._start = directory

    def seek(self, offset: int, whence: Whence) -> int:
        raise WasiError(Errno.BADF)

    def open(
        self, path: str, *, follow: bool, oflags: OFlags, rights: Rights, inheriting: Rights, flags: FdFlags
    ) -> Descriptor:
        """``path_open``: gives those of ``rights`` that this descriptor may pass on and that fit."""
        fs, granted = self._fs, rights & self.inheriting
        create, truncate = bool(oflags & OFlags.CREAT), bool(oflags & OFlags.TRUNC)
        if (create and Rights.PATH_CREATE_FILE not in self.rights) or (
            truncate and Rights.PATH_FILESTAT_SET_SIZE not in self.rights
        ):
            raise WasiError(Errno.PERM)
        if oflags & OFlags.DIRECTORY and oflags != OFlags.DIRECTORY:
            raise WasiError(Errno.INVAL)
        exclusive, slash = create and bool(oflags & OFlags.EXCL), path.endswith("/")
        follow = (follow or slash) and not (create and (exclusive or slash))
        place = fs.resolve(self._start, path, follow=follow)
        node = place.node
        if create and place.slash and place.name:
            raise WasiError(Errno.ISDIR)
        if node is None:
            if not create:
                raise WasiError(Errno.NOENT)
            fs.vacant(place)
            node = File(place.parent.volume, next(fs.inodes), fs.now())
            fs.attach(place.parent, place.name, node)
        elif exclusive:
            raise WasiError(Errno.EXIST)
        if isinstance(node, Directory):
            if create or truncate or Rights.FD_WRITE in granted:
                raise WasiError(Errno.ISDIR)
            return OpenDirectory(fs, node, granted & DIRECTORY_RIGHTS, inheriting & self.inheriting)
        if isinstance(node, Symlink):
            raise WasiError(Errno.LOOP)
        if place.slash or oflags & OFlags.DIRECTORY:
            raise WasiError(Errno.NOTDIR)
        if isinstance(node, File):
            if truncate or Rights.FD_WRITE in granted:
                fs.writable(node)
            if truncate:
                fs.resize(node, 0)
            return OpenFile(fs, node, granted & FILE_RIGHTS, flags)
        return OpenNull(fs, node, granted & FILE_RIGHTS, Rights(0), flags)

    def create_directory(self, path: str) -> None:
        """``path_create_directory``."""
        place = self._fs.resolve(self._start, path, follow=False)
        self._fs.vacant(place)
        made = Directory(place.parent.volume, next(self._fs.inodes), self._fs.now(), place.parent)
        self._fs.attach(place.parent, place.name, made)

    def filestat_at(self, path: str, *, follow: bool) -> FileStat:
        """``path_filestat_get``."""
        return self._fs.lookup(self._start, path, follow=follow).stat()

    def set_times_at(self, path: str, *, follow: bool, accessed: int, modified: int, flags: FstFlags) -> None:
        """``path_filestat_set_times``."""
        self._fs.set_times(self._fs.lookup(self._start, path, follow=follow), accessed, modified, flags)

    def link(self, old_path: str, *, follow: bool, target: OpenDirectory, new_path: str) -> None:
        """``path_link``."""
        node = self._fs.lookup(self._start, old_path, follow=follow)
        place = self._fs.resolve(target._start, new_path, follow=False)
        if place.node is None and place.slash:
            raise WasiError(Errno.NOENT)
        self._fs.vacant(place)
        if node.volume is not place.parent.volume:
            raise WasiError(Errno.XDEV)
        if isinstance(node, Directory):
            raise WasiError(Errno.PERM)
        self._fs.attach(place.parent, place.name, node)

    def readlink(self, path: str) -> bytes:
        """``path_readlink``: the whole target."""
        node = self._fs.lookup(self._start, path, follow=False)
        if not isinstance(node, Symlink):
            raise WasiError(Errno.INVAL)
        return node.target.encode()

    def remove_directory(self, path: str) -> None:
        """``path_remove_directory``."""
        place = self._fs.resolve(self._start, path, follow=False)
        if not place.name:
            raise WasiError(Errno.INVAL)
        node = self._fs.removable(place)
        if not isinstance(node, Directory):
            raise WasiError(Errno.NOTDIR)
        if node.entries:
            raise WasiError(Errno.NOTEMPTY)
        self._fs.detach(place.parent, place.name)

    def unlink_file(self, path: str) -> None:
        """``path_unlink_file``."""
        place = self._fs.resolve(self._start, path, follow=False)
        if isinstance(place.node, Directory):
            raise WasiError(Errno.ISDIR)
        self._fs.removable(place)
        if place.slash:
            raise WasiError(Errno.NOTDIR)
        self._fs.detach(place.parent, place.name)

    def rename(self, old_path: str, target: OpenDirectory, new_path: str) -> None:
        """``path_rename``."""
        fs = self._fs
        old = fs.resolve(self._start, old_path, follow=False)
        new = fs.resolve(target._start, new_path, follow=False)
        if not old.name or not new.name:
            raise WasiError(Errno.BUSY)
        if old.parent.volume is not new.parent.volume:
            raise WasiError(Errno.XDEV)
        node, there = fs.removable(old), new.node
        above = new.parent
        while above is not above.parent:
            if above is node:
                raise WasiError(Errno.INVAL)
            above = above.parent
        if not isinstance(node, Directory) and (old.slash or new.slash):
            raise WasiError(Errno.NOTDIR)
        if there is not None:
            if there is node:
                return
            fs.removable(new)
            if isinstance(there, Directory):
                if not isinstance(node, Directory):
                    raise WasiError(Errno.ISDIR)
                if there.entries:
                    raise WasiError(Errno.NOTEMPTY)
            elif isinstance(node, Directory):
                raise WasiError(Errno.NOTDIR)
            fs.detach(new.parent, new.name)
        else:
            fs.vacant(new)
        fs.move(node, old, new)

    def symlink(self, target: str, path: str) -> None:
        """``path_symlink``; an absolute target is refused, a climbing one when it is followed."""
        names_of(target)
        place = self._fs.resolve(self._start, path, follow=False)
        if place.slash and not isinstance(place.node, Directory):
            raise WasiError(Errno.NOENT if place.node is None else Errno.NOTDIR)
        self._fs.vacant(place)
        made = Symlink(place.parent.volume, next(self._fs.inodes), self._fs.now(), target)
        self._fs.attach(place.parent, place.name, made)

    def readdir(self, cookie: int) -> Iterator[tuple[int, int, bytes, FileType]]:
        """Give cookie of the next entry, inode, name and type of each entry from ``cookie`` on."""
        here = self._start
        here.accessed = self._fs.now()
        for number, name, node in ((0, b".", here), (1, b"..", here.parent)):
            if cookie <= number:
                yield number + 1, node.inode, name, FileType.DIRECTORY
        for following, text, entry in here.listing(max(cookie, FIRST_COOKIE)):
            yield following, entry.inode, text.encode(), entry.filetype
