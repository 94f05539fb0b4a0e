"""The key-value store of the examples, against clients that behave and clients that do not."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = pytest.mark.xdist_group("kvstore")

HOST: Final = b"Host: x\r\n"
HOSTILE: Final = {
    "no host": (b"GET /k/a HTTP/1.1\r\n\r\n", [400]),
    "two hosts": (b"GET /k/a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", [400]),
    "no version": (b"GET /k/a\r\n\r\n", [400]),
    "later version": (b"GET /k/a HTTP/2.0\r\n" + HOST + b"\r\n", [505]),
    "two spaces": (b"GET  /k/a HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    "bare line feed": (b"GET /k/a HTTP/1.1\nHost: x\n\n", [400]),
    "nul in a field": (b"GET /k/a HTTP/1.1\r\n" + HOST + b"A: \0\r\n\r\n", [400]),
    "return in a field": (b"GET /k/a HTTP/1.1\r\n" + HOST + b"A: b\rc\r\n\r\n", [400]),
    "space before the colon": (b"PUT /k/a HTTP/1.1\r\n" + HOST + b"Content-Length : 1\r\n\r\nx", [400]),
    "folded field": (b"GET /k/a HTTP/1.1\r\n" + HOST + b"A: b\r\n c\r\n\r\n", [400]),
    "field without name": (b"GET /k/a HTTP/1.1\r\n" + HOST + b": b\r\n\r\n", [400]),
    "field without colon": (b"GET /k/a HTTP/1.1\r\n" + HOST + b"abc\r\n\r\n", [400]),
    "negative length": (b"PUT /k/a HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", [400]),
    "signed length": (b"PUT /k/a HTTP/1.1\r\n" + HOST + b"Content-Length: +1\r\n\r\nx", [400]),
    "hexadecimal length": (b"PUT /k/a HTTP/1.1\r\n" + HOST + b"Content-Length: 0x1\r\n\r\nx", [400]),
    "two lengths": (
        b"PUT /k/a HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
        [400],
    ),
    "list of lengths": (b"PUT /k/a HTTP/1.1\r\n" + HOST + b"Content-Length: 1, 1\r\n\r\nx", [400]),
    "length that wraps": (b"PUT /k/a HTTP/1.1\r\n" + HOST + b"Content-Length: 4294967297\r\n\r\nx", [413]),
    "long length": (b"PUT /k/a HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * 4000 + b"\r\n\r\n", [413]),
    "large value": (b"PUT /k/a HTTP/1.1\r\n" + HOST + b"Content-Length: 262145\r\n\r\n" + bytes(1000), [413]),
    "large value announced": (
        b"PUT /k/a HTTP/1.1\r\n" + HOST + b"Content-Length: 999999\r\nExpect: 100-continue\r\n\r\n",
        [413],
    ),
    "other expectation": (
        b"PUT /k/a HTTP/1.1\r\n" + HOST + b"Expect: tea\r\nContent-Length: 1\r\n\r\nx",
        [417],
    ),
    "chunked": (
        b"PUT /k/a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        [501],
    ),
    "chunked and length": (
        b"PUT /k/a HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
        [501],
    ),
    "long field": (b"GET /k/a HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 9000, [431]),
    "many fields": (b"GET /k/a HTTP/1.1\r\n" + b"A: b\r\n" * 2000, [431]),
    "long target": (b"GET /k/" + b"a" * 2000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", [414]),
    "long name": (b"GET /k/" + b"a" * 129 + b" HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    "path in the name": (b"GET /k/../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    "dots": (b"GET /k/.. HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    "escaped name": (b"GET /k/%41 HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    "empty name": (b"GET /k/ HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    "other path": (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", [404]),
    "no length": (b"PUT /k/a HTTP/1.1\r\n" + HOST + b"\r\n", [411]),
    "other method": (b"PATCH /k/a HTTP/1.1\r\n" + HOST + b"\r\n", [405]),
    "method in small letters": (b"get /k/a HTTP/1.1\r\n" + HOST + b"\r\n", [405]),
    "tls hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)), [400]),
    "unfinished request": (b"GET /k/a HTT", []),
    "unfinished value": (b"PUT /k/unfinished HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nabc", []),
    "nothing": (b"", []),
    "empty lines first": (b"\r\n\r\nDELETE /k/nobody HTTP/1.1\r\n" + HOST + b"\r\n", [404]),
    "http/1.0": (b"GET /k/nobody HTTP/1.0\r\n\r\nGET /k/nobody HTTP/1.0\r\n\r\n", [404]),
    "nothing after close": (
        b"GET /k/nobody HTTP/1.1\r\n"
        + HOST
        + b"Connection: a, Close\r\n\r\nGET / HTTP/1.1\r\n"
        + HOST
        + b"\r\n",
        [404],
    ),
    "body of a get": (
        b"GET /k/nobody HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: 4\r\n\r\nGET GET / HTTP/1.1\r\n"
        + HOST
        + b"\r\n",
        [404, 404],
    ),
    "absolute target": (b"GET http://x/k/nobody HTTP/1.1\r\n" + HOST + b"\r\n", [404]),
}


@pytest.fixture(scope="module")
def tcp(serve_module: Any, example: Callable[[str], Path]) -> Any:
    return serve_module(example("kvstore"), name="http", prot="tcp")


@pytest.fixture(scope="module")
def tls(serve_module: Any, example: Callable[[str], Path]) -> Any:
    return serve_module(example("kvstore"), name="http", prot="tls")


def exchange(server: Any, request: bytes) -> bytes:
    """Send everything, say that nothing more comes, and take what the server answers until it closes."""
    with server.connect() as peer:
        peer.sendall(request)
        peer.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: peer.recv(65536), b""))


def statuses(answer: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", answer)]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_request_gets_its_status(tcp: Any, name: str) -> None:
    request, expected = HOSTILE[name]
    assert statuses(exchange(tcp, request)) == expected


def test_refusal_reaches_a_client_that_goes_on_sending(tcp: Any) -> None:
    head = b"PUT /k/a HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n"
    assert statuses(exchange(tcp, head + bytes(1_000_000))) == [413]


def test_unfinished_value_is_not_stored(tcp: Any) -> None:
    exchange(tcp, b"PUT /k/half HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nabc")
    assert statuses(exchange(tcp, b"GET /k/half HTTP/1.1\r\n" + HOST + b"\r\n")) == [404]


def test_pipelined_requests_are_answered_in_order(tcp: Any) -> None:
    put = b"PUT /k/pipe HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc"
    get = b"GET /k/pipe HTTP/1.1\r\n" + HOST + b"\r\n"
    delete = b"DELETE /k/pipe HTTP/1.1\r\n" + HOST + b"\r\n"
    assert statuses(exchange(tcp, put + get + put + delete + get + delete)) == [201, 200, 204, 204, 404, 404]


def test_many_large_answers_wait_for_the_reader(tcp: Any) -> None:
    value = bytes(range(256)) * 1024
    exchange(tcp, b"PUT /k/large HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(value) + value)
    answer = exchange(tcp, (b"GET /k/large HTTP/1.1\r\n" + HOST + b"\r\n") * 40)
    assert answer.count(value) == 40


def test_request_may_arrive_byte_by_byte(tcp: Any) -> None:
    with tcp.connect() as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /k/slow HTTP/1.1\r\n" + HOST + b"\r\n":
            peer.send(bytes([byte]))
        assert peer.recv(4096).startswith(b"HTTP/1.1 404 ")


def test_continue_is_sent_once_before_the_value(tcp: Any) -> None:
    with tcp.connect() as peer:
        peer.sendall(b"PUT /k/c HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert peer.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.sendall(b"o")
        peer.sendall(b"k")
        assert peer.recv(4096).startswith(b"HTTP/1.1 201 ")


def test_head_tells_the_length_without_the_value(tcp: Any) -> None:
    put = b"PUT /k/head HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc"
    answer = exchange(tcp, put + b"HEAD /k/head HTTP/1.1\r\n" + HOST + b"\r\n")
    assert b"Content-Length: 3\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("prot", ["tcp", "tls"])
def test_ordinary_client_keeps_its_connection(prot: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(prot)
    client = http.client.HTTPConnection("127.0.0.1", server.port)
    client.sock = server.connect()
    local = client.sock.getsockname()
    for method, name, body, status in [
        ("GET", "one", None, 404),
        ("PUT", "one", b"first", 201),
        ("PUT", "one", b"\0\xffsecond", 204),
        ("GET", "one", None, 200),
        ("DELETE", "one", None, 204),
        ("DELETE", "one", None, 404),
    ]:
        client.request(method, f"/k/{name}", body=body)
        response = client.getresponse()
        received = response.read()
        assert response.status == status
        if status == 200:
            assert received == b"\0\xffsecond"
    assert client.sock.getsockname() == local
    client.close()


@pytest.mark.parametrize("prot", ["tcp", "tls"])
def test_hundred_clients_at_once(prot: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(prot)
    peers = [server.connect() for _ in range(100)]

    def use(number: int) -> list[int]:
        name, value = b"client-%d" % number, b"value-%d" % number
        peer = peers[number]
        peer.sendall(
            b"PUT /k/%s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s" % (name, HOST, len(value), value)
        )
        put = peer.recv(4096)
        peer.sendall(b"GET /k/%s HTTP/1.1\r\n%sConnection: close\r\n\r\n" % (name, HOST))
        got = b"".join(iter(lambda: peer.recv(4096), b""))
        assert got.endswith(b"\r\n\r\n" + value)
        return statuses(put + got)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(use, range(100))) == [[201, 200]] * 100
    for peer in peers:
        peer.close()
