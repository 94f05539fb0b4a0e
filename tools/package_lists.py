"""Lists of Debian's packages, fetched and verified by apt into a directory of ours: nothing of the system is changed.

The mirrors are those of this machine's apt configuration, the keys those of Debian's archives.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from enarx.tcb.errors import Unavailable
from enarx.tenant.image.vm._fetch import configured_mirrors

KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
ARCHITECTURE: Final = "amd64"
TIMEOUT_S: Final = 300


class PackageLists:
    """The newest lists of some suites, in the directory ``home``."""

    def __init__(self, home: Path, suites: Sequence[str]) -> None:
        """Fetch them. Raises ``Unavailable``."""
        for name in ("lists/partial", "archives/partial", "etc"):
            (home / name).mkdir(parents=True)
        sources = [f"deb [signed-by={KEYRING}] {_mirror(suite)} {suite} main\n" for suite in suites]
        (home / "status").touch()
        (home / "etc/sources.list").write_text("".join(sources))
        settings = {
            "APT::Architecture": ARCHITECTURE,
            "APT::Architectures": ARCHITECTURE,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": 3,
            "Dir::State::lists": home / "lists",
            "Dir::State::status": home / "status",  # of a system without packages; locks lie beside it
            "Dir::Cache": home,
            "Dir::Etc::sourcelist": home / "etc/sources.list",
            "Dir::Etc::sourceparts": "-",
        }
        (home / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
        self._environment = {**os.environ, "APT_CONFIG": str(home / "apt.conf"), "LC_ALL": "C"}
        self._home = home
        self._run("apt-get", "update", "-qq", "--error-on=any")

    def newest(self, name: str) -> str:
        """Give the first package on which the package ``name`` depends."""
        return self.fields(name)["Depends"].split(",")[0].split()[0]

    def fields(self, name: str) -> dict[str, str]:
        """Give what the list says of the newest version of a package."""
        shown = self._run("apt-cache", "show", "--no-all-versions", name)
        return dict(
            line.split(": ", 1) for line in shown.splitlines() if re.match(r"[A-Z][A-Za-z0-9-]*: ", line)
        )

    def download(self, suite: str, packages: Sequence[str]) -> Sequence[Path]:
        """Fetch packages, those of ``suite`` before others, and all that they depend on; apt checks each."""
        command = ["apt-get", "install", "--download-only", "--no-install-recommends", "-qq", "-y"]
        self._run(*command, "--target-release", suite, *packages)
        return sorted((self._home / "archives").glob("*.deb"))

    def _run(self, *command: str) -> str:
        try:
            done = subprocess.run(
                command,
                env=self._environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"{command[0]}: {error}") from None
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
