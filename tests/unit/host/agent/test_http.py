"""The HTTP shell against peers that are wrong, slow, greedy or gone, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from enarx.api.agent import MAX_BODY_BYTES, PROTOCOL
from enarx.host.agent._http import Request, Response, Shell, Upgrade, problem
from enarx.tcb.errors import EnarxError

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
UPGRADE = (
    f"GET /up HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n".encode()
)
TIMEOUT_S = 30.0


class Handler:
    """Tells what it was asked; ``/up`` gives the connection away."""

    def __init__(self) -> None:
        self.given: list[socket.socket] = []
        self.failure: EnarxError | None = None
        self.gate = asyncio.Event()
        self.waiting = threading.Semaphore(0)

    async def __call__(self, request: Request) -> Response | Upgrade:
        if request.path == "/up" and request.upgrades():
            return Upgrade(self._take, lambda error: problem(HTTPStatus.CONFLICT, str(error)))
        if request.path == "/large":
            return Response(body=bytes(32 << 20))
        if request.path == "/wait":
            self.waiting.release()
            await self.gate.wait()
        told = {"method": request.method, "path": request.path, "bytes": len(request.body)}
        return Response(body=json.dumps(told).encode())

    def _take(self, connection: socket.socket) -> None:
        if self.failure is not None:
            raise self.failure
        taken = connection.dup()
        taken.settimeout(TIMEOUT_S)
        self.given.append(taken)


class Served:
    """A shell that runs in a thread of its own."""

    def __init__(self, **options: object) -> None:
        self.handler = Handler()
        self.shell = Shell(self.handler, **options)  # type: ignore[arg-type]
        self.errors: list[object] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: self.errors.append(context))
        started: list[asyncio.Server] = []
        ready = threading.Event()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            started.append(self._loop.run_until_complete(self.shell.start("127.0.0.1", 0)))
            ready.set()
            self._loop.run_forever()
            started[0].close()
            self._loop.run_until_complete(self.shell.stop())
            self._loop.close()

        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert ready.wait(TIMEOUT_S)
        self.address = started[0].sockets[0].getsockname()

    def connect(self) -> socket.socket:
        sock = socket.create_connection(self.address, timeout=TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def ask(self, data: bytes) -> bytes:
        """Send all, then give all that comes until the end."""
        with self.connect() as sock:
            sock.sendall(data)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def alive(self) -> None:
        """It answers, and nothing went unnoticed."""
        with self.connect() as sock:
            sock.sendall(GET)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert self.errors == []

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for sock in self.handler.given:
            sock.close()


@contextmanager
def serving(**options: object) -> Iterator[Served]:
    served = Served(**options)
    try:
        yield served
    finally:
        served.close()


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as served:
        yield served


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def test_requests_follow_each_other_on_one_connection(served: Served) -> None:
    with served.connect() as sock:
        for number in range(3):
            sock.sendall(b"POST /%d?query=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" % number)
            head, _, body = sock.recv(65536).partition(b"\r\n\r\n")
            assert b"Cache-Control: no-store" in head
            assert json.loads(body) == {"method": "POST", "path": f"/{number}", "bytes": 3}
        sock.sendall(GET + GET)
        answers = b""
        while answers.count(b"/x") < 2:
            answers += sock.recv(65536)


def test_head_has_no_body(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(GET.replace(b"GET", b"HEAD"))
        answer = sock.recv(65536)
        assert b"Content-Length: " in answer
        assert answer.endswith(b"\r\n\r\n")
        sock.sendall(GET)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    served.alive()


def test_who_waits_for_leave_to_send_gets_it(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 100")
        sock.sendall(b"abc")
        assert b'"bytes": 3' in sock.recv(65536)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n\0\xff garbage\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),  # TLS at a port without
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * (1 << 18) + b"\r\n\r\n", 431),
        (b"GET /" + b"y" * (1 << 18), 431),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (1 << 40)
            + bytes(MAX_BODY_BYTES + 1),
            413,
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (b"10000\r\n" + bytes(0x10000) + b"\r\n") * (1 + MAX_BODY_BYTES // 0x10000),
            413,
        ),
    ],
)
def test_garbage_and_too_much_are_refused_and_harm_nobody(served: Served, data: bytes, status: int) -> None:
    answer = served.ask(data)
    assert status_of(answer) == status
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert document["status"] == status
    assert b"application/problem+json" in answer
    served.alive()


@pytest.mark.parametrize(
    "data", [b"", b"G", GET[:-1], b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"]
)
def test_who_goes_away_in_the_middle_harms_nobody(served: Served, data: bytes) -> None:
    with served.connect() as sock:
        sock.sendall(data)
    with served.connect() as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert status_of(sock.recv(65536)) in (0, 400)
    served.alive()


@pytest.mark.parametrize(
    "begun", [b"G", GET[:-1], b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\nabc"]
)
def test_slow_requests_end_whatever_drips(begun: bytes) -> None:
    """Slow loris: the time counts from the first byte, and another byte now and then buys none."""
    with serving(request_timeout_s=2.0) as served, served.connect() as sock:
        sock.sendall(begun)
        dripping = threading.Event()

        def drip() -> None:
            try:
                while not dripping.wait(0.1):
                    sock.send(b"a")
            except OSError:
                pass

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert status_of(sock.recv(65536)) == HTTPStatus.REQUEST_TIMEOUT
        finally:
            dripping.set()
            thread.join()
        served.alive()


def test_who_never_reads_stalls_nobody_and_is_cut(served: Served) -> None:
    with serving(request_timeout_s=2.0) as served, served.connect() as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        served.alive()
        threading.Event().wait(3.0)  # longer than the shell waits for somebody who takes nothing
        got = 0
        with contextlib.suppress(ConnectionResetError):
            while part := sock.recv(1 << 20):
                got += len(part)
        assert got < 32 << 20


def test_silent_connections_make_room_for_others() -> None:
    with serving(max_connections=4) as served:
        silent = [served.connect() for _ in range(4)]
        silent[0].sendall(b"GET / HT")  # that one was heard later
        served.alive()
        served.alive()
        for sock in silent:
            sock.close()


def test_who_is_being_served_is_not_displaced() -> None:
    with serving(max_connections=2) as served:
        waiting = [served.connect() for _ in range(2)]
        for sock in waiting:
            sock.sendall(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
            assert served.handler.waiting.acquire(timeout=TIMEOUT_S)
        with served.connect() as late:
            assert late.recv(1) == b""
        served._loop.call_soon_threadsafe(served.handler.gate.set)
        for sock in waiting:
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
            sock.close()


def test_a_given_connection_is_the_clients_own_and_no_copy_stays(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(UPGRADE)
        assert sock.recv(65536).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        given = served.handler.given[0]
        assert given.getpeername() == sock.getsockname()
        sock.sendall(b"to the keep")
        assert given.recv(100) == b"to the keep"
        given.sendall(b"to the tenant")
        assert sock.recv(100) == b"to the tenant"
        given.shutdown(socket.SHUT_RDWR)
        assert sock.recv(1) == b""
    served.alive()


def test_who_speaks_before_it_may_is_refused(served: Served) -> None:
    answer = served.ask(UPGRADE + b"\x16\x03\x01")
    assert status_of(answer) == 400
    assert not served.handler.given
    served.alive()


@pytest.mark.parametrize("change", [(b"GET", b"POST"), (b"session/1", b"session/2"), (b", Upgrade", b"")])
def test_only_the_right_upgrade_is_one(served: Served, change: tuple[bytes, bytes]) -> None:
    with served.connect() as sock:
        sock.sendall(UPGRADE.replace(*change))
        assert status_of(sock.recv(65536)) == 200
    assert not served.handler.given
    served.alive()


def test_a_keep_that_takes_no_connection_is_an_answer_and_not_an_upgrade(served: Served) -> None:
    served.handler.failure = EnarxError("the keep has just ended")
    with served.connect() as sock:
        for _ in range(2):
            sock.sendall(UPGRADE)
            answer = sock.recv(65536)
            assert status_of(answer) == 409
            assert b"just ended" in answer
    served.alive()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key, in PEM."""
    folder = tmp_path_factory.mktemp("tls")
    return write_certificate(folder)


