"""Enarx.toml: text to frozen values, compatible with Enarx 0.7.1 but strict: unknown keys are errors.

An entry's place in ``files`` is its descriptor number. Duplicate names are allowed, as they always were.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from hashlib import sha256
from typing import ClassVar, Final

from enarx.tcb.record import field, record, replace
from enarx.tcb.wire import Value, encode
from enarx.tcb.workload._toml import Document
from enarx.tcb.workload._wording import kind_of, shown

MAX_BYTES: Final = 1_000_000
"""The limit of Enarx 0.7.1."""
MAX_ARGS: Final = 4096
MAX_ENV: Final = 4096
MAX_FILES: Final = 1024
"""As many descriptors as a keep has unless told otherwise."""
MAX_NAME_CHARS: Final = 255
_STEWARD: Final = re.compile(
    r"https://(\[[\dA-F:.]+\]|[\w.-]+)(:\d{1,5})?([/?#][!-~]*)?", re.ASCII | re.IGNORECASE
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")  # how Python passes on arguments that are not UTF-8


class Protocol(Enum):
    """What a descriptor's stream carries; the keep ends TLS, the workload sees its content."""

    TCP = "tcp"
    TLS = "tls"

    @property
    def default_port(self) -> int:
        """The port of an entry that names none."""
        return 443 if self is Protocol.TLS else 80


@record
class Null:
    """Reads end at once, writes vanish."""

    kind: ClassVar = "null"
    name: str = "null"


@record
class Stdin:
    """The standard input of the keep."""

    kind: ClassVar = "stdin"
    name: str = "stdin"


@record
class Stdout:
    """The standard output of the keep."""

    kind: ClassVar = "stdout"
    name: str = "stdout"


@record
class Stderr:
    """The standard error of the keep."""

    kind: ClassVar = "stderr"
    name: str = "stderr"


@record
class Listen:
    """A listening socket at ``address`` and ``port`` (0: the host chooses)."""

    kind: ClassVar = "listen"
    protocol: Protocol
    name: str
    address: str
    port: int


@record
class Connect:
    """A stream that is connected to ``host`` and ``port`` before the workload starts."""

    kind: ClassVar = "connect"
    protocol: Protocol
    host: str
    name: str
    port: int


File = Null | Stdin | Stdout | Stderr | Listen | Connect
_PLAIN: Final = {entry.kind: entry for entry in (Null, Stdin, Stdout, Stderr)}
_KEYS: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(_PLAIN, ("kind", "name")),
    "listen": ("kind", "prot", "name", "addr", "port"),
    "connect": ("kind", "prot", "host", "name", "port"),
}
_HINTS: Final = {
    "listen": {"host": "listen entries take `addr`"},
    "connect": {"addr": "connect entries take `host`"},
}


@record
class Config:
    """What Enarx.toml says; without a file a workload has stdin, stdout, stderr and no more."""

    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    steward: str | None = None
    files: tuple[File, ...] = (Stdin(), Stdout(), Stderr())

    @property
    def fd_names(self) -> str:
        """The value of ``FD_NAMES``: the names of all descriptors in order, joined with colons."""
        return ":".join(file.name for file in self.files)

    @property
    def environ(self) -> tuple[str, ...]:
        """What the workload sees: ``FD_COUNT``, ``FD_NAMES``, then ``env``, which does not replace them."""
        ours = (f"FD_COUNT={len(self.files)}", f"FD_NAMES={self.fd_names}")
        return (*ours, *(f"{name}={value}" for name, value in self.env.items()))

    def overridden(self, *, args: Iterable[str] = (), env: Mapping[str, str] | None = None) -> Config:
        """Let launch options win: ``args``, if any, replace ours; ``env`` adds. Raises ``InvalidConfig``."""
        document = Document("", max_bytes=0)
        merged = {**self.env, **(env or {})}
        return replace(self, args=_args(document, list(args) or list(self.args)), env=_env(document, merged))

    def canonical(self) -> bytes:
        """The one encoding of the meaning, for digests: defaults filled in, however the text was written."""
        files: list[Value] = [file_value(file) for file in self.files]
        args: list[Value] = list(self.args)
        return encode(
            {"schema": 1, "args": args, "env": dict(self.env), "steward": self.steward, "files": files}
        )

    def digest(self) -> bytes:
        """SHA-256 of the canonical form: the name of this configuration in evidence and policy."""
        return sha256(self.canonical()).digest()


