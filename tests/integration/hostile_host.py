"""A host that lies: it stands before a real one, and changes what it wants of what passes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from OpenSSL import SSL

from enarx.tcb.binding import EXPORTER_BYTES, EXPORTER_LABEL
from enarx.tcb.keep.tls import self_signed, server_context
from enarx.tcb.session import Attested, AuditLog, Life, Move, TenantSession
from enarx.tcb.session._messages import MAX_MESSAGE_BYTES, VOCABULARY, Attestation, Hello, Message
from enarx.tcb.wire import FrameDecoder, frame
from enarx.tenant.agent_calls import HostAddress
from enarx.tenant.channel import Channel
from enarx.tenant.upgrade import open_channel

TIMEOUT_S = 30.0
Answer = tuple[int, dict[str, str], bytes]
Serve = Callable[[socket.socket, str], None]


class HostileHost:
    """Passes everything on to ``real`` but what a test replaces. Use it as a context manager."""

    def __init__(self, real: HostAddress) -> None:
        self.real = real
        self.answer: Callable[[str, str, Answer], Answer] = lambda method, path, answer: answer
        """Changes an answer of the interface."""
        self.channel: Serve = self.pass_on
        """Serves the channel of the keep that is named."""
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.address = HostAddress.parse(f"http://127.0.0.1:{self._server.server_port}")

    def pass_on(self, client: socket.socket, keep: str) -> None:
        """Connect the tenant with the keep that it asked for."""
        join(client, open_channel(self.real, keep))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(host: HostileHost) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def _pass(self) -> None:
            host.asked.append(f"{self.command} {self.path}")
            if self.path.endswith("/channel"):
                self.wfile.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: enarx-session/1\r\n\r\n"
                )
                self.close_connection = True
                with contextlib.suppress(Exception):  # its quarrel with the keep is no error of the test
                    host.channel(self.connection, self.path.split("/")[3])
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind = {"Content-Type": self.headers["Content-Type"]} if body else {}
            url = host.real.url + self.path
            found = httpx.request(self.command, url, content=body, headers=kind, timeout=TIMEOUT_S)
            headers = {"Content-Type": found.headers["content-type"]}
            status, headers, body = host.answer(
                self.command, self.path, (found.status_code, headers, found.content)
            )
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _pass  # noqa: N815

    return Handler


def join(
    tenant: socket.socket,
    keep: socket.socket,
    *,
    up: Callable[[bytes], bytes] = bytes,
    down: Callable[[bytes], bytes] = bytes,
) -> None:
    """Carry bytes both ways through two functions, until one end is over."""
    tenant.settimeout(TIMEOUT_S)
    keep.settimeout(TIMEOUT_S)

    def carry(source: socket.socket, sink: socket.socket, change: Callable[[bytes], bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(change(data))
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=carry, args=(keep, tenant, down), daemon=True)
    thread.start()
    carry(tenant, keep, up)
    thread.join()
    keep.close()


class Impostor:
    """Plays the keep towards a tenant, with a TLS key of its own."""

    def __init__(self, client: socket.socket) -> None:
        client.setblocking(True)
        context = server_context(self_signed("keep", now=datetime.now(UTC)))
        self._tls = SSL.Connection(context, client)
        self._tls.set_accept_state()
        self._frames = FrameDecoder(max_bytes=MAX_MESSAGE_BYTES)
        self._tls.do_handshake()
        self.exporter = self._tls.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES)

    def hear(self) -> Message:
        """Give the next message of the tenant."""
        while True:
            for body in self._frames.frames():
                return VOCABULARY.decode(body)
            self._frames.feed(self._tls.recv(1 << 16))

    def hello(self) -> Hello:
        """Hear the challenge."""
        message = self.hear()
        assert isinstance(message, Hello)
        return message

    def say(self, message: Message) -> None:
        """Say something to the tenant."""
        self.send(VOCABULARY.encode(message))

    def send(self, body: bytes) -> None:
        """Send the body of a frame as it is."""
        self._tls.sendall(frame(body))


def genuine_evidence(real: HostAddress, keep: str, *, nonce: bytes) -> Attestation:
    """Have a genuine keep attest to us, with somebody else's nonce."""
    channel = Channel(open_channel(real, keep))
    life = Life(AuditLog())
    life.move(Move.BOOT)
    key = Ed25519PrivateKey.generate()
    session = TenantSession(life, key=key, nonce=nonce, exporter=channel.exporter, keep_key=channel.keep_key)
    channel.send(session.hello())
    while True:
        for event in session.receive(channel.receive(timeout_s=TIMEOUT_S)):
            assert isinstance(event, Attested), event
            channel.close()
            return Attestation(
                stage=event.binding.stage,
                instance=event.binding.instance,
                workload=b"",
                configuration=b"",
                evidence=event.evidence,
            )
