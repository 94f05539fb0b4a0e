"""A delivery: everything that a keep needs for one run, as a header and the bytes that follow it.

The header is one message; module, cached code and the contents of files follow in the order in which it names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar, cast

from enarx.tcb.errors import Malformed
from enarx.tcb.record import field, names, record
from enarx.tcb.wire import Reader, Value
from enarx.tcb.workload._limits import Limits
from enarx.tcb.workload._secrets import (
    SECRETS_DIRECTORY,
    Secret,
    secrets_from_value,
    secrets_tree,
    secrets_value,
)
from enarx.tcb.workload._tree import Tree

_T = TypeVar("_T")

MAX_CONFIG_BYTES: Final = 1_000_000
SEAL_KEY_BYTES: Final = 32


@record
class Directory:
    """A directory of the keep's file system that the guest finds preopened under ``name``."""

    name: str
    tree: Tree
    writable: bool = True
    returned: bool = False
    """Whether its content goes back to the sender when the workload has ended."""


@record
class Job:
    """One run. ``seal_key`` of 32 bytes lets compiled code be kept by the sender; without it nothing is cached."""

    module: bytes = field(repr=False)
    config: bytes | None = field(default=None, repr=False)
    arguments: Sequence[str] = field(default=(), repr=False)
    environment: Sequence[tuple[str, str]] = field(default=(), repr=False)
    directories: Sequence[Directory] = field(default=(), repr=False)
    limits: Limits = field(default_factory=Limits)
    threads: bool = False
    terminals: tuple[bool, bool, bool] = (False, False, False)
    code: bytes = field(default=b"", repr=False)
    seal_key: bytes = field(default=b"", repr=False)
    roots: bytes = b""
    """PEM certificates that TLS connections to the outside may end at."""
    secrets: Sequence[Secret] = ()

    @property
    def mounts(self) -> Sequence[Directory]:
        """The directories that the workload finds: those delivered, and that of the secrets if there are any."""
        if not self.secrets:
            return self.directories
        tree = secrets_tree(self.secrets)
        return [*self.directories, Directory(name=SECRETS_DIRECTORY, tree=tree, writable=False)]

    def header(self) -> Value:
        """Give the message that goes ahead of ``blobs``."""
        return {
            "module": len(self.module),
            "code": len(self.code),
            "config": self.config,
            "arguments": list(self.arguments),
            "environment": [[name, value] for name, value in self.environment],
            "directories": [[it.name, it.writable, it.returned, it.tree.header()] for it in self.directories],
            "limits": self.limits.value(),
            "threads": self.threads,
            "terminals": list(self.terminals),
            "seal_key": self.seal_key,
            "roots": self.roots,
            "secrets": secrets_value(self.secrets),
        }

    def blobs(self) -> Iterator[bytes]:
        """Give the bytes that follow the header."""
        yield self.module
        yield self.code
        for directory in self.directories:
            yield from directory.tree.blobs()

    @property
    def size(self) -> int:
        """How many bytes follow the header."""
        return len(self.module) + len(self.code) + sum(it.tree.size for it in self.directories)

    @classmethod
    def from_parts(cls, header: Value, body: memoryview) -> Job:
        """Put a job together again. Raises ``Malformed`` for anything that ``header`` could not have given."""
        fields = _fields(header, names(cls))
        reader = Reader(body, name="job")
        module = reader.take(_sized(fields, "module"), "module")
        code = reader.take(_sized(fields, "code"), "code")
        job = cls(
            module=module,
            code=code,
            config=_config(fields["config"]),
            arguments=_texts(fields["arguments"], "arguments"),
            environment=[_pair(it) for it in _list(fields["environment"], "environment")],
            directories=[_directory(it, reader) for it in _list(fields["directories"], "directories")],
            limits=Limits.from_value(fields["limits"]),
            threads=_typed(fields["threads"], bool, "threads"),
            terminals=_terminals(fields["terminals"]),
            seal_key=_typed(fields["seal_key"], bytes, "seal_key"),
            roots=_typed(fields["roots"], bytes, "roots"),
            secrets=secrets_from_value(fields["secrets"]),
        )
        if job.seal_key and len(job.seal_key) != SEAL_KEY_BYTES:
            raise Malformed(f"job: seal_key: expected {SEAL_KEY_BYTES} bytes, found {len(job.seal_key)}")
        reader.end()
        return job


def read_tree(header: Value, reader: Reader) -> Tree:
    """Read a tree whose files come next in ``reader``. Raises ``Malformed``."""
    return Tree.from_header(header, lambda size: reader.take(size, "file"))


def _fields(value: Value, names: Iterable[str]) -> dict[str, Value]:
    if not isinstance(value, dict) or value.keys() != set(names):
        raise Malformed(f"job: expected a map with {', '.join(sorted(names))}")
    return value


def _typed(value: Value, kind: type[_T], name: str) -> _T:
    if type(value) is not kind:
        raise Malformed(f"job: {name}: expected {kind.__name__}, found {type(value).__name__}")
    return value


def _list(value: Value, name: str) -> list[Value]:
    return cast("list[Value]", _typed(value, list, name))


def _sized(fields: dict[str, Value], name: str) -> int:
    size = _typed(fields[name], int, name)
    if size < 0:
        raise Malformed(f"job: {name}: a size cannot be negative")
    return size


def _text(value: Value, name: str) -> str:
    text = _typed(value, str, name)
    if "\0" in text:
        raise Malformed(f"job: {name}: text with a NUL")
    return text


def _texts(value: Value, name: str) -> list[str]:
    return [_text(it, name) for it in _list(value, name)]


def _pair(value: Value) -> tuple[str, str]:
    match _texts(value, "environment"):
        case [name, content] if name and "=" not in name:
            return name, content
    raise Malformed("job: environment: expected pairs of a name without '=' and a value")


def _config(value: Value) -> bytes | None:
    if value is None:
        return None
    config = _typed(value, bytes, "config")
    if len(config) > MAX_CONFIG_BYTES:
        raise Malformed(f"job: config: at most {MAX_CONFIG_BYTES} bytes, found {len(config)}")
    return config


def _terminals(value: Value) -> tuple[bool, bool, bool]:
    match value:
        case [bool(first), bool(second), bool(third)]:
            return first, second, third
    raise Malformed("job: terminals: expected three booleans")


def _directory(value: Value, reader: Reader) -> Directory:
    match value:
        case [str(name), bool(writable), bool(returned), header] if name and "\0" not in name:
            tree = read_tree(header, reader)
            return Directory(name=name, tree=tree, writable=writable, returned=returned)
    raise Malformed("job: directories: expected name, writable, returned and tree")
