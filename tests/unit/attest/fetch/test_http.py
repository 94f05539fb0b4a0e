"""The client against servers that are slow, wrong, hostile or overloaded."""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import ipaddress
import select
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.forge.pki import ec_key
from tests.forge.services import Reply, Route, Service

from enarx.attest.fetch import Client, CollateralUnavailable


class Sequence:
    """Gives one answer after the other, and the last for ever."""

    def __init__(self, *routes: Route) -> None:
        self._routes = list(routes)

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        route = self._routes.pop(0) if len(self._routes) > 1 else self._routes[0]
        route(handler)


@pytest.fixture
def waits() -> list[float]:
    """How long the client would have slept."""
    return []


@pytest.fixture
def client(waits: list[float]) -> Client:
    return Client(max_body_bytes=10_000, sleep=waits.append)


def refused(client: Client, route: Route) -> CollateralUnavailable:
    with Service({"/a": route}) as service, pytest.raises(CollateralUnavailable) as caught:
        client.get(f"{service.url}/a")
    assert caught.value.url.startswith(service.url)
    assert str(caught.value).startswith(f"{service.url}/")
    return caught.value


def test_answer_comes_with_its_headers(client: Client) -> None:
    with Service({"/a?b=c": Reply(body=b"yes", headers={"ETag": '"1"', "X": "one"})}) as service:
        answer = client.get(f"{service.url}/a?b=c")
    assert (answer.status, answer.body, answer.headers["etag"], answer.headers["x"]) == (
        200,
        b"yes",
        '"1"',
        "one",
    )


def test_request_says_what_it_has_and_asks_for_no_compression(client: Client) -> None:
    with Service({"/a": Reply(status=304)}) as service:
        assert client.get(f"{service.url}/a", etag='"1"').status == 304
    ((_, headers),) = service.asked
    assert (headers["if-none-match"], headers["accept-encoding"]) == ('"1"', "identity")
    assert headers["user-agent"].startswith("enarx/")


def test_etag_with_control_characters_is_not_sent(client: Client) -> None:
    with Service({"/a": Reply(body=b"yes")}) as service:
        client.get(f"{service.url}/a", etag='"1"\r\nX-Other: 1')
    assert {"if-none-match", "x-other"}.isdisjoint(service.asked[0][1])


def test_chunked_answer_is_put_together(client: Client) -> None:
    def chunked(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nye\r\n1\r\ns\r\n0\r\n\r\n"
        )

    with Service({"/a": chunked}) as service:
        assert client.get(f"{service.url}/a").body == b"yes"


