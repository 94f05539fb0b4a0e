"""Directories of the host: copied for a workload, and changed after it. The host's side, with the host's trust.

Every step goes by descriptor and follows no symbolic link, so that nobody who writes in a directory can lead us out
of it (O_NOFOLLOW at each level). Files are read once; a file that changes meanwhile is an error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from typing import Final

from enarx.tcb.errors import EnarxError
from enarx.tcb.record import record
from enarx.tcb.workload import Entry, EntryKind, Tree

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK: Final = 1 << 20
MAX_DEPTH: Final = 100


@record
class Changes:
    """What ``write_changes`` did, as paths; ``refused`` names links that would lead out of the directory."""

    written: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


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
            with _failing(self._path, path):
                self._entry(fd, name, path)

    def _entry(self, fd: int, name: str, path: str) -> None:
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            target = os.fsencode(os.readlink(name, dir_fd=fd))
            self._add(path, EntryKind.SYMLINK, target, found)
        elif stat.S_ISDIR(found.st_mode):
            with _opened(name, _DIRECTORY, fd) as inner:
                self._add(path, EntryKind.DIRECTORY, b"", os.fstat(inner))
                self.directory(inner, path + "/")
        elif stat.S_ISREG(found.st_mode):
            with _opened(name, _FILE, fd) as inner:
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
    reader = _Reader(path, max_bytes, max_entries)
    with _top(path) as fd:
        reader.directory(fd, "")
    return Tree(tuple(sorted(reader.entries, key=lambda entry: entry.path)))


def write_changes(path: str, before: Tree, after: Tree) -> Changes:
    """Bring what a workload changed from ``before`` to ``after`` into the directory at ``path``.

    What the workload left alone is left alone; files appear whole or not at all. Raises ``EnarxError``, before
    anything is written, when the host has meanwhile changed something that the workload changed too.
    """
    old = {entry.path: entry for entry in before.entries}
    new = {entry.path: entry for entry in after.entries}
    touched = [entry for entry in after.entries if old.get(entry.path) != entry]
    refused = {entry.path for entry in touched if entry.kind is EntryKind.SYMLINK and leads_out(entry)}
    gone = [it for it in old if it not in new or _is_directory(old[it]) != _is_directory(new[it])]
    written = [it for it in touched if it.path not in refused and not _is_directory(it, old.get(it.path))]
    with _top(path) as top:
        for name in sorted({*gone, *(entry.path for entry in written)}):
            with _failing(path, name):
                unchanged = _unchanged(top, name, old)
            if not unchanged:
                raise EnarxError(
                    f"{path}/{name}: changed both by the workload and on the host",
                    hint="the directory is as the host left it; give the workload one of its own",
                )
        for name in sorted(gone, reverse=True):
            with _failing(path, name), _parent(top, name) as (fd, last):
                (os.rmdir if _is_directory(old[name]) else os.unlink)(last, dir_fd=fd)
        for entry in written:
            with _failing(path, entry.path), _parent(top, entry.path) as (fd, last):
                _write(fd, last, entry, old.get(entry.path))
        for entry in reversed(touched):
            if _is_directory(entry):
                with _failing(path, entry.path), _parent(top, entry.path) as (fd, last):
                    _set_time(last, fd, entry)
    return Changes(
        written=tuple(entry.path for entry in written),
        deleted=tuple(sorted(it for it in gone if it not in new)),
        refused=tuple(sorted(refused)),
    )


def leads_out(link: Entry) -> bool:
    """Say whether a link may lead out of its tree; where ``..`` follows a name, another link could decide."""
    names = [name for name in link.data.decode().split("/") if name not in ("", ".")]
    climbs = next((index for index, name in enumerate(names) if name != ".."), len(names))
    return link.data.startswith(b"/") or climbs > link.path.count("/") or ".." in names[climbs:]


def _is_directory(*entries: Entry | None) -> bool:
    return all(entry is not None and entry.kind is EntryKind.DIRECTORY for entry in entries)


def _unchanged(top: int, path: str, old: Mapping[str, Entry]) -> bool:
    """Say whether the host still has at ``path`` what was there before."""
    expected = old.get(path)
    try:
        with _parent(top, path) as (fd, name):
            try:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                return expected is None
            if expected is None:
                return False
            match expected.kind:
                case EntryKind.DIRECTORY:
                    if not stat.S_ISDIR(found.st_mode):
                        return False
                    with _opened(name, _DIRECTORY, fd) as inner:
                        return all(f"{path}/{child}" in old for child in os.listdir(inner))
                case EntryKind.SYMLINK:
                    return (
                        stat.S_ISLNK(found.st_mode)
                        and os.fsencode(os.readlink(name, dir_fd=fd)) == expected.data
                    )
                case EntryKind.FILE:
                    if not stat.S_ISREG(found.st_mode) or found.st_size != len(expected.data):
                        return False
                    with _opened(name, _FILE, fd) as inner, os.fdopen(inner, "rb", closefd=False) as file:
                        return file.read(len(expected.data) + 1) == expected.data
    except (FileNotFoundError, NotADirectoryError):
        return expected is None and not _is_directory(old.get(path.rpartition("/")[0]))


def _write(fd: int, name: str, entry: Entry, old: Entry | None) -> None:
    """Put ``entry`` under ``name``; what is there is replaced by renaming, never followed."""
    if entry.kind is EntryKind.DIRECTORY:
        os.mkdir(name, dir_fd=fd)
        return
    if old is not None and (old.kind, old.data) == (entry.kind, entry.data):
        _set_time(name, fd, entry)
        return
    temporary = f".enarx-{secrets.token_hex(8)}"
    try:
        if entry.kind is EntryKind.SYMLINK:
            os.symlink(entry.data.decode(), temporary, dir_fd=fd)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, 0o666, dir_fd=fd), "wb") as file:
                file.write(entry.data)
                if old is not None and old.kind is EntryKind.FILE:
                    mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
                    os.fchmod(file.fileno(), mode & 0o777)
        _set_time(temporary, fd, entry)
        os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=fd)
        raise


def _set_time(name: str, fd: int, entry: Entry) -> None:
    time = min(entry.modified_ns, (1 << 63) - 1)
    os.utime(name, ns=(time, time), dir_fd=fd, follow_symlinks=False)


@contextlib.contextmanager
def _opened(name: str, flags: int, dir_fd: int | None = None) -> Iterator[int]:
    fd = os.open(name, flags, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _top(path: str) -> Iterator[int]:
    """Open the directory that the user named; this one name may be a symbolic link."""
    with contextlib.ExitStack() as stack:
        with _failing(path):
            fd = stack.enter_context(_opened(path, _DIRECTORY & ~os.O_NOFOLLOW))
        yield fd


@contextlib.contextmanager
def _parent(top: int, path: str) -> Iterator[tuple[int, str]]:
    """Open the directory of ``path`` below ``top``, following no link, and give it with the last name."""
    *above, name = path.split("/")
    fd = os.dup(top)
    try:
        for step in above:
            inner = os.open(step, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd, name
    finally:
        os.close(fd)


@contextlib.contextmanager
def _failing(*path: str) -> Iterator[None]:
    """Turn what the operating system refuses into our error, with the path."""
    try:
        yield
    except OSError as error:
        raise EnarxError(f"{'/'.join(path)}: {os.strerror(error.errno or errno.EIO).lower()}") from None
