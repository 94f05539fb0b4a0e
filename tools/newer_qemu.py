"""Unpack a QEMU that knows SEV-SNP, TDX and PEF into build/qemu, beside the system's: `make newer-qemu`, on Debian.

Debian 12 has QEMU 7.2, which knows neither SNP nor TDX, so that tests of their options need another. It is taken from
the newest suite that has one, with all libraries that it stands on and its own C library; apt verifies every list and
every package. Nothing is locked: mirrors drop old packages, and any version from ``LEAST`` on will do. About 60 MB are
fetched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.package_lists import PackageLists

from enarx.tcb.errors import EnarxError, Unavailable

TARGET: Final = Path(__file__).resolve().parents[1] / "build" / "qemu"
SUITES: Final = (("trixie", "trixie-backports"), ("sid",))
"""Tried in this order; of each group the last suite comes before the others."""
LEAST: Final = (10, 1)
"""The first that knows TDX."""
PROGRAMS: Final = {"qemu-system-x86_64": "qemu-system-x86", "qemu-system-ppc64": "qemu-system-ppc"}
LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"
KEPT: Final = (LIBRARIES, "usr/share/qemu", "usr/share/seabios", *(f"usr/bin/{name}" for name in PROGRAMS))
_START: Final = f"""#!/bin/sh
here=$(CDPATH='' cd "$(dirname "$0")/.." && pwd)
exec "$here/{LIBRARIES}/ld-linux-x86-64.so.2" --library-path "$here/{LIBRARIES}" "$here/usr/bin/$(basename "$0")" \\
    -L "$here/usr/share/qemu" -L "$here/usr/share/seabios" "$@"
"""
"""Runs a program with the C library of its own suite."""
_VERSION: Final = re.compile(r"version (\d+)\.(\d+)")


def main() -> int:
    """Unpack it, unless that was done, and say which."""
    if (there := version(TARGET)) is None:
        TARGET.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=TARGET.parent, prefix=".qemu.") as made:
            there = _first(Path(made))
    print(f"{TARGET}: {there}")
    return 0


def version(folder: Path) -> str | None:
    """Give the version of the programs in ``folder``; None when one is missing, does not run, or is too old."""
    told = ""
    for name in PROGRAMS:
        try:
            asked = subprocess.run(
                [folder / "bin" / name, "--version"], capture_output=True, text=True, timeout=60, check=False
            )
        except OSError:
            return None
        told = asked.stdout.partition("\n")[0]
        found = _VERSION.search(told)
        if asked.returncode or found is None or (int(found[1]), int(found[2])) < LEAST:
            return None
    return told


def _first(made: Path) -> str:
    """Try one suite after the other, and put the first QEMU that is new enough into its place."""
    reasons = []
    for number, suites in enumerate(SUITES):
        root = made / f"root-{number}"
        try:
            lists = PackageLists(made / f"apt-{number}", suites)
            _unpack(lists.download(suites[-1], list(PROGRAMS.values())), root)
            if (found := version(root)) is None:
                raise Unavailable(f"its QEMU is older than {LEAST[0]}.{LEAST[1]}, or does not run here")
        except EnarxError as error:
            reasons.append(f"{suites[-1]}: {error}")
            continue
        shutil.rmtree(TARGET, ignore_errors=True)
        os.rename(root, TARGET)
        return found
    raise Unavailable(f"no suite gives a newer QEMU: {'; '.join(reasons)}")


def _unpack(packages: Sequence[Path], root: Path) -> None:
    """Unpack what QEMU needs, and write how it is started."""
    whole = root.with_name(f"{root.name}-whole")
    for package in packages:
        done = subprocess.run(["dpkg-deb", "-x", package, whole], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"{package.name}: {done.stderr.strip()}")
    for name in KEPT:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(whole / name, root / name)
        except OSError as error:
            raise Unavailable(f"{name}: {(error.strerror or str(error)).lower()}") from None
    (root / "bin").mkdir()
    for name in PROGRAMS:
        (root / "bin" / name).write_text(_START)
        (root / "bin" / name).chmod(0o755)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EnarxError as error:
        sys.exit(f"enarx: {error}")
