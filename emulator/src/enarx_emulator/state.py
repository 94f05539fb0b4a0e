"""Directories that outlive a process: private, written atomically, used by one process at a time where that matters.

A write is whole or not there at all, whenever the process is killed: the new bytes are synchronised to disk beside the
old ones and then take their name.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from enarx.tcb.errors import Malformed, Unavailable

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_DRAFT: Final = re.compile(r"\.[A-Za-z0-9][A-Za-z0-9._-]*\.[0-9]+")
_LOCK: Final = ".lock"
_OWNER: Final = ".owner"


class Directory:
    """A ``Store`` in a directory of mode 0700, which is made when it does not exist. Raises ``Unavailable``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = path.stat()
        except OSError as error:
            raise Unavailable(f"{path}: {_reason(error)}") from None
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            hint = f"use another directory, or chmod 700 {path}"
            raise Unavailable(f"{path} can be read by others, but it is to hold keys", hint=hint)

    def get(self, name: str) -> bytes | None:
        """Give what was put last under this name, or ``None``."""
        try:
            return (self.path / _checked(name)).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self.path / name}: {_reason(error)}") from None

    def put(self, name: str, data: bytes) -> None:
        """Replace what has this name; when this returns, it is on the disk."""
        target = self.path / _checked(name)
        draft = target.with_name(f".{name}.{os.getpid()}")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.replace(draft, target)
            self._sync()
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            raise Unavailable(f"{target}: {_reason(error)}") from None

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Give what has this name; when nothing has, make it, while no other process makes it too."""
        if (found := self.get(name)) is not None:
            return found
        with self._locked(_LOCK, wait=True):
            if (found := self.get(name)) is None:
                found = make()
                self.put(name, found)
            return found

    def names(self) -> list[str]:
        """Give every name that has something, sorted."""
        return sorted(entry.name for entry in os.scandir(self.path) if _NAME.fullmatch(entry.name))

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Be the only process that owns the directory. Raises ``Unavailable`` when another one does."""
        with self._locked(_OWNER, wait=False):
            self._remove_drafts()
            yield

    @contextmanager
    def _locked(self, name: str, *, wait: bool) -> Iterator[None]:
        descriptor = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            hint = "stop the other process, or use another directory"
            raise Unavailable(f"{self.path} is in use by another process", hint=hint) from None
        try:
            yield
        finally:
            os.close(descriptor)  # the lock goes with the last descriptor, also when the process is killed

    def _remove_drafts(self) -> None:
        """Remove what processes were writing when they were killed."""
        for entry in os.scandir(self.path):
            if entry.is_file(follow_symlinks=False) and _DRAFT.fullmatch(entry.name):
                os.unlink(entry)

    def _sync(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Memory:
    """A ``Store`` that is gone with the process, for tests."""

    def __init__(self) -> None:
        self._held: dict[str, bytes] = {}

    def get(self, name: str) -> bytes | None:
        """Give what was put last under this name, or ``None``."""
        return self._held.get(_checked(name))

    def put(self, name: str, data: bytes) -> None:
        """Replace what has this name."""
        self._held[_checked(name)] = data

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Give what has this name, made first when nothing has."""
        if (found := self.get(name)) is None:
            found = make()
            self.put(name, found)
        return found

    def names(self) -> list[str]:
        """Give every name that has something, sorted."""
        return sorted(self._held)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Malformed(f"name in a store is {name!r}, expected letters, digits, dots, hyphens")
    return name


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
