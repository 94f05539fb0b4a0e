"""A directory tree as a value: what travels when a tenant gives files to a workload or gets them back.

A header names every entry; the contents of the files follow it as blobs, in the header's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final

from enarx.tcb.errors import Malformed
from enarx.tcb.record import field, record
from enarx.tcb.wire import Value

MAX_ENTRIES: Final = 1 << 16
MAX_NAME_BYTES: Final = 255
MAX_PATH_BYTES: Final = 4096


class EntryKind(Enum):
    """What an entry is, as the header spells it."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


@record
class Entry:
    """One file, directory or symbolic link; ``data`` is the file's content or the link's target in UTF-8."""

    path: str
    kind: EntryKind
    data: bytes = field(default=b"", repr=False)
    modified_ns: int = 0


@record(kw_only=False)
class Tree:
    """Entries, each parent before its children. Raises ``Malformed`` for anything else."""

    entries: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        if len(self.entries) > MAX_ENTRIES:
            raise Malformed(f"tree has {len(self.entries)} entries, at most {MAX_ENTRIES} are allowed")
        kinds: dict[str, EntryKind] = {"": EntryKind.DIRECTORY}
        for entry in self.entries:
            _check(entry)
            parent = entry.path.rpartition("/")[0]
            if kinds.get(parent) is not EntryKind.DIRECTORY:
                raise Malformed(f"tree entry {entry.path!r} does not follow a directory {parent!r}")
            if entry.path in kinds:
                raise Malformed(f"tree entry {entry.path!r} appears twice")
            kinds[entry.path] = entry.kind

    @property
    def size(self) -> int:
        """How many bytes the files hold together."""
        return sum(len(blob) for blob in self.blobs())

    def header(self) -> Value:
        """Give path, kind, size (or target) and modification time of each entry; no file content."""
        return [
            [
                entry.path,
                entry.kind.value,
                entry.data if entry.kind is EntryKind.SYMLINK else len(entry.data),
                entry.modified_ns,
            ]
            for entry in self.entries
        ]

    @classmethod
    def from_header(cls, header: Value, take: Callable[[int], bytes]) -> Tree:
        """Rebuild a tree from its header; ``take`` gives the next blob, of exactly the size asked for."""
        if not isinstance(header, list) or len(header) > MAX_ENTRIES:
            raise Malformed(f"tree header is not a list of at most {MAX_ENTRIES} entries")
        entries = []
        for item in header:
            match item:
                case [str(path), "file", int(size), int(modified)] if (
                    not isinstance(size, bool) and size >= 0
                ):
                    data, kind = take(size), EntryKind.FILE
                    if len(data) != size:
                        raise Malformed(f"tree entry {path!r} announced {size} bytes, got {len(data)}")
                case [str(path), "directory", int(size), int(modified)] if size == 0 and not isinstance(
                    size, bool
                ):
                    data, kind = b"", EntryKind.DIRECTORY
                case [str(path), "symlink", bytes(data), int(modified)]:
                    kind = EntryKind.SYMLINK
                case _:
                    raise Malformed(
                        "tree header has an entry that is not path, kind, size or target, and time"
                    )
            entries.append(Entry(path=path, kind=kind, data=data, modified_ns=modified))
        return cls(tuple(entries))

    def blobs(self) -> Iterator[bytes]:
        """Give the content of each file, in the order of the header."""
        return (entry.data for entry in self.entries if entry.kind is EntryKind.FILE)


def _check(entry: Entry) -> None:
    try:
        path = entry.path.encode()
        names = path.split(b"/")
        if entry.kind is EntryKind.SYMLINK:
            entry.data.decode()
    except UnicodeError:
        raise Malformed(f"tree entry {entry.path!r} is not UTF-8") from None
    if len(path) > MAX_PATH_BYTES or b"\0" in path or any(name in (b"", b".", b"..") for name in names):
        raise Malformed(
            f"tree path {entry.path!r} is not a plain relative path of at most {MAX_PATH_BYTES} bytes"
        )
    if max(map(len, names)) > MAX_NAME_BYTES:
        raise Malformed(f"tree path {entry.path!r} has a name of more than {MAX_NAME_BYTES} bytes")
    if entry.kind is EntryKind.SYMLINK and (not 0 < len(entry.data) <= MAX_PATH_BYTES or b"\0" in entry.data):
        raise Malformed(f"tree entry {entry.path!r} has no possible target")
    if entry.kind is EntryKind.DIRECTORY and entry.data:
        raise Malformed(f"tree entry {entry.path!r} is a directory with content")
    if isinstance(entry.modified_ns, bool) or not 0 <= entry.modified_ns < 1 << 64:
        raise Malformed(f"tree entry {entry.path!r} has an impossible time")
