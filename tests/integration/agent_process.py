"""``enarx host serve`` as a real process in front of a real emulated platform, as the owner of a machine runs them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from enarx.api.agent import KeepInfo, KeepState
from enarx.tenant.agent_calls import HostAddress
from enarx.tenant.agent_client import AgentClient

BIN = Path(sys.executable).parent
TIMEOUT_S = 60.0


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what cannot be waited for otherwise: the state of processes that are not ours."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Process:
    """A program whose first line on standard output says that it is up."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said: list[str] = []
        self._changed = threading.Condition()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.first = json.loads(line)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.said.append(line)
                self._changed.notify_all()

    def heard(self, pattern: str) -> re.Match[str]:
        """Wait until it has said so."""
        found: list[re.Match[str]] = []

        def said() -> bool:
            found[:] = [match for line in self.said if (match := re.search(pattern, line))]
            return bool(found)

        with self._changed:
            assert self._changed.wait_for(said, TIMEOUT_S), f"{pattern!r} is not in {self.said}"
        return found[-1]

    def end(self) -> int:
        """Have it end in order."""
        self.process.terminate()
        return self.ended()

    def ended(self) -> int:
        """Wait for its end."""
        code = self.process.wait(timeout=TIMEOUT_S)
        self._reader.join(timeout=TIMEOUT_S)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code


class Machine:
    """A platform in a directory, with the agents of its owner."""

    def __init__(self, state: Path, image: Path, kind: str = "snp", *options: str) -> None:
        self.state, self.image, self.kind, self._options = state, image, kind, options
        self.platform = self._platform()
        self._agents: list[Process] = []

    def _platform(self) -> Process:
        options = ("--state", str(self.state), "--beside-real-hardware", "--json")
        return Process("enarx-emulator", "start", self.kind, *options, *self._options)

    def restart(self) -> None:
        """Start the platform again after its end."""
        self.platform = self._platform()

    def agent(self, *options: str, image: Path | None = None) -> Process:
        """Start an agent; ``image``: of another keep image."""
        common = ("--image", str(image or self.image), "--listen", "127.0.0.1:0", "--json")
        agent = Process("enarx", "host", "serve", "--backend", f"emulated={self.state}", *common, *options)
        self._agents.append(agent)
        return agent

    def keeps(self) -> set[int]:
        """The processes that run from this machine's images: the fork server, keeps in use, and its pool."""
        found = set()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if f"{self.state}/images/".encode() in path.read_bytes():
                    found.add(int(path.parent.name))
        return found

    def close(self) -> None:
        for process in (*self._agents, self.platform):
            if process.process.returncode is None:
                process.end()


@contextlib.contextmanager
def machine(state: Path, image: Path, kind: str = "snp", *options: str) -> Iterator[Machine]:
    """A machine that ends with the context."""
    made = Machine(state, image, kind, *options)
    try:
        yield made
    finally:
        made.close()


def client(agent: Process, *, token: str = "", certificates: Path | None = None) -> AgentClient:
    """Somebody who asks ``agent``."""
    url = agent.first["url"]
    if certificates is not None:
        url = url.replace("127.0.0.1", "localhost")
    return AgentClient(HostAddress.parse(url, token=token, certificates=certificates), timeout_s=TIMEOUT_S)


def await_end(asker: AgentClient, keep: str) -> KeepInfo:
    """Wait until the agent says that a keep has ended."""
    until(lambda: asker.keep(keep).state is KeepState.ENDED, "the keep has not ended")
    return asker.keep(keep)


def process_of(agent: Process, keep: str) -> int:
    """The process of a keep, as its owner is told."""
    return int(agent.heard(rf"keep {keep[:8]} on \S+: ready, process (\d+)")[1])


def alive(pid: int) -> bool:
    """Whether a process still runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def inode_of_peer(connection: socket.socket) -> str:
    """The inode of the other end of a TCP connection of this machine."""
    ours, theirs = (f"{port:04X}" for port in (connection.getsockname()[1], connection.getpeername()[1]))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{theirs}") and fields[2].endswith(f":{ours}"):
            return fields[9]
    raise AssertionError("there is no other end")


def holds(pid: int, inode: str) -> bool:
    """Whether a process has a descriptor of a socket."""
    return f"socket:[{inode}]" in {
        os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()
    }
