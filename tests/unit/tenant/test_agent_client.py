"""Clients of a host agent: what hostile hosts answer becomes an error of ours, in bounded time and memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from enarx.api.agent import KeepState
from enarx.api.problems import MEDIA_TYPE
from enarx.tcb.errors import EnarxError, Malformed
from enarx.tenant import agent_client, upgrade
from enarx.tenant.agent_calls import (
    HostAddress,
    HostMisbehaved,
    HostRefused,
    HostUnable,
    HostUnreachable,
    KeepNotReady,
    NoSuchKeep,
    NotAllowed,
    QuotaReached,
    create_keep,
    get_keep,
    keep_path,
)
from enarx.tenant.agent_client import AgentClient, AsyncAgentClient
from enarx.tenant.upgrade import open_channel

KEEP = "0123456789abcdef" * 2
FIELDS = {
    "id": KEEP,
    "tee": "snp",
    "backend": "b",
    "emulated": True,
    "state": "ready",
    "created": "2026-01-01T00:00:00+00:00",
}
JSON = "application/json"
Serve = Callable[[bytes], HostAddress]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answers every connection with some bytes, whatever is asked, and closes it."""
    with contextlib.ExitStack() as stack:

        def start(answer: bytes) -> HostAddress:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def run() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        client, _ = server.accept()
                        with client:
                            client.recv(1 << 16)
                            client.sendall(answer)

            threading.Thread(target=run, daemon=True).start()
            stack.callback(server.shutdown, socket.SHUT_RDWR)
            return HostAddress.parse(f"http://127.0.0.1:{server.getsockname()[1]}", token="secret-token")

        yield start


def http(status: int, kind: str, body: bytes, *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_a_good_answer(serve: Serve) -> None:
    address = serve(http(200, JSON, json.dumps(FIELDS).encode()))
    with AgentClient(address) as client:
        assert client.keep(KEEP).state is KeepState.READY

    async def ask() -> str:
        async with AsyncAgentClient(address) as client:
            return (await client.keep(KEEP)).id

    assert asyncio.run(ask()) == KEEP


BAD = {
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "half a body": http(200, JSON, json.dumps(FIELDS).encode())[:-5],
    "a large head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n",
    "no JSON": http(200, JSON, b"{"),
    "not UTF-8": http(200, JSON, b'"\xff"'),
    "deep JSON": http(200, JSON, b"[" * 100_000),
    "a list": http(200, JSON, b"[]"),
    "a field too many": http(200, JSON, json.dumps(FIELDS | {"more": 1}).encode()),
    "a field too few": http(200, JSON, b'{"id":"x"}'),
    "a wrong type": http(200, JSON, json.dumps(FIELDS | {"emulated": 1}).encode()),
    "an unknown state": http(200, JSON, json.dumps(FIELDS | {"state": "fine"}).encode()),
    "a path for a name": http(200, JSON, json.dumps(FIELDS | {"id": "../x"}).encode()),
    "text": http(200, "text/html", b"<html>"),
    "a redirect": http(302, JSON, b"", "Location: http://127.0.0.1:1/"),
    "created": http(201, JSON, json.dumps(FIELDS).encode()),
    "an error without reason": http(500, "text/html", b"<h1>"),
    "a problem that is none": http(500, MEDIA_TYPE, b"{}"),
    "an answer to another question": http(101, JSON, b""),
}


@pytest.mark.parametrize("answer", ["nothing", "half a body"])
def test_a_host_that_ends_before_it_has_answered_is_gone_and_not_misbehaved(
    serve: Serve, answer: str
) -> None:
    with (
        AgentClient(serve(BAD[answer])) as client,
        pytest.raises(HostUnreachable, match="went away") as caught,
    ):
        client.keep(KEEP)
    assert "enarx host serve" in caught.value.hint


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
def test_answers_that_mean_nothing(serve: Serve, answer: bytes) -> None:
    address = serve(answer)
    with AgentClient(address) as client, pytest.raises((HostMisbehaved, HostUnreachable)) as caught:
        client.keep(KEEP)
    assert "secret-token" not in str(caught.value)

    async def ask() -> None:
        async with AsyncAgentClient(address) as client:
            await client.keep(KEEP)

    with pytest.raises(type(caught.value)):
        asyncio.run(ask())


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
def test_upgrades_that_are_none(serve: Serve, answer: bytes) -> None:
    with pytest.raises((HostMisbehaved, HostUnreachable)):
        open_channel(serve(answer), KEEP)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: enarx-session/1\r\n\r\nearly bytes",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_another_upgrade_than_asked_for(serve: Serve, head: bytes) -> None:
    with pytest.raises(HostMisbehaved):
        open_channel(serve(head), KEEP)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, NotAllowed),
        (404, NoSuchKeep),
        (409, KeepNotReady),
        (429, QuotaReached),
        (502, HostUnable),
        (503, HostUnable),
        (507, HostUnable),
        (418, HostRefused),
    ],
)
def test_refusals_have_types_and_hints(serve: Serve, status: int, kind: type[HostRefused]) -> None:
    problem = {"title": "T", "status": status, "detail": "no\x1b[2J", "hint": "try\n it"}
    address = serve(http(status, MEDIA_TYPE, json.dumps(problem).encode()))
    with AgentClient(address) as client:
        asked: list[Callable[[str], object]] = [client.keep, lambda name: open_channel(address, name)]
        for ask in asked:
            _refused(ask, status, kind)


