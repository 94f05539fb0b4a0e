"""A tenant of real agents, who types commands; and what the README says that one gets."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.integration.agent_process import BIN, TIMEOUT_S

ROOT = Path(__file__).resolve().parents[2]


class Tenant:
    """Somebody with a home of their own, who uses one host."""

    def __init__(self, home: Path, host: str, root: Path | None) -> None:
        self.home, self.host, self.root = home, host, root

    @property
    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "XDG_DATA_HOME": str(self.home), "CANARY": "value of a variable"}

    def command(self, *arguments: object, trusting: bool = True) -> list[str]:
        trust = ["--trust-root", str(self.root)] if trusting and self.root else []
        words = [str(it) for it in arguments]
        at = words.index("--") if "--" in words else len(words)
        return [str(BIN / "enarx"), *words[:at], *trust, *words[at:]]

    def run(
        self, *arguments: object, stdin: bytes = b"", trusting: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        command = self.command(*arguments, trusting=trusting)
        return subprocess.run(
            command, input=stdin, capture_output=True, env=self.environment, timeout=TIMEOUT_S, check=False
        )

    def deploy(
        self, package: Path, *options: object, stdin: bytes = b"", trusting: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        return self.run("deploy", package, "--host", self.host, *options, stdin=stdin, trusting=trusting)


def root_of(state: Path, out: Path) -> Path:
    subprocess.run(
        [str(BIN / "enarx-emulator"), "root", "--state", str(state), "--out", str(out)],
        check=True,
        capture_output=True,
        timeout=TIMEOUT_S,
    )
    return out


def readme_cells() -> list[tuple[str, ...]]:
    """The table of the README: TEE, when the keep is attested, exit code, output as process keep and as VM keep."""
    rows = re.findall(
        r"(?m)^\| `([a-z-]+)` \| ([a-z ]+) \| (\d+) \| (.+) \| (.+) \|$", (ROOT / "README.md").read_text()
    )
    return [(*row[:3], *(cell.strip("`") for cell in row[3:])) for row in rows]
