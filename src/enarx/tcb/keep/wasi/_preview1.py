"""The functions of ``wasi_snapshot_preview1``, one method each, named as in the witx definition.

Arguments are the guest's numbers, unsigned and unchecked; methods give 0 or raise ``WasiError``. The class holds no
policy: what a descriptor can do is the descriptor's own affair (``_fds.py``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Final

from enarx.tcb.keep.wasi import _clock
from enarx.tcb.keep.wasi._abi import (
    DIRENT,
    FDSTAT,
    LOOKUP_SYMLINK_FOLLOW,
    PREOPEN_DIRECTORY,
    PREOPEN_UNKNOWN,
    PRESTAT,
    Errno,
    FdFlags,
    FstFlags,
    OFlags,
    Rights,
    WasiError,
    Whence,
)
from enarx.tcb.keep.wasi._fds import MAX_FD, Descriptor, Table
from enarx.tcb.keep.wasi._files import OpenDirectory
from enarx.tcb.keep.wasi._memory import GuestMemory
from enarx.tcb.keep.wasi._poll import Poll

MODULE: Final = "wasi_snapshot_preview1"

SIGNATURES: Final = {
    "args_get": "ii",
    "args_sizes_get": "ii",
    "environ_get": "ii",
    "environ_sizes_get": "ii",
    "clock_res_get": "ii",
    "clock_time_get": "iIi",
    "fd_advise": "iIIi",
    "fd_allocate": "iII",
    "fd_close": "i",
    "fd_datasync": "i",
    "fd_fdstat_get": "ii",
    "fd_fdstat_set_flags": "ii",
    "fd_fdstat_set_rights": "iII",
    "fd_filestat_get": "ii",
    "fd_filestat_set_size": "iI",
    "fd_filestat_set_times": "iIIi",
    "fd_pread": "iiiIi",
    "fd_prestat_get": "ii",
    "fd_prestat_dir_name": "iii",
    "fd_pwrite": "iiiIi",
    "fd_read": "iiii",
    "fd_readdir": "iiiIi",
    "fd_renumber": "ii",
    "fd_seek": "iIii",
    "fd_sync": "i",
    "fd_tell": "ii",
    "fd_write": "iiii",
    "path_create_directory": "iii",
    "path_filestat_get": "iiiii",
    "path_filestat_set_times": "iiiiIIi",
    "path_link": "iiiiiii",
    "path_open": "iiiiiIIii",
    "path_readlink": "iiiiii",
    "path_remove_directory": "iii",
    "path_rename": "iiiiii",
    "path_symlink": "iiiii",
    "path_unlink_file": "iii",
    "poll_oneoff": "iiii",
    "proc_exit": "i",
    "proc_raise": "i",
    "random_get": "ii",
    "sched_yield": "",
    "sock_accept": "iii",
    "sock_recv": "iiiiii",
    "sock_send": "iiiii",
    "sock_shutdown": "ii",
}
"""Every function with its parameters: ``i`` 32 bits, ``I`` 64 bits. All but ``proc_exit`` answer an ``errno``."""

_RANDOM_CHUNK: Final = 1 << 20
_ALL_FLAGS: Final = 31
_FD_READ, _FD_WRITE = Rights.FD_READ, Rights.FD_WRITE  # looking members up takes time in the hottest calls


class GuestExit(BaseException):
    """The guest called ``proc_exit``; a ``BaseException`` so that nothing on the way takes it for an error."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