def _refused(ask: Callable[[str], object], status: int, kind: type[HostRefused]) -> None:
    with pytest.raises(kind) as caught:
        ask(KEEP)
    assert caught.value.status == status
    assert (str(caught.value) + caught.value.hint).isprintable()


def test_an_endless_answer_ends(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_client, "MAX_ANSWER_BYTES", 1000)
    with AgentClient(serve(http(200, JSON, bytes(5000)))) as client, pytest.raises(HostMisbehaved):
        client.info()


def test_an_answer_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "ANSWER_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = HostAddress.parse(f"http://127.0.0.1:{server.getsockname()[1]}")
        with AgentClient(address, timeout_s=0.1) as client, pytest.raises(HostUnreachable, match="in time"):
            client.info()
        with pytest.raises(HostUnreachable, match="in time"):
            open_channel(address, KEEP)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:1",
        "ftp://host",
        "http://",
        "http://a/b",
        "http://user:secret@host",
        "http://a?b",
        "http://a#b",
        "http://a:99999",
        "http://[::1",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(Malformed) as caught:
        HostAddress.parse(url)
    assert "secret" not in str(caught.value)


def test_addresses() -> None:
    assert HostAddress.parse("http://host").authority == "host:80"
    assert HostAddress.parse("https://[::1]/").url == "https://[::1]:443"


def test_a_token_stays_with_us() -> None:
    """Sent to the host alone: never in the clear over a network, never shown."""
    with pytest.raises(Malformed, match="everybody"):
        HostAddress.parse("http://example.org", token="canary")
    for url in ("https://example.org", "http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1"):
        address = HostAddress.parse(url, token="canary")
        assert "canary" not in repr(address) + address.url
        assert address.headers()["Authorization"] == "Bearer canary"


@pytest.mark.parametrize("token", ["a b", "a\r\nX: y", "é", "\0"])
def test_tokens_that_would_change_a_header(token: str) -> None:
    with pytest.raises(Malformed):
        HostAddress.parse("https://host", token=token)


@pytest.mark.parametrize("name", ["", "x", "../" + KEEP, KEEP + "/channel", KEEP.upper(), KEEP[:-1]])
def test_names_that_are_paths(name: str) -> None:
    with pytest.raises(EnarxError):
        keep_path(name)
    with pytest.raises(EnarxError):
        get_keep(name)


def test_what_a_tenant_sends_is_not_shown() -> None:
    assert "tenant" not in repr(create_keep("snp", b"tenant"))
