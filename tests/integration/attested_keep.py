"""An attested keep as a real process, on a platform that offers nothing but a launch secret."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enarx.host.keep_process import KeepProcess
from enarx.host.keep_start import start_interpreter
from enarx.tcb.sallyport.items import Admit, Ready
from enarx.tcb.session import (
    LAUNCH_GUID,
    Attested,
    AuditLog,
    Ended,
    Exited,
    Life,
    Move,
    Output,
    Stream,
    TenantSession,
    launch_proof,
)
from enarx.tcb.wire import FrameDecoder, Value, decode, encode, frame
from enarx.tcb.workload import Job
from enarx.tenant.channel import Channel

TIMEOUT_S = 30.0


class AttestedKeepProcess:
    """The host's and the platform's side of one keep. Use it as a context manager."""

    def __init__(self) -> None:
        self.secret = os.urandom(32)
        self._ends: list[socket.socket] = []
        self.platform, theirs = socket.socketpair()
        with theirs:
            early = start_interpreter(port=theirs)
        self.keep = KeepProcess.start("--attested", early=early)
        threading.Thread(target=self._serve_port, daemon=True).start()
        item, _ = self.keep.channel.receive()
        assert isinstance(item, Ready)
        self.door, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with inner:
            self.keep.channel.send(Admit(), [inner.fileno()])

    def _serve_port(self) -> None:
        """Answer as Linux shows the secrets of a launch."""
        decoder = FrameDecoder(max_bytes=1 << 17)
        with contextlib.suppress(OSError):
            while data := self.platform.recv(1 << 16):
                decoder.feed(data)
                for body in decoder.frames():
                    answer: Value = [2, b""]
                    match decode(body, max_bytes=1 << 17):
                        case ["list", "", _]:
                            answer = [0, b"coco"]
                        case ["read", str(path), _] if path == f"coco/{LAUNCH_GUID}":
                            answer = [0, self.secret]
                        case ["remove", str(), _]:
                            answer = [0, b""]
                    self.platform.sendall(frame(encode(answer)))

    def connect(self, *, large_buffers: bool = False) -> socket.socket:
        """Give a tenant's end of a new connection, as the host hands one over."""
        ours, theirs = socket.socketpair()
        if large_buffers:
            with socket.create_server(("127.0.0.1", 0)) as server:
                ours.close()
                theirs.close()
                ours = socket.create_connection(server.getsockname())
                theirs, _ = server.accept()
        with theirs:
            rights = array.array("i", [theirs.fileno()])
            self.door.sendmsg([b"t"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        self._ends.append(ours)
        return ours

    def tenant(self, *, large_buffers: bool = False, **options: Any) -> Tenant:
        """Give a tenant on a new connection."""
        return Tenant(Channel(self.connect(large_buffers=large_buffers)), self.secret, **options)

    def __enter__(self) -> AttestedKeepProcess:
        return self

    def __exit__(self, *_: object) -> None:
        for end in (*self._ends, self.door, self.platform):
            end.close()
        self.keep.end()


class Tenant:
    """A tenant on one connection, who checks evidence by the launch secret."""

    def __init__(self, channel: Channel, secret: bytes, **options: Any) -> None:
        self.channel = channel
        self._secret = secret
        life = options.pop("life", None)
        if life is None:
            life = Life(AuditLog())
            life.move(Move.BOOT)
        self.key = options.pop("key", None) or Ed25519PrivateKey.generate()
        settings = {
            "key": self.key,
            "nonce": os.urandom(32),
            "exporter": channel.exporter,
            "keep_key": channel.keep_key,
            **options,
        }
        self.session = TenantSession(life, **settings)
        self.events = self._events()

    def _events(self) -> Iterator[Any]:
        while data := self.channel.receive(timeout_s=TIMEOUT_S):
            yield from self.session.receive(data)

    def accept(self) -> Attested:
        """Take the next evidence, check it and accept it."""
        event = next(self.events)
        assert isinstance(event, Attested), event
        match decode(event.evidence, max_bytes=1 << 20):
            case [str(), bytes(proof)]:
                expected = event.binding.report_data()
                found: Value = [expected, launch_proof(self._secret, expected)]
                assert decode(proof, max_bytes=1 << 12) == found
                self.session.accept(expected)
        return event

    def attest(self) -> Tenant:
        """Challenge the keep and accept its answer."""
        self.channel.send(self.session.hello())
        self.accept()
        return self

    def deliver(self, job: Job) -> Tenant:
        """Deliver, and accept the locked keep."""
        for part in self.session.deliver(job):
            self.channel.send(part)
        self.accept()
        return self

    def run(self, stdin: bytes = b"") -> tuple[bytes, bytes, Ended]:
        """Run it to its end and give what it wrote."""
        self.channel.send(self.session.attach())
        self.channel.send(self.session.run())
        if stdin:
            self.channel.send(self.session.input(stdin))
        self.channel.send(self.session.input(b""))
        return self.collect()

    def collect(self) -> tuple[bytes, bytes, Ended]:
        """Read to the end."""
        written = {stream: bytearray() for stream in Stream}
        for event in self.events:
            if isinstance(event, Output):
                assert event.offset == len(written[event.stream])
                written[event.stream] += event.data
            elif isinstance(event, Ended):
                return bytes(written[Stream.STDOUT]), bytes(written[Stream.STDERR]), event
            else:
                assert not isinstance(event, Exited), event
        raise AssertionError("the keep ended without saying how")