class Preview1:
    """What one guest sees of the world."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._arguments: Sequence[bytes] = ()
        self._environment: Sequence[bytes] = ()
        self.table = Table(limit=0)

    def set_up(
        self, *, arguments: Iterable[str], environment: Iterable[tuple[str, str]], table: Table
    ) -> None:
        """Give the guest its command line, environment and descriptors."""
        self._arguments = [argument.encode() for argument in arguments]
        self._environment = [f"{name}={value}".encode() for name, value in environment]
        self.table = table

    # Command line and environment

    def args_sizes_get(self, count: int, size: int) -> int:
        return self._sizes(self._arguments, count, size)

    def args_get(self, pointers: int, data: int) -> int:
        return self._strings(self._arguments, pointers, data)

    def environ_sizes_get(self, count: int, size: int) -> int:
        return self._sizes(self._environment, count, size)

    def environ_get(self, pointers: int, data: int) -> int:
        return self._strings(self._environment, pointers, data)

    def _sizes(self, strings: Sequence[bytes], count: int, size: int) -> int:
        self._memory.write_u32(count, len(strings))
        self._memory.write_u32(size, sum(len(string) + 1 for string in strings))
        return 0

    def _strings(self, strings: Sequence[bytes], pointers: int, data: int) -> int:
        for string in strings:
            self._memory.write_u32(pointers, data)
            self._memory.write(data, string + b"\0")
            pointers += 4
            data += len(string) + 1
        return 0

    # Clocks, randomness, scheduling, the end

    def clock_res_get(self, clock: int, result: int) -> int:
        self._memory.write_u64(result, _clock.resolution(clock))
        return 0

    def clock_time_get(self, clock: int, _precision: int, result: int) -> int:
        self._memory.write_u64(result, _clock.now(clock))
        return 0

    def random_get(self, pointer: int, size: int) -> int:
        view = self._memory.slice(pointer, size)
        for at in range(0, size, _RANDOM_CHUNK):
            chunk = view[at : at + _RANDOM_CHUNK]
            chunk[:] = os.urandom(len(chunk))
        return 0

    def sched_yield(self) -> int:
        os.sched_yield()
        return 0

    def proc_exit(self, code: int) -> int:
        raise GuestExit(code)

    def proc_raise(self, _signal: int) -> int:
        raise WasiError(Errno.NOTSUP)

    def poll_oneoff(self, subscriptions: int, events: int, count: int, result: int) -> int:
        found = Poll(self._memory, subscriptions, count, self.table).events()
        self._memory.write(events, b"".join(found))
        self._memory.write_u32(result, len(found))
        return 0

    # Descriptors of any kind

    def fd_close(self, fd: int) -> int:
        self.table.close(fd)
        return 0

    def fd_renumber(self, source: int, target: int) -> int:
        if target > MAX_FD:
            raise WasiError(Errno.BADF)
        self.table.renumber(source, target)
        return 0

    def fd_fdstat_get(self, fd: int, result: int) -> int:
        it = self.table.get(fd)
        self._memory.write(result, FDSTAT.pack(it.filetype, it.flags, it.rights, it.inheriting))
        return 0

    def fd_fdstat_set_flags(self, fd: int, flags: int) -> int:
        if flags > _ALL_FLAGS:
            raise WasiError(Errno.INVAL)
        self.table.get(fd, Rights.FD_FDSTAT_SET_FLAGS).set_flags(FdFlags(flags))
        return 0

    def fd_fdstat_set_rights(self, fd: int, rights: int, inheriting: int) -> int:
        it = self.table.get(fd)
        if rights & ~it.rights or inheriting & ~it.inheriting:
            raise WasiError(Errno.NOTCAPABLE)
        it.rights, it.inheriting = Rights(rights), Rights(inheriting)
        return 0

    def fd_read(self, fd: int, vectors: int, count: int, result: int) -> int:
        memory = self._memory
        size = self.table.get(fd, _FD_READ).read(memory.vectors(vectors, count))
        memory.write_u32(result, size)
        return 0

    def fd_write(self, fd: int, vectors: int, count: int, result: int) -> int:
        memory = self._memory
        size = self.table.get(fd, _FD_WRITE).write(memory.vectors(vectors, count))
        memory.write_u32(result, size)
        return 0

    def fd_pread(self, fd: int, vectors: int, count: int, offset: int, result: int) -> int:
        it = self.table.get(fd, Rights.FD_READ)
        self._memory.write_u32(result, it.pread(self._memory.vectors(vectors, count), offset))
        return 0

    def fd_pwrite(self, fd: int, vectors: int, count: int, offset: int, result: int) -> int:
        it = self.table.get(fd, Rights.FD_WRITE)
        self._memory.write_u32(result, it.pwrite(self._memory.vectors(vectors, count), offset))
        return 0

    def fd_seek(self, fd: int, offset: int, whence: int, result: int) -> int:
        if whence > Whence.END:
            raise WasiError(Errno.INVAL)
        distance = _signed(offset)
        tells = distance == 0 and whence == Whence.CUR
        it = self.table.get(fd)
        _need(it, Rights.FD_TELL if tells else Rights.FD_SEEK, _not_seekable(it))
        self._memory.write_u64(result, it.seek(distance, Whence(whence)))
        return 0

    def fd_tell(self, fd: int, result: int) -> int:
        it = self.table.get(fd)
        _need(it, Rights.FD_TELL, _not_seekable(it))
        self._memory.write_u64(result, it.seek(0, Whence.CUR))
        return 0

    def fd_sync(self, fd: int) -> int:
        self.table.get(fd, Rights.FD_SYNC).sync()
        return 0

    def fd_datasync(self, fd: int) -> int:
        self.table.get(fd, Rights.FD_DATASYNC).sync()
        return 0

    def fd_advise(self, fd: int, offset: int, length: int, advice: int) -> int:
        self.table.get(fd).advise(offset, length, advice)
        return 0

    def fd_allocate(self, fd: int, offset: int, length: int) -> int:
        self.table.get(fd, Rights.FD_ALLOCATE).allocate(offset, length)
        return 0

    def fd_filestat_get(self, fd: int, result: int) -> int:
        self._memory.write(result, self.table.get(fd, Rights.FD_FILESTAT_GET).filestat().pack())
        return 0

    def fd_filestat_set_size(self, fd: int, size: int) -> int:
        self.table.get(fd, Rights.FD_FILESTAT_SET_SIZE).set_size(size)
        return 0

    def fd_filestat_set_times(self, fd: int, accessed: int, modified: int, flags: int) -> int:
        it = self.table.get(fd, Rights.FD_FILESTAT_SET_TIMES)
        it.set_times(accessed, modified, _times(flags))
        return 0

    def fd_prestat_get(self, fd: int, result: int) -> int:
        name = self._preopen(fd).preopen_name
        kind = PREOPEN_UNKNOWN if name is None else PREOPEN_DIRECTORY
        self._memory.write(result, PRESTAT.pack(kind, len(name or b"")))
        return 0

    def fd_prestat_dir_name(self, fd: int, pointer: int, size: int) -> int:
        name = self._preopen(fd).preopen_name
        if name is None:
            raise WasiError(Errno.NOTDIR)
        if size < len(name):
            raise WasiError(Errno.NAMETOOLONG)
        self._memory.write(pointer, name)
        return 0

    def _preopen(self, fd: int) -> Descriptor:
        """Give ``fd`` if it is a preopened directory or lies before one.

        C libraries scan upwards from 3 for directories and stop at the first BADF, so a socket among the first
        descriptors must answer something else as long as a directory follows.
        """
        it = self.table.get(fd)
        if it.preopen_name is None and all(
            number < fd or other.preopen_name is None for number, other in self.table.items()
        ):
            raise WasiError(Errno.BADF)
        return it

    # Directories and paths

    def _directory(self, fd: int, rights: Rights) -> OpenDirectory:
        it = self.table.get(fd)
        if not isinstance(it, OpenDirectory):
            raise WasiError(Errno.NOTDIR)
        _need(it, rights, Errno.NOTCAPABLE)
        return it

    def fd_readdir(self, fd: int, pointer: int, size: int, cookie: int, result: int) -> int:
        directory = self._directory(fd, Rights.FD_READDIR)
        view = self._memory.slice(pointer, size)
        used = 0
        for following, inode, name, kind in directory.readdir(cookie):
            entry = DIRENT.pack(following, inode, len(name), kind) + name
            part = entry[: size - used]
            view[used : used + len(part)] = part
            used += len(part)
            if used == size:
                break
        self._memory.write_u32(result, used)
        return 0

    def path_create_directory(self, fd: int, path: int, size: int) -> int:
        directory = self._directory(fd, Rights.PATH_CREATE_DIRECTORY)
        directory.create_directory(self._memory.text(path, size))
        return 0

    def path_filestat_get(self, fd: int, flags: int, path: int, size: int, result: int) -> int:
        directory = self._directory(fd, Rights.PATH_FILESTAT_GET)
        stat = directory.filestat_at(
            self._memory.text(path, size), follow=bool(flags & LOOKUP_SYMLINK_FOLLOW)
        )
        self._memory.write(result, stat.pack())
        return 0

    def path_filestat_set_times(
        self, fd: int, lookup: int, path: int, size: int, accessed: int, modified: int, flags: int
    ) -> int:
        self._directory(fd, Rights.PATH_FILESTAT_SET_TIMES).set_times_at(
            self._memory.text(path, size),
            follow=bool(lookup & LOOKUP_SYMLINK_FOLLOW),
            accessed=accessed,
            modified=modified,
            flags=_times(flags),
        )
        return 0

    def path_link(
        self, fd: int, flags: int, path: int, size: int, new_fd: int, new_path: int, new_size: int
    ) -> int:
        source = self._directory(fd, Rights.PATH_LINK_SOURCE)
        target = self._directory(new_fd, Rights.PATH_LINK_TARGET)
        names = self._memory.text(path, size), self._memory.text(new_path, new_size)
        source.link(names[0], follow=bool(flags & LOOKUP_SYMLINK_FOLLOW), target=target, new_path=names[1])
        return 0

    def path_open(
        self,
        fd: int,
        lookup: int,
        path: int,
        size: int,
        oflags: int,
        rights: int,
        inheriting: int,
        flags: int,
        result: int,
    ) -> int:
        directory = self._directory(fd, Rights.PATH_OPEN)
        if oflags > 15 or flags > _ALL_FLAGS:
            raise WasiError(Errno.INVAL)
        name = self._memory.text(path, size)
        self._memory.slice(result, 4)
        opened = directory.open(
            name,
            follow=bool(lookup & LOOKUP_SYMLINK_FOLLOW),
            oflags=OFlags(oflags),
            rights=Rights(rights),
            inheriting=Rights(inheriting),
            flags=FdFlags(flags),
        )
        self._memory.write_u32(result, self._enter(opened))
        return 0

    def _enter(self, opened: Descriptor) -> int:
        try:
            return self.table.add(opened)
        except WasiError:
            opened.close()
            raise

    def path_readlink(self, fd: int, path: int, size: int, pointer: int, space: int, result: int) -> int:
        directory = self._directory(fd, Rights.PATH_READLINK)
        view = self._memory.slice(pointer, space)
        target = directory.readlink(self._memory.text(path, size))[:space]
        view[: len(target)] = target
        self._memory.write_u32(result, len(target))
        return 0

    def path_remove_directory(self, fd: int, path: int, size: int) -> int:
        directory = self._directory(fd, Rights.PATH_REMOVE_DIRECTORY)
        directory.remove_directory(self._memory.text(path, size))
        return 0

    def path_rename(self, fd: int, path: int, size: int, new_fd: int, new_path: int, new_size: int) -> int:
        source = self._directory(fd, Rights.PATH_RENAME_SOURCE)
        target = self._directory(new_fd, Rights.PATH_RENAME_TARGET)
        source.rename(self._memory.text(path, size), target, self._memory.text(new_path, new_size))
        return 0

    def path_symlink(self, target: int, target_size: int, fd: int, path: int, size: int) -> int:
        directory = self._directory(fd, Rights.PATH_SYMLINK)
        directory.symlink(self._memory.text(target, target_size), self._memory.text(path, size))
        return 0

    def path_unlink_file(self, fd: int, path: int, size: int) -> int:
        directory = self._directory(fd, Rights.PATH_UNLINK_FILE)
        directory.unlink_file(self._memory.text(path, size))
        return 0

    # Sockets

    def sock_accept(self, fd: int, flags: int, result: int) -> int:
        if flags & ~FdFlags.NONBLOCK:
            raise WasiError(Errno.INVAL)
        self._memory.slice(result, 4)
        it = self.table.get(fd)
        accepted = it.accept(FdFlags(flags))
        self._memory.write_u32(result, self._enter(accepted))
        return 0

    def sock_recv(self, fd: int, vectors: int, count: int, flags: int, size: int, out_flags: int) -> int:
        it = self.table.get(fd)
        received, found = it.receive(self._memory.vectors(vectors, count), flags)
        self._memory.write_u32(size, received)
        self._memory.slice(out_flags, 2)[:] = found.to_bytes(2, "little")
        return 0

    def sock_send(self, fd: int, vectors: int, count: int, flags: int, size: int) -> int:
        it = self.table.get(fd)
        if flags:
            raise WasiError(Errno.NOTSUP)
        self._memory.write_u32(size, it.send(self._memory.vectors(vectors, count)))
        return 0

    def sock_shutdown(self, fd: int, how: int) -> int:
        it = self.table.get(fd)
        if not 0 < how <= 3:
            raise WasiError(Errno.INVAL)
        it.shutdown(how)
        return 0


def _need(descriptor: Descriptor, rights: Rights, errno: Errno) -> None:
    if rights & ~descriptor.rights:
        raise WasiError(errno)


def _not_seekable(descriptor: Descriptor) -> Errno:
    return Errno.BADF if isinstance(descriptor, OpenDirectory) else Errno.SPIPE


def _times(flags: int) -> FstFlags:
    if flags > 15:
        raise WasiError(Errno.INVAL)
    return FstFlags(flags)
