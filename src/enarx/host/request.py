"""What somebody asks for when they run a workload on this machine."""

from __future__ import annotations

from enum import Enum

from enarx.tcb.errors import Malformed
from enarx.tcb.record import field, record
from enarx.tcb.workload import Limits


class DirectoryMode(Enum):
    """What becomes of a directory's copy in the keep."""

    COPY = "copy"
    """The workload may change its copy; the changes end with the keep."""
    READ_ONLY = "ro"
    """The workload may not change its copy."""
    SYNC = "sync"
    """The workload may change its copy, and the changes come back when it has ended."""


@record
class Directory:
    """A directory of this machine whose copy the workload finds under ``guest_path``."""

    host_path: str
    guest_path: str
    mode: DirectoryMode = DirectoryMode.COPY


@record
class RunRequest:
    """One run. Standard input, output and error are those of the process that asks.

    ``args`` are argv[1:]; if there are none, those of the configuration hold. ``env`` wins over its ``env``.
    Without ``cache_dir`` no compiled code is kept. With ``require_sandbox`` a missing layer of the sandbox is
    an error.
    """

    wasm_path: str
    config_path: str | None = None
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    directories: tuple[Directory, ...] = ()
    limits: Limits = field(default_factory=Limits)
    threads: bool = False
    require_sandbox: bool = False
    cache_dir: str | None = None


def parse_directory(text: str) -> Directory:
    """Read ``HOST[::GUEST][:ro|:sync]``; without GUEST it is HOST. Raises ``Malformed``.

    The mode is what follows the last colon; a path that ends in ``:ro`` or ``:sync`` needs a GUEST after it.
    """
    paths, colon, suffix = text.rpartition(":")
    mode = {"ro": DirectoryMode.READ_ONLY, "sync": DirectoryMode.SYNC}.get(suffix if colon else "")
    if mode is None:
        paths, mode = text, DirectoryMode.COPY
    host, *guests = paths.split("::")
    if len(guests) > 1 or not host or "" in guests or "\0" in paths:
        hint = "write HOST[::GUEST][:ro|:sync], for example ./data::/data:ro"
        raise Malformed(f"expected a path, or two with '::' between them, found {text!a}", hint=hint)
    return Directory(host_path=host, guest_path=guests[0] if guests else host, mode=mode)


def parse_env(text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE``. Raises ``Malformed``, which does not show a value, for it may be a secret."""
    name, equals, value = text.partition("=")
    if not equals or not name or "\0" in text:
        raise Malformed(f"expected NAME=VALUE, found {name!a}{'' if not equals else '=...'}")
    return name, value