def test_nobody_there(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(CollateralUnavailable, match="cannot be reached: connection refused") as caught:
        client.get(f"http://127.0.0.1:{port}/a")
    assert "--kds" in caught.value.hint


def test_name_that_nobody_has(client: Client) -> None:
    with pytest.raises(CollateralUnavailable, match="the name of the server cannot be resolved"):
        client.get("https://no-such-host.invalid/a")


def silent(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.recv(1)  # until the client hangs up


def dripping_body(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n")
    _drip(handler, b"x")


def dripping_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    _drip(handler, b"x")


def for_ever_on_its_way(handler: BaseHTTPRequestHandler) -> None:
    _drip(handler, b"HTTP/1.1 100 Continue\r\n\r\n")


def _drip(handler: BaseHTTPRequestHandler, piece: bytes) -> None:
    """Send a piece far more often than any time-out, until the client hangs up."""
    end = time.monotonic() + 30
    handler.connection.settimeout(0.02)
    while time.monotonic() < end:
        handler.wfile.write(piece)
        try:
            if not handler.connection.recv(1):
                return
        except TimeoutError:
            continue


@pytest.mark.parametrize("route", [silent, dripping_body, dripping_headers, for_ever_on_its_way])
def test_slow_server_has_the_time_of_one_exchange(route: Route) -> None:
    """A73: neither silence nor drops hold up whoever asks."""
    started = time.monotonic()
    error = refused(Client(exchange_s=0.3), route)
    assert "no whole answer within 0.3 seconds" in str(error)
    assert time.monotonic() - started < 10


def test_answer_that_announces_too_much_is_not_read(client: Client) -> None:
    assert "more than 10000 bytes" in str(refused(client, Reply(body=b"x", length=10**12)))


def test_answer_without_an_end_is_cut_off(client: Client) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(100_000):
            handler.wfile.write(b"x" * 1000)

    assert "more than 10000 bytes" in str(refused(client, endless))


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nx",
    ],
)
def test_truncated_answer_is_no_answer(client: Client, start: bytes) -> None:
    assert "ended in the middle" in str(refused(client, lambda handler: handler.wfile.write(start)))


@pytest.mark.parametrize("start", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 2000 OK\r\n\r\n"])
def test_what_is_not_http(client: Client, start: bytes) -> None:
    refused(client, lambda handler: handler.wfile.write(start))


def test_too_many_headers(client: Client) -> None:
    many = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X%d: y\r\n" % at for at in range(1000)) + b"\r\n"
    assert "not HTTP" in str(refused(client, lambda handler: handler.wfile.write(many)))


def test_compressed_answer_is_not_unpacked(client: Client) -> None:
    assert "compressed" in str(refused(client, Reply(body=b"x", headers={"Content-Encoding": "gzip"})))


@pytest.mark.parametrize(
    ("status", "advice"), [(404, "does not know this platform"), (401, "who asks"), (500, "try again later")]
)
def test_refusal_names_status_and_advice_and_is_not_repeated(
    client: Client, status: int, advice: str, waits: list[float]
) -> None:
    error = refused(client, Reply(status=status))
    assert (error.status, f"status {status}" in str(error), advice in error.hint) == (status, True, True)
    assert waits == []


def test_busy_service_is_asked_again_when_it_says(client: Client, waits: list[float]) -> None:
    busy = Reply(status=429, headers={"Retry-After": "7"})
    with Service({"/a": Sequence(busy, busy, Reply(body=b"yes"))}) as service:
        assert client.get(f"{service.url}/a").body == b"yes"
    assert waits == [7.0, 7.0]


def test_time_to_wait_may_be_a_date(client: Client, waits: list[float]) -> None:
    when = email.utils.format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30), usegmt=True)
    with Service(
        {"/a": Sequence(Reply(status=503, headers={"Retry-After": when}), Reply(body=b"yes"))}
    ) as service:
        client.get(f"{service.url}/a")
    assert 0 < waits[0] <= 30


@pytest.mark.parametrize("text", ["", "soon", "-5", "1e9", "Wed, 99 Foo 2026"])
def test_without_a_usable_time_the_waits_grow(client: Client, waits: list[float], text: str) -> None:
    error = refused(client, Reply(status=503, headers={"Retry-After": text} if text else {}))
    assert error.status == 503
    assert len(waits) == 3
    assert 1.5 <= waits[0] <= 2.5 < waits[1] <= 5 < waits[2] <= 10


def test_client_does_not_wait_longer_than_it_may(client: Client, waits: list[float]) -> None:
    error = refused(client, Reply(status=429, headers={"Retry-After": "3600"}))
    assert waits == []
    assert "in 3600 seconds" in error.hint


def test_redirect_within_the_service_is_followed(client: Client) -> None:
    with Service({"/a": Reply(status=302, headers={"Location": "/b"}), "/b": Reply(body=b"yes")}) as service:
        assert client.get(f"{service.url}/a").body == b"yes"


@pytest.mark.parametrize(
    "to", ["https://evil.test/a", "http://127.0.0.1:1/a", "//127.0.0.1:1/a", "file:///etc/passwd"]
)
def test_redirect_to_another_service_is_refused(client: Client, to: str) -> None:
    error = refused(client, Reply(status=302, headers={"Location": to}))
    assert "another service" in str(error)
    assert error.status == 302


