"""A keep as a process of this machine: start it, talk to it, end it.

``keep_start`` starts the interpreter; here its life is watched from outside.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from typing import Final

import enarx
from enarx.host.keep_start import Interpreter, start_interpreter
from enarx.tcb.errors import EnarxError
from enarx.tcb.sallyport.items import Exited, Ready
from enarx.tcb.sallyport.socket_channel import ChannelClosed, SocketChannel
from enarx.tcb.workload import Ending, Outcome

START_TIMEOUT_S: Final = 30.0
"""A loaded machine starts a keep in under a second; after this it is broken."""
_END_TIMEOUT_S: Final = 3.0


class KeepNotStarted(EnarxError):
    """The keep did not come up on this machine."""


class KeepProcess:
    """One keep and our end of its channel; ``pid`` is the process to wait for, unless somebody else does."""

    def __init__(
        self, sock: socket.socket, pid: int, *, ours: bool = True, port: socket.socket | None = None
    ) -> None:
        self._sock = sock
        self.port = port
        """The platform's end of its port, if it is one that attests and we are its platform."""
        self.channel = SocketChannel(sock)
        self.pid = pid
        self._ours = ours
        self.exit_status: int | None = None

    @classmethod
    def start(cls, *options: str, early: Interpreter | None = None) -> KeepProcess:
        """Start a keep, or go on with an ``early`` one; ``options`` are those of ``enarx.tcb.keep.__main__``."""
        try:
            channel, pid = early or start_interpreter()
            channel.sendall(" ".join(options).encode() + b"\n")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise KeepNotStarted(f"the keep's interpreter does not start: {reason}") from None
        return cls(channel, pid)

    def await_ready(self, timeout_s: float = START_TIMEOUT_S) -> Outcome | None:
        """Wait until the keep can take a delivery; an outcome says that it will not, and why."""
        if not select.select([self.channel.fileno()], [], [], timeout_s)[0]:
            raise KeepNotStarted(f"the keep is not ready after {timeout_s:g} seconds")
        try:
            item, _ = self.channel.receive()
        except ChannelClosed:
            detail = f"the keep ended before it was ready: {self.describe_end()}"
            return Outcome(ending=Ending.KEEP_LOST, detail=detail)
        match item:
            case Ready(version=enarx.__version__):
                return None
            case Ready(version=version):
                raise KeepNotStarted(f"the keep is of release {version}, this is {enarx.__version__}")
            case Exited(outcome=value):
                return Outcome.from_value(value)
        raise KeepNotStarted("the keep speaks out of turn")

    def hand_over(self) -> socket.socket:
        """Give our end of the channel away, to who will be its host."""
        return self._sock

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
        if self.port is not None:
            self.port.close()
        if self.exit_status is None and self._ours:
            self._kill()
            self.wait()
