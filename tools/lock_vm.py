"""Write the lock of the VM image anew: `make lock-vm`, on Debian.

The newest packages of each suite are taken from the mirrors in this machine's apt configuration, through lists of
their own, which apt verifies with Debian's keys; nothing of the system is changed. Wheels are those of
requirements/keep.txt for the image's interpreter.
"""

from __future__ import annotations

import re
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Final

from tools.package_lists import PackageLists

from enarx.tcb.errors import EnarxError
from enarx.tenant.image.vm._fetch import download_wheels
from enarx.tenant.image.vm._lock import NAME, Lock, Package, Role, Wheel, format_lock, parse_lock

HERE: Final = Path(__file__).resolve().parents[1]
LOCK: Final = HERE / "src/enarx/tenant/image/vm" / NAME
KERNEL_OF: Final = "linux-image-cloud-amd64"
"""The package that names the newest kernel; 6.12 is the first of Debian with all that SEV-SNP and TDX guests need."""
STABLE: Final = ("bookworm", "bookworm-updates", "bookworm-security")
SYSTEM: Final = (
    "libc6",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "python3.11-minimal",
    "zlib1g",
)
_WHEEL: Final = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)-.*\.whl")


def main() -> int:
    """Write the lock and say what is in it."""
    with tempfile.TemporaryDirectory() as made:
        home = Path(made)
        backports, stable = (
            PackageLists(home / "backports", ("bookworm-backports",)),
            PackageLists(home / "stable", STABLE),
        )
        packages = (
            _package(backports, Role.KERNEL, backports.newest(KERNEL_OF)),
            *(_package(stable, Role.SYSTEM, name) for name in SYSTEM),
            _package(stable, Role.TOOL, "libzstd1"),
            _package(PackageLists(home / "trixie", ("trixie",)), Role.FIRMWARE, "ovmf"),
            _package(PackageLists(home / "sid", ("sid",)), Role.SEV_FIRMWARE, "ovmf-amdsev"),
        )
        wheels = home / "wheels"
        wheels.mkdir()
        download_wheels(HERE / "requirements/keep.txt", wheels)
        lock = Lock(packages=packages, wheels=tuple(_wheel(path) for path in sorted(wheels.iterdir())))
    text = format_lock(lock)
    if parse_lock(text) != lock:
        raise EnarxError("the lock does not read back as it was written")
    LOCK.write_text(text, encoding="utf-8")
    entries: list[Package | Wheel] = [*lock.packages, *lock.wheels]
    for entry in entries:
        print(f"{entry.name:<40} {entry.version}")
    return 0


def _package(lists: PackageLists, role: Role, name: str) -> Package:
    """Lock the newest version."""
    fields = lists.fields(name)
    return Package(
        role=role,
        name=name,
        version=fields["Version"],
        architecture=fields["Architecture"],
        path=fields["Filename"],
        size=int(fields["Size"]),
        sha256=fields["SHA256"],
    )


def _wheel(path: Path) -> Wheel:
    if not (match := _WHEEL.fullmatch(path.name)):
        raise EnarxError(f"{path.name} is no name of a wheel")
    return Wheel(
        name=match["name"].replace("_", "-").lower(),
        version=match["version"],
        file=path.name,
        sha256=sha256(path.read_bytes()).hexdigest(),
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EnarxError as error:
        sys.exit(f"enarx: {error}")
