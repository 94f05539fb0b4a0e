"""Open the locked packages and wheels, and our own part: every file that can get into the image, and who brings it."""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from enarx.tcb.errors import Malformed
from enarx.tenant.image._contents import is_packed, own_files
from enarx.tenant.image.vm._deb import Member, read_deb
from enarx.tenant.image.vm._lock import Package, Wheel

MODULES: Final = "keep"
"""Where our modules and those of the wheels lie in the image."""
NOT_UNPACKED: Final = (
    "usr/share/",
    "etc/",
    "usr/lib/python3.11/lib-dynload/_hashlib.",
    "usr/lib/python3.11/lib-dynload/_ssl.",
)
"""The two modules would bring a second OpenSSL beside cryptography's; the interpreter has hashes of its own."""
MAX_LINKS: Final = 8
Origin = Package | Wheel | None
"""Who brings a file; ``None`` is this release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file before anything is done to it."""

    content: bytes
    executable: bool
    origin: Origin


def system_sources(packages: Mapping[Package, bytes]) -> dict[str, Source]:
    """Give the files of Debian packages; a symbolic link becomes the file that it leads to. Raises ``Malformed``."""
    members: dict[str, tuple[Member, Package]] = {}
    for package, data in packages.items():
        for member in read_deb(data, lambda path: not path.startswith(NOT_UNPACKED)):
            members[member.path] = member, package
    sources = {}
    for path, (member, package) in members.items():
        if (found := _followed(member, members)) is not None:
            sources[path] = Source(content=found.content, executable=found.executable, origin=package)
    return sources


def wheel_sources(wheel: Wheel, data: bytes) -> dict[str, Source]:
    """Give those files of a wheel that a keep is made of. Raises ``Malformed``."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if is_packed(wheel.name, PurePosixPath(name))]
            contents = {name: archive.read(name) for name in names if not name.endswith("/")}
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise Malformed(f"{wheel.file}: {error}") from None
    return {
        f"{MODULES}/{name}": Source(content=content, executable=False, origin=wheel)
        for name, content in contents.items()
    }


def own_sources() -> dict[str, Source]:
    """Give our own part of the image."""
    return {
        f"{MODULES}/{file.path}": Source(content=file.source.read_bytes(), executable=False, origin=None)
        for file in own_files()
    }


def write_out(sources: Mapping[str, Source], root: Path) -> None:
    """Lay the files out below ``root``, where programs can be started from them."""
    for path, source in sources.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(source.content)
        place.chmod(0o755 if source.executable else 0o644)


def license_of(data: bytes) -> str:
    """Give the licence expression that a wheel's metadata state, or nothing."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            if name.endswith(".dist-info/METADATA"):
                return _field(
                    archive.read(name).decode("utf-8", "replace").splitlines(), "License-Expression: "
                )
    return ""


def _field(lines: Iterable[str], name: str) -> str:
    for line in lines:
        if not line:
            break  # the description follows
        if line.startswith(name):
            return line.removeprefix(name)
    return ""


def _followed(member: Member, members: Mapping[str, tuple[Member, Package]]) -> Member | None:
    """Follow symbolic links inside the image; ``None`` when they lead to no file."""
    for _ in range(MAX_LINKS):
        if not member.target:
            return member
        path = posixpath.normpath(posixpath.join("/", posixpath.dirname(member.path), member.target))
        found = members.get(path.lstrip("/"))
        if found is None:
            return None
        member = found[0]
    return None