def file_value(file: File) -> dict[str, Value]:
    """Give an entry as a message can hold it: its kind and every field, defaults filled in."""
    value: dict[str, Value] = {"kind": file.kind, "name": file.name}
    if isinstance(file, Listen | Connect):
        value |= {"prot": file.protocol.value, "port": file.port}
        value |= {"addr": file.address} if isinstance(file, Listen) else {"host": file.host}
    return value


def parse_config(text: bytes | str) -> Config:
    """Read at most 1,000,000 bytes of UTF-8 TOML. Raises ``InvalidConfig`` and nothing else."""
    document = Document(text, max_bytes=MAX_BYTES)
    table = document.table
    document.known("", table, ("steward", "args", "env", "files"), hints={})
    files = document.many("files", table.get("files", []), list, max_entries=MAX_FILES)
    return Config(
        args=_args(document, table.get("args", [])),
        env=_env(document, table.get("env", {})),
        steward=_steward(document, table.get("steward")),
        files=tuple(_file(document, f"files[{at}]", entry) for at, entry in enumerate(files)),
    )


def _args(document: Document, value: object) -> tuple[str, ...]:
    args = document.many("args", value, list, max_entries=MAX_ARGS)
    return tuple(_plain(document, f"args[{at}]", arg) for at, arg in enumerate(args))


def _env(document: Document, value: object) -> dict[str, str]:
    env = document.many("env", value, dict, max_entries=MAX_ENV)
    for name in env:
        if not name or "=" in name or "\0" in name:
            hint = "a name is not empty and holds neither '=' nor NUL"
            raise document.error("env", "names of environment variables", shown(name), hint=hint)
    return {name: _plain(document, f"env.{name}", env[name]) for name in sorted(env)}


def _plain(document: Document, key: str, value: object) -> str:
    """Take a string for the workload; it may be a secret, so no error shows it."""
    if not isinstance(value, str):
        raise document.error(key, "a string", kind_of(value), hint="put it in quotation marks")
    if "\0" in value or _SURROGATE.search(value):
        raise document.error(key, "Unicode text without NUL", "a string with NUL or bytes that are not UTF-8")
    return value


def _steward(document: Document, value: object) -> str | None:
    if value is None or (isinstance(value, str) and _STEWARD.fullmatch(value)):
        return value
    scheme = value.partition("://")[0] if isinstance(value, str) and "://" in value else ""
    found = f"a URL of scheme {shown(scheme)} or a malformed one" if scheme else kind_of(value)
    hint = 'write steward = "https://HOST[:PORT][/PATH]"; credentials do not belong in it'
    raise document.error("steward", "an https URL", found, hint=hint)


def _file(document: Document, key: str, value: object) -> File:
    if not isinstance(value, dict):
        raise document.error(
            key, "a table", kind_of(value), hint="write each descriptor as a [[files]] table"
        )
    kind = document.one_of(f"{key}.kind", value.get("kind"), _KEYS)
    document.known(key, value, _KEYS[kind], hints=_HINTS.get(kind, {}))
    name = value.get("name")
    if name is not None:
        name = _text(document, f"{key}.name", name)
        if ":" in name:
            raise document.error(
                f"{key}.name", "a name without ':'", shown(name), hint="colons separate names"
            )
    if kind in _PLAIN:
        return _PLAIN[kind](name=kind if name is None else name)
    protocol = Protocol(document.one_of(f"{key}.prot", value.get("prot"), ("tls", "tcp")))
    port = value.get("port", protocol.default_port)
    if type(port) is not int or not 0 <= port <= 0xFFFF:
        raise document.error(f"{key}.port", "an integer from 0 to 65535", shown(port))
    if kind == "listen":
        if name is None:
            raise document.error(
                f"{key}.name", "a name", "nothing", hint="the workload finds the socket by its name"
            )
        address = _text(document, f"{key}.addr", value.get("addr", "::"))
        return Listen(protocol=protocol, name=name, address=address, port=port)
    host = _text(document, f"{key}.host", value.get("host"))
    if name is None and ":" in host:
        hint = "give the entry a `name`: without one the host is its name, and colons separate names"
        raise document.error(
            f"{key}.host", "a host without ':' where there is no name", shown(host), hint=hint
        )
    return Connect(protocol=protocol, host=host, name=host if name is None else name, port=port)


def _text(document: Document, key: str, value: object) -> str:
    """Take a name, host or address."""
    if not isinstance(value, str):
        raise document.error(key, "a string", kind_of(value))
    if not 0 < len(value) <= MAX_NAME_CHARS or not value.isprintable():
        raise document.error(key, f"1 to {MAX_NAME_CHARS} printable characters", shown(value))
    return value