def test_redirects_in_a_circle_end(client: Client) -> None:
    assert "more than 3 redirects" in str(refused(client, Reply(status=301, headers={"Location": "/a"})))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.test/a",
        "ftp://127.0.0.1/a",
        "https:///a",
        "https://host:port/a",
        "https://user@host/a",
        "https://host/a b",
        "https://host/a\r\nX: y",
        "https://[::1/a",
        "host",
        "",
    ],
)
def test_address_that_is_not_one_of_a_service(client: Client, url: str) -> None:
    with pytest.raises(CollateralUnavailable):
        client.get(url)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """The TLS side of a server on this machine, and the authority that certifies it."""
    folder, now = tmp_path_factory.mktemp("tls"), dt.datetime.now(dt.UTC)
    key, name = ec_key("tls"), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "here")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    pem = folder / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(private + builder.sign(key, hashes.SHA384()).public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context, pem


def test_tls_server_is_believed_under_an_authority_that_was_named(
    authority: tuple[ssl.SSLContext, Path],
) -> None:
    context, pem = authority
    trusting = Client(tls=ssl.create_default_context(cafile=pem))
    with Service({"/a": Reply(body=b"yes")}, tls=context) as service:
        assert trusting.get(f"{service.url}/a").body == b"yes"


def test_tls_server_of_an_unknown_authority_is_refused(
    authority: tuple[ssl.SSLContext, Path], client: Client
) -> None:
    with (
        Service({"/a": Reply(body=b"yes")}, tls=authority[0]) as service,
        pytest.raises(CollateralUnavailable) as caught,
    ):
        client.get(f"{service.url}/a")
    assert "is not valid here" in str(caught.value)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert service.asked == []


def test_tls_server_under_another_name_is_refused(authority: tuple[ssl.SSLContext, Path]) -> None:
    context, pem = authority
    trusting = Client(tls=ssl.create_default_context(cafile=pem))
    with Service({"/a": Reply(body=b"yes")}, tls=context) as service:
        url = service.url.replace("127.0.0.1", "localhost")
        with pytest.raises(CollateralUnavailable, match=r"(?i)is not valid here: hostname mismatch"):
            trusting.get(f"{url}/a")


class Proxy:
    """A proxy that carries what it is asked to, and remembers what that was."""

    def __init__(self, *, status: int = 200) -> None:
        self.asked: list[str] = []
        self._status = status
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._server.accept()
            with client:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += client.recv(1)
                self.asked = head.decode().splitlines()
                client.sendall(f"HTTP/1.1 {self._status} Answer\r\n\r\n".encode())
                host, _, port = self.asked[0].split()[1].rpartition(":")
                if self._status == 200:
                    with socket.create_connection((host, int(port))) as server:
                        _carry(client, server)


def _carry(one: socket.socket, other: socket.socket) -> None:
    open_ends = {one: other, other: one}
    while open_ends:
        for end in select.select(list(open_ends), [], [], 30)[0]:
            data = end.recv(65536)
            if not data:
                return
            open_ends[end].sendall(data)


def test_proxy_carries_tls_to_the_service(authority: tuple[ssl.SSLContext, Path]) -> None:
    context, pem = authority
    with Service({"/a": Reply(body=b"yes")}, tls=context) as service, Proxy() as proxy:
        tls = ssl.create_default_context(cafile=pem)
        client = Client(tls=tls, proxies={"https": f"http://me:pass%20word@{proxy.address}"})
        assert client.get(f"{service.url}/a").body == b"yes"
    target = service.url.removeprefix("https://")
    assert proxy.asked[:2] == [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    assert proxy.asked[2] == "Proxy-Authorization: Basic bWU6cGFzcyB3b3Jk"


def test_proxy_that_refuses_is_named_without_its_password() -> None:
    with Proxy(status=403) as proxy, pytest.raises(CollateralUnavailable) as caught:
        Client(proxies={"https": f"me:secret@{proxy.address}"}).get("https://kds.test/a")
    assert str(caught.value) == f"proxy http://{proxy.address}: it does not connect to kds.test: status 403"


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://", "host:port", "[::1"])
def test_proxy_of_another_kind_is_refused(proxy: str) -> None:
    with pytest.raises(CollateralUnavailable, match="is not of the form http://host:port"):
        Client(proxies={"https": proxy}).get("https://kds.test/a")


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "*"])
def test_proxy_is_not_used_where_it_is_not_wanted(
    authority: tuple[ssl.SSLContext, Path], no_proxy: str
) -> None:
    context, pem = authority
    with Service({"/a": Reply(body=b"yes")}, tls=context) as service:
        tls = ssl.create_default_context(cafile=pem)
        client = Client(tls=tls, proxies={"https": "http://127.0.0.1:1", "no": no_proxy})
        assert client.get(f"{service.url}/a").body == b"yes"


def test_service_on_this_machine_without_tls_needs_no_proxy() -> None:
    with Service({"/a": Reply(body=b"yes")}) as service:
        client = Client(proxies={"https": "http://127.0.0.1:1", "http": "http://127.0.0.1:1"})
        assert client.get(f"{service.url}/a").body == b"yes"
