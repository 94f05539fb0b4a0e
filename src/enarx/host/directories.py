"""Directories of the host, changed after a workload that had a copy. The host's side, with the host's trust.

Every step goes by descriptor and follows no symbolic link, as in ``enarx.api.directory_tree``, which makes the copies.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator, Mapping

from enarx.api.directory_tree import DIRECTORY, FILE, failing, opened, opened_top
from enarx.tcb.errors import EnarxError
from enarx.tcb.record import record
from enarx.tcb.workload import Entry, EntryKind, Tree


@record
class Changes:
    """What ``write_changes`` did, as paths; ``refused`` names links that would lead out of the directory."""

    written: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


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
    with opened_top(path) as top:
        for name in sorted({*gone, *(entry.path for entry in written)}):
            with failing(path, name):
                unchanged = _unchanged(top, name, old)
            if not unchanged:
                raise EnarxError(
                    f"{path}/{name}: changed both by the workload and on the host",
                    hint="the directory is as the host left it; give the workload one of its own",
                )
        for name in sorted(gone, reverse=True):
            with failing(path, name), _parent(top, name) as (fd, last):
                (os.rmdir if _is_directory(old[name]) else os.unlink)(last, dir_fd=fd)
        for entry in written:
            with failing(path, entry.path), _parent(top, entry.path) as (fd, last):
                _write(fd, last, entry, old.get(entry.path))
        for entry in reversed(touched):
            if _is_directory(entry):
                with failing(path, entry.path), _parent(top, entry.path) as (fd, last):
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
                    with opened(name, DIRECTORY, fd) as inner:
                        return all(f"{path}/{child}" in old for child in os.listdir(inner))
                case EntryKind.SYMLINK:
                    return (
                        stat.S_ISLNK(found.st_mode)
                        and os.fsencode(os.readlink(name, dir_fd=fd)) == expected.data
                    )
                case EntryKind.FILE:
                    if not stat.S_ISREG(found.st_mode) or found.st_size != len(expected.data):
                        return False
                    with opened(name, FILE, fd) as inner, os.fdopen(inner, "rb", closefd=False) as file:
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
def _parent(top: int, path: str) -> Iterator[tuple[int, str]]:
    """Open the directory of ``path`` below ``top``, following no link, and give it with the last name."""
    *above, name = path.split("/")
    fd = os.dup(top)
    try:
        for step in above:
            inner = os.open(step, DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd, name
    finally:
        os.close(fd)
