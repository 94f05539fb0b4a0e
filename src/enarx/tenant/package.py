"""What a tenant deploys: a Wasm file, or a directory with ``main.wasm``, ``Enarx.toml`` and ``files/``.

Everything is read once, by descriptor; no symbolic link is followed or delivered. What was read is what is delivered
and what the digests name, whatever becomes of the files meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from enarx.api.directory_tree import DIRECTORY, FILE, failing, opened, opened_top, read_open_tree
from enarx.tcb.errors import EnarxError, Malformed
from enarx.tcb.workload import (
    MAX_CONFIG_BYTES,
    Directory,
    EntryKind,
    Job,
    Limits,
    Secret,
    check_secrets,
    effective_config,
    parse_config,
)

MODULE: Final = "main.wasm"
CONFIG: Final = "Enarx.toml"
FILES: Final = "files"
FILES_IN_KEEP: Final = "/files"
"""Where the workload finds the directory ``files``, which it cannot change."""
_MAGIC: Final = b"\0asm"


class InvalidPackage(Malformed):
    """A package is not in its form, or holds what is never delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package as it was read."""

    name: str
    module: bytes = field(repr=False)
    config: bytes | None = None
    directories: tuple[Directory, ...] = field(default=(), repr=False)

    def job(
        self,
        *,
        arguments: Iterable[str] = (),
        environment: Iterable[tuple[str, str]] = (),
        secrets: Iterable[Secret] = (),
        limits: Limits | None = None,
        threads: bool = False,
        roots: bytes = b"",
    ) -> Job:
        """Add what one launch brings. Raises ``Malformed`` for what a keep would refuse."""
        job = Job(
            module=self.module,
            config=self.config,
            arguments=tuple(arguments),
            environment=tuple(environment),
            directories=self.directories,
            limits=limits or Limits(),
            threads=threads,
            roots=roots,
            secrets=tuple(secrets),
        )
        if len(self.module) > job.limits.module_bytes:
            hint = "raise it with --limit module=SIZE"
            raise InvalidPackage(f"{self.name}: more than {job.limits.module_bytes} bytes", hint=hint)
        check_secrets(job.secrets)
        effective_config(job)
        return job


def read_package(path: Path, *, limits: Limits | None = None) -> Package:
    """Read a package directory, or a Wasm file alone. Raises ``InvalidPackage`` and other ``EnarxError``."""
    limits = limits or Limits()
    with failing(str(path)):
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    if not is_directory:
        return Package(name=path.name, module=_module(str(path), None, path.name, limits))
    with opened_top(str(path)) as top:
        found = sorted(os.listdir(top))
        if unknown := sorted(set(found) - {MODULE, CONFIG, FILES}):
            hint = (
                f"a package has {MODULE}, {CONFIG} and {FILES}/; what the workload reads goes into {FILES}/"
            )
            raise InvalidPackage(f"{path}: unknown entry {unknown[0]!r}", hint=hint)
        if MODULE not in found:
            raise InvalidPackage(f"{path}: there is no {MODULE}", hint="compile the workload to that name")
        module = _module(MODULE, top, f"{path}/{MODULE}", limits)
        config = _config(top, f"{path}/{CONFIG}") if CONFIG in found else None
        directories = _files(top, f"{path}/{FILES}", limits) if FILES in found else ()
    return Package(name=path.name, module=module, config=config, directories=directories)


def _module(name: str, top: int | None, shown: str, limits: Limits) -> bytes:
    module = _read(name, top, shown, limits.module_bytes, hint="raise it with --limit module=SIZE")
    if not module.startswith(_MAGIC):
        raise InvalidPackage(f"{shown}: no WebAssembly", hint="expected a module or component, as compiled")
    return module


def _config(top: int, shown: str) -> bytes:
    text = _read(CONFIG, top, shown, MAX_CONFIG_BYTES, hint="large data belongs into files/")
    try:
        parse_config(text)
    except EnarxError as error:
        raise InvalidPackage(f"{shown}: {error}", hint=error.hint) from None
    return text


def _files(top: int, path: str, limits: Limits) -> tuple[Directory, ...]:
    with failing(path), opened(FILES, DIRECTORY, top) as fd:
        tree = read_open_tree(fd, path, max_bytes=limits.storage_bytes, max_entries=limits.files)
    for entry in tree.entries:
        if entry.kind is EntryKind.SYMLINK:
            raise InvalidPackage(
                f"{path}/{entry.path}: a symbolic link", hint="put a copy of its target there"
            )
    return (Directory(name=FILES_IN_KEEP, tree=tree, writable=False),)


def _read(name: str, top: int | None, shown: str, limit: int, *, hint: str) -> bytes:
    """Read one regular file whole. The one that the user named by itself may be a link; those of a package may not."""
    flags = FILE if top is not None else FILE & ~os.O_NOFOLLOW
    with failing(shown):
        if top is not None and stat.S_ISLNK(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
            raise InvalidPackage(f"{shown}: a symbolic link", hint="a package holds what it delivers")
        with opened(name, flags, top) as fd:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise InvalidPackage(f"{shown}: no regular file")
            with os.fdopen(fd, "rb", closefd=False) as file:
                data = file.read(limit + 1)
            after = os.fstat(fd)
    if len(data) > limit:
        raise InvalidPackage(f"{shown}: more than {limit} bytes", hint=hint)
    if len(data) != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
        raise InvalidPackage(f"{shown}: changed while it was read", hint="try again when it rests")
    return data
