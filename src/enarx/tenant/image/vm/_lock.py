"""The lock of the VM image: every package and wheel that it is made from, by SHA-256.

``lock.toml`` lies beside this file and is part of the release; ``make lock-vm`` writes it anew.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from importlib import resources
from typing import Final

from enarx.tcb.errors import Malformed

NAME: Final = "lock.toml"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*")
MAX_ARCHIVE_BYTES: Final = 256 << 20


class Role(Enum):
    """What a package is for."""

    KERNEL = "kernel"
    SYSTEM = "system"
    """The interpreter, its standard library and the libraries that it stands on."""
    SEV_FIRMWARE = "sev-firmware"
    FIRMWARE = "firmware"
    TOOL = "tool"
    """Runs when the image is built and is not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A Debian package; ``path`` is its place on a mirror, from ``pool/`` on."""

    role: Role
    name: str
    version: str
    architecture: str
    path: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """Its file name."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A built distribution of ``requirements/keep.txt`` for the image's interpreter."""

    name: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Everything that is not ours, in a fixed order."""

    packages: tuple[Package, ...]
    wheels: tuple[Wheel, ...]

    def of(self, *roles: Role) -> tuple[Package, ...]:
        """The packages of these roles."""
        return tuple(package for package in self.packages if package.role in roles)


def installed_lock() -> Lock:
    """Read the lock of this release."""
    return parse_lock(resources.files(__package__).joinpath(NAME).read_text(encoding="utf-8"))


def parse_lock(text: str) -> Lock:
    """Read a lock. Raises ``Malformed``."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Malformed(f"lock: {error}") from None
    if document.keys() != {"package", "wheel"}:
        raise Malformed(f"lock: tables are {sorted(document)}, expected package and wheel")
    packages = tuple(_package(_table(entry)) for entry in document["package"])
    wheels = tuple(_wheel(_table(entry)) for entry in document["wheel"])
    files = [package.file for package in packages] + [wheel.file for wheel in wheels]
    if len(set(files)) != len(files):
        raise Malformed("lock: a file is named twice")
    for role in (Role.KERNEL, Role.SYSTEM, Role.TOOL):
        if not any(package.role is role for package in packages):
            raise Malformed(f"lock: no package has the role {role.value}")
    return Lock(packages=packages, wheels=wheels)


def format_lock(lock: Lock) -> str:
    """Write what ``parse_lock`` reads."""
    tables = ["# Written by `make lock-vm`: what the image of VM keeps is made from."]
    for package in lock.packages:
        tables.append(_formatted("package", {"role": package.role.value, **_values(package)}))
    for wheel in lock.wheels:
        tables.append(_formatted("wheel", _values(wheel)))
    return "\n".join(tables) + "\n"


def _package(table: Mapping[str, object]) -> Package:
    _only(table, {"role", "name", "version", "architecture", "path", "size", "sha256"})
    size, role, path = table["size"], _text(table, "role"), _text(table, "path")
    if not isinstance(size, int) or not 0 < size <= MAX_ARCHIVE_BYTES:
        raise Malformed(f"lock: size is {size!r}, expected 1 to {MAX_ARCHIVE_BYTES} bytes")
    if role not in {known.value for known in Role}:
        raise Malformed(f"lock: role is {role!r}, expected one of {', '.join(known.value for known in Role)}")
    first, *rest = path.split("/")
    if first != "pool" or not rest or not all(_FILE.fullmatch(part) for part in rest):
        raise Malformed(f"lock: path is {path!r}, expected a file below pool/")
    return Package(
        role=Role(role),
        name=_text(table, "name"),
        version=_text(table, "version"),
        architecture=_text(table, "architecture"),
        path=path,
        size=size,
        sha256=_digest(table),
    )


def _wheel(table: Mapping[str, object]) -> Wheel:
    _only(table, {"name", "version", "file", "sha256"})
    file = _text(table, "file")
    if not _FILE.fullmatch(file) or not file.endswith(".whl"):
        raise Malformed(f"lock: file is {file!r}, expected the name of a wheel")
    return Wheel(name=_text(table, "name"), version=_text(table, "version"), file=file, sha256=_digest(table))


def _table(entry: object) -> Mapping[str, object]:
    if not isinstance(entry, dict):
        raise Malformed(f"lock: expected a table, found {type(entry).__name__}")
    return entry


def _only(table: Mapping[str, object], fields: set[str]) -> None:
    if table.keys() != fields:
        raise Malformed(f"lock: fields are {sorted(table)}, expected {sorted(fields)}")


def _text(table: Mapping[str, object], field: str) -> str:
    value = table[field]
    if not isinstance(value, str) or not value or not value.isprintable() or set(value) & set("\"\\ '"):
        raise Malformed(f"lock: {field} is {value!r}, expected text without blanks and quotes")
    return value


def _digest(table: Mapping[str, object]) -> str:
    value = _text(table, "sha256")
    if not _SHA256.fullmatch(value):
        raise Malformed(f"lock: sha256 is {value!r}, expected 64 hexadecimal digits")
    return value


def _values(entry: Package | Wheel) -> dict[str, object]:
    values = {field.name: getattr(entry, field.name) for field in fields(entry)}
    values.pop("role", None)
    return values


def _formatted(name: str, values: Mapping[str, object]) -> str:
    lines = [
        f"{key} = {value}" if isinstance(value, int) else f'{key} = "{value}"'
        for key, value in values.items()
    ]
    return "\n".join(["", f"[[{name}]]", *lines])
