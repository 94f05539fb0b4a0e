"""A keep as a process of this machine: start it, talk to it, end it.

The keep's interpreter starts isolated: no site, no environment, no inherited descriptor but its end of the channel.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final

import enarx
from enarx.tcb.errors import EnarxError
from enarx.tcb.sallyport.items import Exited, Ready
from enarx.tcb.sallyport.socket_channel import ChannelClosed, SocketChannel
from enarx.tcb.workload import Outcome

CHANNEL_FD: Final = 3
"""The number under which a keep finds its end of the channel."""
START_TIMEOUT_S: Final = 30.0
"""A loaded machine starts a keep in under a second; after this it is broken."""
_END_TIMEOUT_S: Final = 3.0
_BOOT: Final = (
    "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from enarx.tcb.keep.__main__ import main; main()"
)


class KeepNotStarted(EnarxError):
    """The keep did not come up on this machine."""


def image_path() -> str:
    """Name the folders in which a keep finds its code, separated by colons."""
    import cbor2

    return ":".join([str(Path(enarx.__file__).parents[1]), str(Path(cbor2.__file__).parents[1])])


def start_interpreter(channel: socket.socket, *arguments: str) -> int:
    """Start an isolated interpreter with the keep's code and ``channel``; give its process number."""
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, image_path(), *arguments]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, channel.fileno(), CHANNEL_FD),
    ]
    try:
        return os.posix_spawn(sys.executable, command, {}, file_actions=actions)
    except OSError as error:
        raise KeepNotStarted(
            f"the keep's interpreter does not start: {(error.strerror or '').lower()}"
        ) from None


class KeepProcess:
    """One keep and our end of its channel; ``pid`` is the process to wait for, unless somebody else does."""

    def __init__(self, sock: socket.socket, pid: int, *, ours: bool = True) -> None:
        self._sock = sock
        self.channel = SocketChannel(sock)
        self.pid = pid
        self._ours = ours
        self.exit_status: int | None = None

    @classmethod
    def start(cls, *arguments: str) -> KeepProcess:
        """Start a keep's interpreter; ``arguments`` are those of ``enarx.tcb.keep.__main__``."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            return cls(ours, start_interpreter(theirs, *arguments))

    def await_ready(self, timeout_s: float = START_TIMEOUT_S) -> Outcome | None:
        """Wait until the keep can take a delivery; an outcome says that it will not, and why."""
        if not select.select([self.channel.fileno()], [], [], timeout_s)[0]:
            raise KeepNotStarted(f"the keep is not ready after {timeout_s:g} seconds")
        try:
            item, _ = self.channel.receive()
        except ChannelClosed:
            raise KeepNotStarted(f"the keep ended before it was ready: {self.describe_end()}") from None
        match item:
            case Ready(version=enarx.__version__):
                return None
            case Ready(version=version):
                raise KeepNotStarted(f"the keep is of release {version}, this is {enarx.__version__}")
            case Exited(outcome=value):
                return Outcome.from_value(value)
        raise KeepNotStarted("the keep speaks out of turn")

    def give_time(self, timeout_s: float) -> None:
        """Let each following wait for the keep take at most ``timeout_s``."""
        self._sock.settimeout(timeout_s)

    def wait(self) -> int | None:
        """Wait a moment for the process to end and give its status; kill it when it does not."""
        if not self._ours:
            return None
        deadline = time.monotonic() + _END_TIMEOUT_S
        pause_s = 0.0005
        while self.exit_status is None and time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit_status = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 0.05)
        if self.exit_status is None:
            self._kill()
            self.exit_status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.exit_status

    def describe_end(self) -> str:
        """Say how the process ended, for people."""
        status = self.wait()
        if status is None:
            return "it closed its channel"
        if status >= 0:
            return f"it exited with status {status}"
        return f"it was killed by {signal.Signals(-status).name}"

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself in the meantime
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the keep if it is alive, and give back what it holds here."""
        self.channel.close()
        if self.exit_status is None and self._ours:
            self._kill()
            self.wait()
