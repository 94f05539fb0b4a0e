"""One keep in a virtual machine: started, watched by a thread, and ended with its reason.

The thread starts QEMU, so that QEMU is killed when it, and with it this process, is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from enarx import __version__
from enarx.host.keep_process import KeepNotStarted
from enarx.host.vm._accelerator import Accelerator, find_accelerator
from enarx.host.vm._door import Door, interrupt
from enarx.host.vm._options import Files, Guest, Protection, qemu_command
from enarx.host.vm._qmp import Control
from enarx.host.vm._spawn import Process
from enarx.host.vm._tpm import Tpm
from enarx.tcb.errors import EnarxError, Unavailable
from enarx.tcb.sallyport.carrier import PortClosed
from enarx.tcb.sallyport.items import Exited, Ready
from enarx.tcb.sallyport.socket_channel import ChannelClosed
from enarx.tcb.workload import Ending, Outcome

BOOT_TIMEOUT_S: Final = 120.0
"""A translated guest takes 4 seconds alone, and 40 where six others want two processors."""
EXIT_TIMEOUT_S: Final = 5.0
_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "guest-reset": "the kernel of its machine panicked",
        "guest-panic": "the kernel of its machine panicked",
        "guest-shutdown": "its machine was powered off without a word",
        "host-signal": "QEMU was told to end by a signal",
        "host-error": "QEMU met an error",
    }
)
_PANICKED: Final = "GUEST_PANICKED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """The files that a machine starts from, for one way to protect it."""

    kernel: Path
    initrd: Path
    firmware: Path | None = None


class VmKeep:
    """Implements ``enarx.host.backend.Launched`` for a machine that needs no secret first, once it is ready."""

    def __init__(
        self,
        protection: Protection,
        boot: Boot,
        guest: Guest,
        *,
        platform: socket.socket | None = None,
        accelerator: Accelerator | None = None,
        announce: bool = False,
        tpm: Tpm | None = None,
    ) -> None:
        """Start QEMU. ``platform`` is its end of the port to an emulated platform; it and ``tpm`` are taken over.

        With ``announce`` the keep's first word goes to the channel, for who is handed that while it boots.
        Raises ``Unavailable``.
        """
        self.accelerator = accelerator or find_accelerator()
        self.launch = b""
        self._announce = announce
        self._tpm = tpm
        self.ended = ""
        """How it ended, for people."""
        self.channel, self._inner = socket.socketpair()
        self._control_end, qemu_control = socket.socketpair()
        self._port, qemu_port = socket.socketpair()
        self._news = threading.Condition()
        self._ready: Ready | None = None
        self._over = False
        self._stopping = False
        self._process: Process | None = None
        self._failure: Unavailable | None = None
        self.control: Control | None = None
        theirs = [qemu_control, qemu_port, *([platform] if platform else [])]
        theirs += [tpm.control, tpm.inside] if tpm else []
        opened: list[int] = []
        try:
            for path in _paths(boot):  # one by one: each is closed if the next is not there
                opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            files = Files(
                kernel=opened[0],
                initrd=opened[1],
                firmware=opened[2] if boot.firmware else None,
                keep=qemu_port.fileno(),
                platform=platform.fileno() if platform else None,
                control=qemu_control.fileno(),
                tpm=tpm.control.fileno() if tpm else None,
            )
            command = qemu_command(protection, guest, files, self.accelerator)
            started = threading.Event()
            threading.Thread(
                target=self._live, args=(command, files, started), name="vm-keep", daemon=True
            ).start()
            started.wait()
        except OSError as error:
            self._failure = Unavailable(f"{error.filename}: {(error.strerror or '').lower()}")
        finally:
            for fd in opened:
                os.close(fd)
            for sock in theirs:
                sock.close()
        if self._failure is not None:
            if tpm is not None:
                tpm.discard()
            for sock in (self.channel, self._inner, self._control_end, self._port):
                sock.close()
            raise self._failure

    @property
    def pid(self) -> int:
        """QEMU's process."""
        if self._process is None:
            raise Unavailable("QEMU did not start")
        return self._process.pid

    def await_ready(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Wait until the keep has booted. Raises ``KeepNotStarted``, and ends it, when it does not."""
        with self._news:
            self._news.wait_for(lambda: self._ready or self._over, timeout_s)
            ready, over = self._ready, self._over
        if over:
            raise KeepNotStarted(f"the keep did not start: {self.ended}")
        if ready is None:
            self.stop()
            raise KeepNotStarted(f"the keep is not ready after {timeout_s:g} seconds")
        if ready.version != __version__:
            self.stop()
            raise KeepNotStarted(f"the keep is of release {ready.version}, this is {__version__}")

    def secret(self, packet: bytes) -> None:
        """Refuse: this machine runs already."""
        raise Unavailable("this keep waits for no secret")

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended; say whether it has."""
        with self._news:
            return self._news.wait_for(lambda: self._over, timeout_s)

    def stop(self) -> None:
        """End it."""
        self._stopping = True
        interrupt(self.channel)
        if self._process is not None:
            self._process.kill()
        self.wait(EXIT_TIMEOUT_S)
        self.channel.close()

    # The thread.

    def _live(self, command: Sequence[str], files: Files, started: threading.Event) -> None:
        beside: Process | None = None
        try:
            if self._tpm is not None:
                beside = Process(self._tpm.command, [self._tpm.inside.fileno()])
            self._process = Process(command, files.all())
            self.control = Control(self._control_end)
        except Unavailable as error:
            self._failure = error
            return
        finally:
            if self._process is None and beside is not None:
                beside.end()
            started.set()
        door = Door(self._port, self._inner, self._became_ready, announce=self._announce)
        complaint = ""
        try:
            door.serve()
        except PortClosed:
            pass
        except ChannelClosed:
            self._stopping = True
        except (EnarxError, OSError) as error:
            complaint = f"it broke the protocol: {error}"
            self._process.kill()
        if door.last is None or self._stopping:
            self._bury(self._process, complaint)
        else:
            self.ended = _told(door.last)
        door.say(door.last or Exited(outcome=_lost(self.ended).value()))
        door.close()
        self._bury(self._process, self.ended)
        self._process.close()
        if self._tpm is not None and beside is not None:
            beside.end()
            self._tpm.discard()
        with self._news:
            self._over = True
            self._news.notify_all()

    def _became_ready(self, ready: Ready) -> None:
        with self._news:
            self._ready = ready
            self._news.notify_all()

    def _bury(self, process: Process, known: str) -> None:
        """Wait for QEMU's end, and find the reason if it is not ``known``."""
        if self._stopping:
            process.kill()
        status = process.wait(EXIT_TIMEOUT_S)
        if self.control is not None:
            self.control.join(EXIT_TIMEOUT_S)
        self.ended = known or self._reason(process, status)

    def _reason(self, process: Process, status: int) -> str:
        if self._stopping:
            return "it was stopped"
        events = list(self.control.events) if self.control else []
        for name, data in events:
            if name == _PANICKED:
                return _REASONS["guest-panic"]
            if name == "SHUTDOWN":
                return _REASONS.get(str(data.get("reason")), f"QEMU ended: {data.get('reason')}")
        if status < 0:
            return f"QEMU was killed by {signal.Signals(-status).name}"
        return f"QEMU failed: {process.complaint() or f'status {status}'}"


def _paths(boot: Boot) -> list[Path]:
    return [boot.kernel, boot.initrd, *([boot.firmware] if boot.firmware else [])]


def _lost(detail: str) -> Outcome:
    return Outcome(ending=Ending.KEEP_LOST, detail=detail)


def _told(last: Exited) -> str:
    """Say what a keep's last word means."""
    if last.outcome is None:
        return "it ended"
    with contextlib.suppress(EnarxError):
        return Outcome.from_value(last.outcome).detail
    return "it ended, and said nothing that can be read"
