"""An agent that lies, breaks off, repeats itself or mixes things up, verb by verb: no secret is even read for it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.integration.deploy_host import EmulatedHost
from tests.integration.hostile_host import Answer, HostileHost

from enarx.tcb.errors import EnarxError, Unavailable
from enarx.tenant.deployment import deploy
from enarx.tenant.package import Package
from enarx.tenant.secret_source import SecretSource
from enarx.tenant.verification import Trust

NOTHING = """(module (memory (export "memory") 1) (func (export "_start")))"""
VERBS: Final = {
    "info": "GET /v1/info",
    "platform": "GET /v1/platforms/",
    "create": "POST /v1/keeps",
    "secret": "POST /v1/keeps/*/secret",
}
Lie = Callable[[Answer], Answer]


def body(change: Callable[[bytes], bytes]) -> Lie:
    return lambda given: (given[0], given[1], change(given[2]))


LIES: Final[dict[str, Lie]] = {
    "refused": lambda given: (
        403,
        {"Content-Type": "application/problem+json"},
        b'{"title":"no","status":403}',
    ),
    "broken": lambda given: (500, {"Content-Type": "text/html"}, b"<h1>oops</h1>"),
    "another success": lambda given: (299, given[1], given[2]),
    "another type": lambda given: (given[0], {"Content-Type": "text/plain"}, given[2] or b"x"),
    "nothing": lambda given: (200, given[1], b""),
    "cut": body(lambda data: data[: len(data) // 2] or b"{"),
    "twice": body(lambda data: (data or b"{}") * 2),
    "a list": body(lambda data: b"[" + data + b"]"),
    "nested": body(lambda data: b"[" * 100_000),
    "no text": body(lambda data: b"\xff" * 64),
    "too much": body(lambda data: b" " * (33 << 20)),
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    """Honest machines behind the agent: of a TEE that is taken unasked, and of one for which there is a secret."""
    with EmulatedHost(tmp_path_factory.mktemp("host"), ("sev", "pef")) as host:
        yield host


@pytest.fixture(scope="module")
def trust(host: EmulatedHost) -> Trust:
    return host.trust()


@pytest.fixture
def hostile(host: EmulatedHost) -> Iterator[HostileHost]:
    with HostileHost(host.address) as hostile:
        yield hostile


class Attempt:
    """A deployment with a secret that knows whether it was read."""

    def __init__(self, hostile: HostileHost, trust: Trust, verb: str = "") -> None:
        from wasmtime import wat2wasm

        self.read = False
        self.error: EnarxError | None = None
        package = Package(name="test", module=bytes(wat2wasm(NOTHING)))
        try:
            deploy(
                package,
                hostile.address,
                trust=trust,
                tee="any" if verb == "info" else "sev",
                secrets=[SecretSource(name="bait", read=self._read)],
            )
        except EnarxError as error:
            self.error = error

    def _read(self) -> bytes:
        self.read = True
        return b"bait"


def is_verb(verb: str, method: str, path: str) -> bool:
    said = f"{method} {path}"
    if verb == "secret":
        return method == "POST" and path.endswith("/secret")
    return said == VERBS[verb] or (verb == "platform" and said.startswith(VERBS[verb]))


@pytest.mark.timeout(300)
def test_an_agent_that_only_passes_on_is_no_attack(hostile: HostileHost, trust: Trust) -> None:
    """The other tests mean something only if this one passes, and if every verb is used."""
    for verb in ("info", "secret"):
        attempt = Attempt(hostile, trust, verb)
        assert attempt.error is None
        assert attempt.read
    for verb in VERBS:
        assert any(is_verb(verb, *said.split(" ", 1)) for said in hostile.asked), verb


def test_a_host_does_not_choose_what_protects_less(tmp_path: Path) -> None:
    """A machine that has SNP can start guests of SEV as well, and leave out that it has better."""
    with EmulatedHost(tmp_path, ("sev",)) as weaker, pytest.raises(Unavailable) as refused:
        deploy(Package(name="test", module=b"\0asm"), weaker.address, trust=weaker.trust())
    assert "the host offers sev, which is not taken unasked" in str(refused.value)
    assert "--tee sev" in refused.value.hint


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("verb", VERBS)
def test_a_lie_about_any_verb_costs_only_the_deployment(
    hostile: HostileHost, trust: Trust, verb: str, lie: str
) -> None:
    """The answer to ``secret`` says nothing: what is wrong with it shows in its form alone, or does not matter."""
    hostile.answer = lambda method, path, given: LIES[lie](given) if is_verb(verb, method, path) else given
    attempt = Attempt(hostile, trust, verb)
    if attempt.error is None:
        assert verb == "secret"
        assert attempt.read
    else:
        assert not attempt.read
        assert str(attempt.error).isprintable()


@pytest.mark.timeout(300)
def test_an_answer_that_is_given_again_names_a_keep_that_is_over(hostile: HostileHost, trust: Trust) -> None:
    """Replay: the launch of an earlier keep, to which a secret was given already."""
    first: list[Answer] = []

    def repeat(method: str, path: str, given: Answer) -> Answer:
        if is_verb("create", method, path):
            first.append(given)
            return first[0]
        return given

    hostile.answer = repeat
    assert Attempt(hostile, trust).error is None
    again = Attempt(hostile, trust)
    assert again.error is not None
    assert not again.read


@pytest.mark.timeout(300)
def test_a_launch_that_was_changed_gets_no_secret(hostile: HostileHost, trust: Trust) -> None:
    def change(method: str, path: str, given: Answer) -> Answer:
        if not is_verb("create", method, path):
            return given
        told = json.loads(given[2])
        middle = len(told["launch"]) // 2
        letter = "A" if told["launch"][middle] != "A" else "B"
        told["launch"] = told["launch"][:middle] + letter + told["launch"][middle + 1 :]
        return given[0], given[1], json.dumps(told).encode()

    hostile.answer = change
    attempt = Attempt(hostile, trust)
    assert attempt.error is not None
    assert not attempt.read
    assert not any(is_verb("secret", *said.split(" ", 1)) for said in hostile.asked)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"\x16\x03\x01" * 100, b"\0" * 100_000])
def test_a_channel_that_is_none(hostile: HostileHost, trust: Trust, answer: bytes) -> None:
    def channel(client: socket.socket, keep: str) -> None:
        client.sendall(answer)
        client.shutdown(socket.SHUT_WR)

    hostile.channel = channel
    attempt = Attempt(hostile, trust)
    assert attempt.error is not None
    assert not attempt.read
    assert any(said.startswith("DELETE ") for said in hostile.asked)


@pytest.mark.timeout(300)
def test_an_agent_that_ends_nothing_is_not_waited_for(hostile: HostileHost, trust: Trust) -> None:
    """A keep that was given up ends by itself; the error that is told is the first one."""

    def keep_alive(method: str, path: str, given: Answer) -> Answer:
        return (500, {"Content-Type": "text/plain"}, b"no") if method == "DELETE" else given

    hostile.answer = keep_alive
    hostile.channel = lambda client, keep: client.close()
    attempt = Attempt(hostile, trust)
    assert attempt.error is not None
    assert "status" not in str(attempt.error)
    assert not attempt.read
