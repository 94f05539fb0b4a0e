"""Everything that must be trusted inside a keep on this machine: what the image packs, and what the machine adds.

An interpreter, its standard library and the system's C libraries come with the machine. Which of them a keep loads
is asked of a process that loads all of our modules; everything that is mapped into it is trusted.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Final

from enarx import __version__
from enarx.tcb.errors import Unavailable
from enarx.tenant.image._contents import DISTRIBUTIONS, PackedFile, image_files

_PROBE: Final = """
import sys
sys.path[:0] = sys.argv[1].split(":")
import importlib, os
for name in sys.argv[2:]:
    importlib.import_module(name)
from cryptography.hazmat.bindings._rust import openssl
with open("/proc/self/maps") as maps:
    mapped = {line.split(None, 5)[5].strip() for line in maps if "/" in line}
modules = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
files = sorted({os.path.realpath(path) for path in {*mapped, *filter(None, modules)} if os.path.isfile(path)})
libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
versions = sys.implementation.name, sys.version.split()[0], libc.rpartition(" ")[2], openssl.openssl_version_text()
print(*versions, *files, sep="\\0")
"""
_TIMEOUT_S: Final = 60
_LIBC: Final = (
    "libc.",
    "libc-",
    "ld-linux",
    "libm.",
    "libm-",
    "libdl",
    "libpthread",
    "librt.",
    "libutil",
    "LC_",
    "gconv-",
)


@dataclass(frozen=True, slots=True)
class _Probed:
    implementation: str
    python: str
    libc: str
    openssl: str
    files: tuple[str, ...]


class Kind(Enum):
    """Who brings a part of a keep."""

    OURS = "ours"
    DISTRIBUTION = "distribution"
    INTERPRETER = "interpreter"
    STANDARD_LIBRARY = "standard library"
    SYSTEM = "system"
    PACKAGE = "package"
    """A Debian package of the image of VM keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One trusted file; ``name`` does not tell where on this machine it is, ``lines`` are Python's and not blank."""

    name: str
    size: int
    lines: int
    sha256: str

    @property
    def native(self) -> bool:
        """Whether it holds machine code."""
        return ".so" in self.name or self.name.startswith("python")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Trusted files that come together and have one version (or none that is known)."""

    kind: Kind
    name: str
    version: str
    items: tuple[Item, ...]
    license: str = ""
    """Its SPDX expression, where one is stated."""

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(item.size for item in self.items)

    @property
    def lines(self) -> int:
        """Lines of all its files."""
        return sum(item.lines for item in self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All groups, ours first; ``openssl`` is the version that ends TLS, which cryptography brings."""

    groups: tuple[Group, ...]
    openssl: str

    def of(self, *kinds: Kind) -> list[Group]:
        """The groups of these kinds."""
        return [group for group in self.groups if group.kind in kinds]


def take_inventory() -> Inventory:
    """Find everything, and load every module of ours in a fresh process. Raises ``Unavailable``."""
    packed = image_files()
    found = _probe(packed)
    machine = {Path(path) for path in found.files} - {file.source.resolve() for file in packed}
    library = Path(os.__file__).resolve().parent
    standard = {it for it in machine if it.is_relative_to(library) and "site-packages" not in it.parts}
    python = {it for it in machine if it == Path(sys.executable).resolve() or it.name.startswith("libpython")}
    libc = {it for it in machine if it.name.startswith(_LIBC)}
    groups = [_group(Kind.OURS, "enarx.tcb", __version__, [it for it in packed if not it.distribution])]
    for name in DISTRIBUTIONS:
        if files := [it for it in packed if it.distribution == name]:
            license_ = metadata.metadata(name).json.get("license_expression") or ""
            groups.append(_group(Kind.DISTRIBUTION, name, metadata.version(name), files, str(license_)))
    groups += [
        _machine(Kind.INTERPRETER, found.implementation, found.python, {it: it.name for it in python}),
        _machine(
            Kind.STANDARD_LIBRARY,
            "standard library",
            found.python,
            {it: it.relative_to(library).as_posix() for it in standard},
        ),
        _machine(Kind.SYSTEM, "C library", found.libc, {it: it.name for it in libc}),
    ]
    for path in sorted(machine - standard - python - libc, key=lambda it: it.name):
        groups.append(_machine(Kind.SYSTEM, path.name, "", {path: path.name}))
    return Inventory(groups=tuple(groups), openssl=found.openssl)


def is_plain_module(file: PackedFile) -> bool:
    """Whether ``file`` is a module of ours that may be imported without running a program."""
    return not file.distribution and file.path.endswith(".py") and not file.path.endswith("/__main__.py")


def module_name(path: str) -> str:
    """The dotted name of the module at ``path``."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def count_lines(content: bytes) -> int:
    """How many lines are not blank: the measure of the ceilings in tcb.toml."""
    return sum(1 for line in content.splitlines() if line.strip())


def _probe(packed: Collection[PackedFile]) -> _Probed:
    """Load every module of ours in an interpreter that is started as that of a keep is."""
    what = "cannot load the keep's modules to see what they bring"
    roots = dict.fromkeys(str(it.source).removesuffix(it.path).rstrip("/") for it in packed)
    modules = [module_name(it.path) for it in packed if is_plain_module(it)]
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _PROBE, ":".join(roots), *modules]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env={}, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{what}: {error}") from None
    if done.returncode:
        raise Unavailable(f"{what}: {done.stderr.strip().rpartition(chr(10))[2]}")
    implementation, python, libc, openssl, *files = done.stdout.rstrip("\n").split("\0")
    return _Probed(
        {"cpython": "CPython"}.get(implementation, implementation), python, libc, openssl, tuple(files)
    )


def _group(kind: Kind, name: str, version: str, files: Collection[PackedFile], license_: str = "") -> Group:
    items = tuple(_item(it.path, it.source) for it in files)
    return Group(kind=kind, name=name, version=version, items=items, license=license_)


def _machine(kind: Kind, name: str, version: str, paths: dict[Path, str]) -> Group:
    items = sorted((_item(shown, path) for path, shown in paths.items()), key=lambda item: item.name)
    return Group(kind=kind, name=name, version=version, items=tuple(items))


def _item(name: str, source: Path) -> Item:
    content = source.read_bytes()
    lines = count_lines(content) if name.endswith(".py") else 0
    return Item(name=name, size=len(content), lines=lines, sha256=sha256(content).hexdigest())
