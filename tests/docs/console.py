"""Runs the commands of a page and compares what they write with what the page shows.

A page is run from its top in one shell. Of its fenced blocks two kinds count: ``console``, where a line that starts
with ``$ `` is a command and the lines below it are its output, and any block below a comment ``<!-- file: NAME -->``,
which is written to the file NAME. In an output ``...`` stands for anything.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_BLOCK: Final = re.compile(
    r"(?:<!-- file: (?P<file>[\w./-]+) -->\n\n?)?^```(?P<kind>[\w-]*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_COMMAND: Final = re.compile(r"^\$ (?P<line>.*(?:\n> .*)*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)
_END: Final = "--- end of output ---"
PAGE_S: Final = 240.0
"""How long a page may take: its first C program also compiles the C library."""
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
            for shown in _COMMAND.finditer(block["text"]):
                line = re.sub(r"(?m)^> ", "", shown["line"])
                yield Command(line, shown["output"])


def follow(page: Path, folder: Path) -> list[tuple[str, str, str]]:
    """Do in ``folder`` what ``page`` says; give each command with the output shown and the output found."""
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "tests").symlink_to(ROOT / "tests")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"ENARX_CACHE": str(folder / ".cache"), "LC_ALL": "C.UTF-8"}
    environment |= {"XDG_DATA_HOME": str(folder / ".data")}
    shell = subprocess.Popen(
        ["/bin/bash"], cwd=folder, env=environment, text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    watch = threading.Timer(PAGE_S, os.killpg, (shell.pid, signal.SIGKILL))
    watch.start()
    results = []
    try:
        for step in steps(page.read_text().replace(_PORT, str(_free_port()))):
            if isinstance(step, Save):
                (folder / step.name).write_text(step.text)
            else:
                results.append((step.line, step.output, _answer(shell, step.line)))
    finally:
        watch.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)  # and what it left running in the background
        with contextlib.suppress(BrokenPipeError):
            shell.communicate()
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
