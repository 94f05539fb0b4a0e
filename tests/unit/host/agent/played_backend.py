"""A small backend whose keeps the test plays at their ends of the channels; attested before boot or after."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

from enarx.host.backend import Endorsements, Fact, LaunchRequest, Support
from enarx.tcb.errors import EnarxError, ProtocolViolation
from enarx.tcb.sallyport.items import Admit
from enarx.tcb.sallyport.socket_channel import SocketChannel


class PlayedKeep:
    """What the host holds, and ``inner``, the keep's own end, which the test plays."""

    def __init__(self, backend: PlayedBackend, request: LaunchRequest) -> None:
        self.request = request
        self.pid = None
        self.launch = b"measured" if backend.pre_boot else b""
        self.channel: socket.socket | None = None
        self.inner: SocketChannel
        self.stopped = threading.Event()
        self._outer, inner = socket.socketpair()
        inner.settimeout(30)
        self.inner = SocketChannel(inner)
        self._inner = inner
        if not backend.pre_boot:
            self.channel = self._outer

    def admitted(self) -> socket.socket:
        """Take the door that the host hands over."""
        item, descriptors = self.inner.receive()
        assert isinstance(item, Admit)
        door = socket.socket(fileno=descriptors[0])
        door.settimeout(30)
        return door

    def die(self) -> None:
        """End as a killed process does."""
        self._inner.close()

    def secret(self, packet: bytes) -> None:
        if packet != b"right":
            raise ProtocolViolation("the packet does not open")
        self.channel = self._outer

    def stop(self) -> None:
        if not self.stopped.is_set():
            self.stopped.set()
            self._outer.close()


class PlayedBackend:
    """Implements ``enarx.host.backend.Backend``."""

    emulated = True

    def __init__(self, tee: str = "snp", *, pre_boot: bool = False) -> None:
        self.tee = tee
        self.name = f"played-{tee}"
        self.pre_boot = pre_boot
        self.keeps: list[PlayedKeep] = []
        self.failure: EnarxError | None = None
        self.dead = False
        """Whether keeps die before they are admitted."""
        self.gate = threading.Event()
        """Launches and looks wait for it."""
        self.gate.set()
        self.prepared: list[Path] = []

    def support(self) -> Support:
        self.gate.wait(30)
        fact = Fact(name="played", passed=self.failure is None, detail="a test")
        return Support(ready=fact.passed, facts=(fact,))

    def endorsements(self) -> Endorsements:
        return Endorsements(
            certificates=(b"cert",), crls=(b"crl",), documents=(("tcb", b"{}"),), roots=(b"root",)
        )

    def prepare(self, image: Path) -> None:
        self.prepared.append(image)

    def launch(self, request: LaunchRequest) -> PlayedKeep:
        self.gate.wait(30)
        if self.failure is not None:
            raise self.failure
        keep = PlayedKeep(self, request)
        if self.dead:
            keep.die()
        self.keeps.append(keep)
        return keep

    def close(self) -> None:
        for keep in self.keeps:
            with contextlib.suppress(OSError):
                keep.die()
            keep.stop()
