"""Emulated AMD KDS and Intel PCS over HTTP, on the loopback interface only.

``GET`` is answered as the vendors do. ``/emulated/v1/`` is the emulator's own: ``GET state``, ``GET root/NAME``, and
``POST event/NAME`` with a JSON object, by which tests let things happen. TLS is left out: what is fetched is signed.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from enarx.tcb.errors import EnarxError, Malformed, Unavailable
from enarx_emulator.answer import Answer
from enarx_emulator.vendor_services import Outage, VendorServices, parse_event

OWN: Final = "/emulated/v1/"
MAX_EVENT_BYTES: Final = 1 << 16
MAX_PARAMETERS: Final = 16
REQUEST_S: Final = 30
HANG_S: Final = 300
_LOG: Final = logging.getLogger("enarx_emulator")
_JSON: Final = {"Content-Type": "application/json"}


class VendorServer(ThreadingHTTPServer):
    """Serves vendors; one request at a time reaches them, however many come."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, services: VendorServices, *, port: int = 0) -> None:
        self.services = services
        self.lock = threading.Lock()
        self.ended = threading.Event()
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise Unavailable(f"port {port}: {(error.strerror or 'cannot listen').lower()}") from None

    @property
    def url(self) -> str:
        """Where it is: what clients take as the address of KDS or PCS."""
        return f"http://127.0.0.1:{self.server_port}"

    def server_close(self) -> None:
        """Let go of the port, and of those who hang."""
        self.ended.set()
        super().server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass over clients that went away; report mistakes of our own."""
        if not isinstance(sys.exception(), OSError):
            _LOG.exception("request failed")

    def answer(self, path: str, query: str) -> Answer:
        """Answer a GET request."""
        if path.startswith(OWN):
            return self._own(path.removeprefix(OWN))
        try:
            pairs = parse_qsl(
                query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=MAX_PARAMETERS
            )
        except ValueError:
            return Answer(status=400)
        if len(dict(pairs)) != len(pairs):
            return Answer(status=400)
        with self.lock:
            return self.services.answer(path, dict(pairs))

    def event(self, name: str, body: bytes) -> Answer:
        """Let something happen."""
        try:
            with self.lock:
                state = self.services.event(name, parse_event(body))
        except EnarxError as error:
            status = 400 if isinstance(error, Malformed) else 409
            return Answer(status=status, headers=_JSON, body=json.dumps({"error": str(error)}).encode())
        return Answer(status=200, headers=_JSON, body=json.dumps(state).encode())

    def _own(self, name: str) -> Answer:
        with self.lock:
            if name == "state":
                return Answer(status=200, headers=_JSON, body=json.dumps(self.services.state()).encode())
            root = self.services.root(name.removeprefix("root/")) if name.startswith("root/") else None
        if root is None:
            return Answer(status=404)
        return Answer(status=200, headers={"Content-Type": "application/x-pem-file"}, body=root)


class _Handler(BaseHTTPRequestHandler):
    server: VendorServer
    server_version = "enarx-emulator"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_S

    def do_GET(self) -> None:
        """Answer as the vendor does, or fail as an event has said."""
        parts = urlsplit(self.path)
        outage = Outage.NONE if parts.path.startswith(OWN) else self.server.services.outage(parts.path)
        match outage:
            case Outage.NONE:
                self._send(self.server.answer(parts.path, parts.query))
            case Outage.REFUSE:
                self._send(Answer(status=503, headers={"Retry-After": "1"}))
            case Outage.LIMIT:
                self._send(Answer(status=429, headers={"Retry-After": "1"}))
            case Outage.GARBAGE:
                self._send(Answer(status=200, body=b"<html>an emulated proxy has nothing to say</html>"))
            case Outage.HANG:
                self.server.ended.wait(HANG_S)
                self.close_connection = True
            case Outage.CUT:
                self._send(self.server.answer(parts.path, parts.query), cut=True)

    def do_POST(self) -> None:
        """Take an event. Web pages cannot send one: they may not say that it is JSON without asking first."""
        size = self.headers.get("Content-Length", "")
        if not size.isdigit() or int(size) > MAX_EVENT_BYTES:
            self.close_connection = True
            self._send(Answer(status=413))
            return
        body = self.rfile.read(int(size))
        if not self.path.startswith(OWN + "event/") or self.headers.get_content_type() != "application/json":
            self._send(Answer(status=404))
            return
        self._send(self.server.event(self.path.removeprefix(OWN + "event/"), body))

    def _send(self, answer: Answer, *, cut: bool = False) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
        self.close_connection |= cut

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep standard error for what matters."""
