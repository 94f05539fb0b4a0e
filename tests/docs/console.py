"""Runs the commands of a page and compares what they write with what the page shows.

A page is run from its top in one shell. Of its fenced blocks two kinds count: ``console``, where a line that starts
with ``$ `` is a command and the lines below it are its output, and any block below a comment ``<!-- file: NAME -->``,
which is written to the file NAME. In an output ``...`` stands for anything.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_BLOCK: Final = re.compile(
    r"(?:<!-- file: (?P<file>[\w./-]+) -->\n\n?)?^```(?P<kind>[\w-]*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_END: Final = "--- end of output ---"
_PORT: Final = "8443"
"""The port that pages use; each run takes a free one instead."""


@dataclass(frozen=True, slots=True)
class Save:
    """A file that the reader writes."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and its output as the page shows it."""

    line: str
    output: str


def steps(page: str) -> Iterator[Save | Command]:
    """Everything that the reader of ``page`` does, in order."""
    for block in _BLOCK.finditer(page):
        if block["file"]:
            yield Save(block["file"], block["text"])
        elif block["kind"] == "console":
            for part in re.split(r"(?m)^\$ ", block["text"])[1:]:
                line, _, output = part.partition("\n")
                yield Command(line, output)


def follow(page: Path, folder: Path) -> list[tuple[str, str, str]]:
    """Do in ``folder`` what ``page`` says; give each command with the output shown and the output found."""
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "tests").symlink_to(ROOT / "tests")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"ENARX_CACHE": str(folder / ".cache"), "LC_ALL": "C.UTF-8"}
    shell = subprocess.Popen(
        ["/bin/bash"], cwd=folder, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    results = []
    with shell:
        try:
            for step in steps(page.read_text().replace(_PORT, str(_free_port()))):
                if isinstance(step, Save):
                    (folder / step.name).write_text(step.text)
                else:
                    results.append((step.line, step.output, _answer(shell, step.line)))
        finally:
            assert shell.stdin is not None
            shell.stdin.write("kill $(jobs -p) 2>/dev/null\n")
            shell.stdin.close()
    return results


def agrees(shown: str, found: str) -> bool:
    """Say whether ``found`` is what ``shown`` promises."""
    pattern = ".*".join(re.escape(part) for part in shown.split("..."))
    return re.fullmatch(pattern, found, re.DOTALL) is not None


def _answer(shell: subprocess.Popen[str], line: str) -> str:
    """Run one command and read what comes until it has ended; ``$?`` stays its exit code for the next."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f"{{\n{line}\n}} </dev/null\n__code=$?; echo {shlex.quote(_END)}; (exit $__code)\n")
    shell.stdin.flush()
    found: list[str] = []
    for text in shell.stdout:
        if text.endswith(f"{_END}\n"):
            found.append(text.removesuffix(f"{_END}\n"))
            return "".join(found)
        found.append(text)
    raise AssertionError(f"the shell ended in {line!r}: {''.join(found)}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