def write_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


@pytest.fixture
def wrap(certificate: tuple[Path, Path]) -> Callable[[socket.socket], ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=str(certificate[0]))
    return lambda sock: context.wrap_socket(sock, server_hostname="localhost")


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[Served]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serving(tls=context, request_timeout_s=2.0) as served:
        yield served


def test_with_tls_the_connection_is_carried_over(
    secure: Served, wrap: Callable[[socket.socket], ssl.SSLSocket]
) -> None:
    with wrap(secure.connect()) as sock:
        sock.sendall(GET)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        sock.sendall(UPGRADE)
        assert sock.recv(65536).startswith(b"HTTP/1.1 101")
        given = secure.handler.given[0]
        assert given.family == socket.AF_UNIX
        data = bytes(range(256)) * 4096

        def echo() -> None:
            left = len(data)
            while left:
                part = given.recv(65536)
                given.sendall(part)
                left -= len(part)
            given.close()

        thread = threading.Thread(target=echo)
        thread.start()
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        got = b""
        while len(got) < len(data):
            got += sock.recv(65536)
        thread.join()
        sender.join()
        assert got == data
        assert sock.recv(1) == b""  # the keep ended, and the tenant learns of it at once
    assert secure.errors == []


def test_a_client_without_tls_harms_nobody_where_there_is_one(
    secure: Served, wrap: Callable[[socket.socket], ssl.SSLSocket]
) -> None:
    with secure.connect() as sock:
        sock.sendall(GET)
        with pytest.raises((ConnectionResetError, AssertionError)):
            assert sock.recv(65536)[:4] == b"HTTP"
    with wrap(secure.connect()) as sock:
        sock.sendall(UPGRADE)
        assert sock.recv(65536).startswith(b"HTTP/1.1 101")
    secure.handler.given[0].settimeout(TIMEOUT_S)
    assert secure.handler.given[0].recv(1) == b""  # the tenant went away, and the keep learns of it
