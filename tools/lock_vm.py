"""Write the lock of the VM image anew: `make lock-vm`, on Debian.

The newest packages of each suite are taken from the mirrors in this machine's apt configuration, through lists of
their own, which apt verifies with Debian's keys; nothing of the system is changed. Wheels are those of
requirements/keep.txt for the image's interpreter.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Final

from enarx.tcb.errors import EnarxError, Unavailable
from enarx.tenant.image.vm._fetch import configured_mirrors, download_wheels
from enarx.tenant.image.vm._lock import NAME, Lock, Package, Role, Wheel, format_lock, parse_lock

HERE: Final = Path(__file__).resolve().parents[1]
LOCK: Final = HERE / "src/enarx/tenant/image/vm" / NAME
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
ARCHITECTURE: Final = "amd64"
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
            _Lists(home / "backports", ("bookworm-backports",)),
            _Lists(home / "stable", STABLE),
        )
        packages = (
            backports.package(Role.KERNEL, backports.newest(KERNEL_OF)),
            *(stable.package(Role.SYSTEM, name) for name in SYSTEM),
            stable.package(Role.TOOL, "libzstd1"),
            _Lists(home / "trixie", ("trixie",)).package(Role.FIRMWARE, "ovmf"),
            _Lists(home / "sid", ("sid",)).package(Role.SEV_FIRMWARE, "ovmf-amdsev"),
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


class _Lists:
    """Package lists of some suites, fetched and verified by apt into a directory of ours."""

    def __init__(self, home: Path, suites: tuple[str, ...]) -> None:
        for name in ("lists/partial", "archives/partial", "etc"):
            (home / name).mkdir(parents=True)
        sources = [f"deb [signed-by={KEYRING}] {_mirror(suite)} {suite} main\n" for suite in suites]
        (home / "etc/sources.list").write_text("".join(sources))
        settings = {
            "APT::Architecture": ARCHITECTURE,
            "APT::Architectures": ARCHITECTURE,
            "APT::Sandbox::User": "root",
            "Dir::State::lists": home / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": home,
            "Dir::Etc::sourcelist": home / "etc/sources.list",
            "Dir::Etc::sourceparts": "-",
        }
        (home / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
        self._environment = {**os.environ, "APT_CONFIG": str(home / "apt.conf"), "LC_ALL": "C"}
        self._run("apt-get", "update", "-qq", "--error-on=any")

    def newest(self, name: str) -> str:
        """The first package on which the package ``name`` depends."""
        return self._fields(name)["Depends"].split(",")[0].split()[0]

    def package(self, role: Role, name: str) -> Package:
        """Lock the newest version."""
        fields = self._fields(name)
        return Package(
            role=role,
            name=name,
            version=fields["Version"],
            architecture=fields["Architecture"],
            path=fields["Filename"],
            size=int(fields["Size"]),
            sha256=fields["SHA256"],
        )

    def _fields(self, name: str) -> dict[str, str]:
        shown = self._run("apt-cache", "show", "--no-all-versions", name)
        return dict(
            line.split(": ", 1) for line in shown.splitlines() if re.match(r"[A-Z][A-Za-z0-9-]*: ", line)
        )

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout


def _mirror(suite: str) -> str:
    """Give the mirror of this machine that has the suite: security updates are an archive of their own."""
    name = "debian-security" if suite.endswith("-security") else "debian"
    for mirror in configured_mirrors():
        if mirror.rpartition("/")[2] == name:
            return mirror
    raise Unavailable(f"apt is configured for no mirror whose address ends in /{name}")


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
