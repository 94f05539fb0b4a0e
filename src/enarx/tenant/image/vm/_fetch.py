"""Fetch what the lock names into a cache; every file is held against its SHA-256 whenever it is read.

Packages come from the mirrors in this machine's apt configuration and through apt's own downloader, so that its
proxies and certificates hold here too; wheels come through pip, as this machine's pip is configured.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote

from enarx.tcb.errors import Unavailable
from enarx.tenant.image.vm._lock import Lock, Package, Wheel

APT_HELPER: Final = "/usr/lib/apt/apt-helper"
TIMEOUT_S: Final = 600
INTERPRETER: Final = ("--python-version", "3.11", "--implementation", "cp")
"""What the wheels must run on: the interpreter of the locked packages."""
ABIS: Final = ("cp311", "abi3", "none")
PLATFORMS: Final = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(36, 16, -1)),
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
)
"""Newest first; Debian 12, whose C library is in the image, has glibc 2.36."""


class Cache:
    """A directory of packages and wheels by their file names."""

    def __init__(
        self, directory: Path, *, mirrors: Sequence[str] = (), tell: Callable[[str], None] = lambda step: None
    ) -> None:
        """Use ``mirrors`` instead of those of apt's configuration if any are given; ``tell`` what is fetched."""
        self._directory = directory
        self._mirrors = tuple(mirrors)
        self._tell = tell

    def read(self, entry: Package | Wheel) -> bytes:
        """Give the content of a file that was fetched. Raises ``Unavailable``."""
        content = self._found(entry)
        if content is None:
            raise Unavailable(f"{entry.file} is not in {self._directory}, or it is not what the lock names")
        return content

    def fetch(self, lock: Lock, wanted: Collection[Package]) -> None:
        """Get what is missing of the ``wanted`` packages, and of all wheels. Raises ``Unavailable``."""
        packages = [package for package in wanted if self._found(package) is None]
        wheels = [wheel for wheel in lock.wheels if self._found(wheel) is None]
        if not packages and not wheels:
            return
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        with tempfile.TemporaryDirectory(dir=self._directory, prefix=".fetch-") as made:
            if packages:
                self._fetch_packages(packages, Path(made))
            if wheels:
                self._tell(f"fetching {len(wheels)} wheels with pip")
                _download_wheels(wheels, Path(made))
            missing: list[Package | Wheel] = [*packages, *wheels]
            for entry in missing:
                self._take(Path(made, entry.file), entry)

    def kept(self, name: str) -> bytes | None:
        """Give what ``keep`` has put aside, unchecked."""
        try:
            return (self._directory / name).read_bytes()
        except OSError:
            return None

    def keep(self, name: str, content: bytes) -> None:
        """Put something aside that can be made again, if there is room for it."""
        with (
            contextlib.suppress(OSError),
            tempfile.TemporaryDirectory(dir=self._directory, prefix=".keep-") as made,
        ):
            place = Path(made, name)
            place.write_bytes(content)
            os.replace(place, self._directory / name)

    def _fetch_packages(self, packages: Iterable[Package], made: Path) -> None:
        mirrors = self._mirrors or configured_mirrors()
        for package in packages:
            self._tell(f"fetching {package.file}, {package.size} bytes")
            refusals: list[str] = []
            for mirror in mirrors:
                if (refusal := _download(mirror, package, made / package.file)) is None:
                    break
                refusals.append(refusal)
            else:
                raise Unavailable(
                    f"no mirror gave {package.file}: {'; '.join(refusals) or 'apt is configured for none'}",
                    hint="give a mirror of Debian with --mirror, an archive of old packages if this one was replaced",
                )

    def _take(self, fetched: Path, entry: Package | Wheel) -> None:
        try:
            content = fetched.read_bytes()
        except OSError as error:
            raise Unavailable(
                f"{entry.file} was not fetched: {(error.strerror or str(error)).lower()}"
            ) from None
        if (found := sha256(content).hexdigest()) != entry.sha256:
            raise Unavailable(f"{entry.file} has sha256 {found}, the lock names {entry.sha256}")
        os.replace(fetched, self._directory / entry.file)

    def _found(self, entry: Package | Wheel) -> bytes | None:
        content = self.kept(entry.file)
        return None if content is None or sha256(content).hexdigest() != entry.sha256 else content


def configured_mirrors() -> tuple[str, ...]:
    """Give the bases of all archives that apt is configured to use, once each. Raises ``Unavailable``."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    hint = "build on Debian or a system like it"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"apt cannot be asked for its mirrors: {error}", hint=hint) from None
    if done.returncode:
        raise Unavailable(f"apt cannot be asked for its mirrors: {_last_line(done.stderr)}", hint=hint)
    return tuple(dict.fromkeys(line.rstrip("/") for line in done.stdout.splitlines() if line))


def _download(mirror: str, package: Package, target: Path) -> str | None:
    """Have apt fetch and check one package; why not, in apt's words, when this mirror does not give it."""
    source = f"{mirror.rstrip('/')}/{quote(package.path, safe='/')}"
    command = [APT_HELPER, "-o", "APT::Sandbox::User=root", "download-file", source, str(target)]
    try:
        done = subprocess.run(
            [*command, f"SHA256:{package.sha256}"],
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(
            f"{package.file} cannot be fetched: {error}", hint="build on Debian or a system like it"
        ) from None
    if done.returncode == 0:
        return None
    told = [line.removeprefix("E: ").removeprefix("Failed to fetch ") for line in done.stderr.splitlines()]
    return " ".join(told[0].split()) if told else f"{mirror}: apt-helper ended with {done.returncode}"


def _download_wheels(wheels: Iterable[Wheel], target: Path) -> None:
    lines = [f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in wheels]
    wanted = target / "wheels.txt"
    wanted.write_text("".join(lines))
    download_wheels(wanted, target)


def download_wheels(requirements: Path, target: Path) -> None:
    """Have pip fetch the wheels for the image's interpreter. Raises ``Unavailable``."""
    tags = [f"--abi={abi}" for abi in ABIS] + [f"--platform={platform}" for platform in PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", *INTERPRETER, *tags]
    command += ["--require-hashes", "-r", str(requirements), "-d", str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"pip did not fetch the wheels in {TIMEOUT_S} s") from None
    if done.returncode:
        raise Unavailable(
            f"pip cannot fetch the wheels: {_last_line(done.stderr)}",
            hint=f"{sys.executable} -m pip must work",
        )


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
