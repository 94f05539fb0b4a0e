"""What the agent answers, operation by operation: from its own table of routes, so that none is forgotten."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.host.agent.played_backend import PlayedBackend

from enarx.api.agent import PROTOCOL
from enarx.api.keep_image import Image
from enarx.host.agent import Account, Accounts
from enarx.host.agent._http import Request, Response, Upgrade
from enarx.host.agent._keeps import Keeps
from enarx.host.agent._openapi import openapi
from enarx.host.agent._routes import ROUTES, Route, Routes
from enarx.host.sallyport import Permissions
from enarx.tcb.errors import Unavailable

IMAGE = Image(manifest=b"0" * 64 + b"  file\n", size=1)
TOKEN = "token of anna"
UPGRADE = {"connection": "upgrade", "upgrade": PROTOCOL}
JSON = {"content-type": "application/json"}
BODIES = {"NewKeep": b"{}", "Secret": b'{"packet": ""}'}


def accounts() -> Accounts:
    anna = Account(name="anna", token_sha256=sha256(TOKEN.encode()).digest())
    return Accounts({"anna": anna, "ben": Account(name="ben", token_sha256=sha256(b"ben").digest())})


class Agent:
    """Routes over a played backend, called without a network."""

    def __init__(self, known: Accounts, *backends: PlayedBackend) -> None:
        self.backends = backends or (PlayedBackend(),)
        permissions = Permissions(listen=frozenset(), connect=frozenset())
        self.keeps = Keeps(
            self.backends, Path("image"), accounts=known, permissions=permissions, max_keeps=1000
        )
        self.routes = Routes(self.keeps, known, image=IMAGE)

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Response | Upgrade:
        headers = {**JSON, **(headers or {})}
        request = Request(method=method, path=path, headers=headers, body=body)
        return asyncio.run(self.routes(request))

    def answer(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Ask for what is no upgrade."""
        given = self.ask(method, path, body, headers)
        assert isinstance(given, Response)
        return given.status.value, json.loads(given.body)

    def close(self) -> None:
        self.keeps.close()
        self.routes.close()
        for backend in self.backends:
            backend.close()


@pytest.fixture
def agent() -> Iterator[Agent]:
    agent = Agent(accounts())
    yield agent
    agent.close()


def mine(headers: dict[str, str] | None = None) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKEN}", **(headers or {})}


def path_of(route: Route, keep: str) -> str:
    return route.path.replace("{id}", keep).replace("{tee}", "snp")


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


@pytest.mark.parametrize("route", ROUTES, ids=named)
@pytest.mark.parametrize("token", ["", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
def test_unauthenticated_requests_reach_no_keep_over_any_route(
    agent: Agent, route: Route, token: str
) -> None:
    """The table of routes is the list of tests: a new operation without authentication fails here."""
    _, keep = agent.answer("POST", "/v1/keeps", b"{}", mine())
    body = BODIES[route.takes.__name__] if route.takes else b""
    given = agent.ask(route.method, path_of(route, keep["id"]), body, {"authorization": token, **UPGRADE})
    assert isinstance(given, Response)
    if route.path.startswith("/v1/"):
        assert route.authenticated
        assert given.status is HTTPStatus.UNAUTHORIZED
        assert ("WWW-Authenticate", "Bearer") in given.headers
    else:
        assert given.status is HTTPStatus.OK
    assert keep["id"].encode() not in given.body
    assert b"anna" not in given.body
    assert agent.answer("GET", f"/v1/keeps/{keep['id']}", b"", mine())[1]["state"] == "ready"
    assert agent.keeps.started == 1


@pytest.mark.parametrize("route", [it for it in ROUTES if "{id}" in it.path], ids=named)
def test_another_account_reaches_no_keep_over_any_route(agent: Agent, route: Route) -> None:
    _, keep = agent.answer("POST", "/v1/keeps", b"{}", mine())
    body = BODIES[route.takes.__name__] if route.takes else b""
    headers = {"authorization": "Bearer ben", **UPGRADE}
    status, found = agent.answer(route.method, path_of(route, keep["id"]), body, headers)
    missing, told = agent.answer(route.method, path_of(route, "00" * 16), body, headers)
    assert status == missing == 404
    assert found["detail"].replace(keep["id"], "") == told["detail"].replace("00" * 16, "")


def test_a_keep_is_made_listed_looked_at_and_ended(agent: Agent) -> None:
    status, made = agent.answer("POST", "/v1/keeps", b'{"tee": "snp", "tenant": "dG9sZA=="}', mine())
    assert status == 201
    assert agent.backends[0].keeps[0].request.tenant == b"told"
    assert agent.answer("GET", "/v1/keeps", b"", mine()) == (200, {"keeps": [made]})
    assert agent.answer("GET", f"/v1/keeps/{made['id']}", b"", mine()) == (200, made)
    status, ended = agent.answer("DELETE", f"/v1/keeps/{made['id']}", b"", mine())
    assert (status, ended["state"], ended["ended"]) == (200, "ended", "it was stopped")
    status, told = agent.answer("GET", f"/v1/keeps/{made['id']}/channel", b"", mine(UPGRADE))
    assert status == 409
    assert "it was stopped" in told["detail"]


def test_the_machine_describes_itself(agent: Agent) -> None:
    status, info = agent.answer("GET", "/v1/info", b"", mine())
    assert (status, info["image"], info["max_keeps"], info["keeps"]) == (200, IMAGE.digest.hex(), 1000, 0)
    assert info["backends"][0]["facts"][0]["detail"] == "a test"
    status, platform = agent.answer("GET", "/v1/platforms/snp", b"", mine())
    assert (status, platform["certificates"], platform["documents"]) == (
        200,
        ["Y2VydA=="],
        [{"kind": "tcb", "data": "e30="}],
    )
    assert agent.answer("GET", "/v1/platforms/sgx", b"", mine())[0] == 503


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "body: "),
        (b"{", "body: "),
        (b"[]", "Expected `object`"),
        (b'{"tee": "snp", "debug": true}', "unknown field `debug`"),
        (b'{"tee": 1}', "Expected `str`"),
        (b'{"tenant": "***"}', "Invalid base64"),
        (b'{"tee": "' + b"x" * 100_000 + b'"}', "this machine has no"),
        (b'{"tee": ' + b"[" * 100_000, "body: "),
        (b"[" * 100_000, "body: "),
        (b'{"tee": "\xff"}', "body: "),
    ],
)
def test_bodies_that_are_no_requests_are_refused(agent: Agent, body: bytes, detail: str) -> None:
    status, told = agent.answer("POST", "/v1/keeps", body, mine())
    assert status in (400, 503)
    assert detail in told["detail"]
    assert len(told["detail"]) < 500
    assert agent.keeps.started == 0


def test_what_pages_of_other_sites_can_send_is_refused(agent: Agent) -> None:
    """A browser sends these kinds of bodies to any address, without asking it before."""
    for kind in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert agent.answer("POST", "/v1/keeps", b"{}", mine({"content-type": kind}))[0] == 415
    assert agent.answer("OPTIONS", "/v1/keeps", b"", mine())[0] == 405


def test_wrong_paths_and_methods_say_what_there_is(agent: Agent) -> None:
    for path in (
        "/",
        "/v1",
        "/v1/keeps/",
        "/v1/keeps/../info",
        "//v1/info",
        "/v1/keeps/a/b",
        "*",
        "/v1/info%2f",
    ):
        assert agent.answer("GET", path, b"", mine())[0] == 404
    given = agent.ask("PUT", "/v1/keeps", b"", mine())
    assert isinstance(given, Response)
    assert given.status is HTTPStatus.METHOD_NOT_ALLOWED
    assert ("Allow", "GET, POST") in given.headers
    assert agent.answer("HEAD", "/healthz")[0] == 200


def test_the_channel_without_an_upgrade_says_how(agent: Agent) -> None:
    _, keep = agent.answer("POST", "/v1/keeps", b"{}", mine())
    given = agent.ask("GET", f"/v1/keeps/{keep['id']}/channel", b"", mine())
    assert isinstance(given, Response)
    assert given.status is HTTPStatus.UPGRADE_REQUIRED
    assert ("Upgrade", PROTOCOL) in given.headers
    assert isinstance(agent.ask("GET", f"/v1/keeps/{keep['id']}/channel", b"", mine(UPGRADE)), Upgrade)


def test_a_platform_that_is_gone_is_an_answer_with_advice(agent: Agent) -> None:
    agent.backends[0].failure = Unavailable("the platform is gone", hint="start it")
    status, told = agent.answer("POST", "/v1/keeps", b"{}", mine())
    assert (status, told["detail"], told["hint"]) == (503, "the platform is gone", "start it")


def test_a_full_disk_is_an_answer(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(agent.backends[0], "launch", full)
    status, told = agent.answer("POST", "/v1/keeps", b"{}", mine())
    assert (status, told["detail"]) == (507, "the machine cannot do that now: no space left on device")
    assert agent.keeps.alive == 0


def test_a_mistake_of_ours_is_an_answer_and_in_the_log(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(agent.backends[0], "launch", lambda request: 1 / 0)
    status, told = agent.answer("POST", "/v1/keeps", b"{}", mine())
    assert (status, told["detail"]) == (500, "a mistake of the agent, see its log")
    assert "ZeroDivisionError" in caplog.text


def test_a_platform_that_hangs_holds_up_only_who_asks_it() -> None:
    agent = Agent(Accounts())
    agent.backends[0].gate.clear()
    create = Request(method="POST", path="/v1/keeps", headers=JSON, body=b"{}")
    quick = [
        Request(method="GET", path=path, headers={}, body=b"")
        for path in ("/healthz", "/v1/keeps", "/metrics")
    ]

    async def ask() -> list[int]:
        waiting = [asyncio.create_task(agent.routes(create)) for _ in range(100)]
        await asyncio.sleep(0)
        answers = [await asyncio.wait_for(agent.routes(request), 30) for request in quick]
        assert not any(task.done() for task in waiting)
        agent.backends[0].gate.set()
        answers += await asyncio.gather(*waiting)
        return [it.status.value for it in answers if isinstance(it, Response)]

    assert asyncio.run(ask()) == [200] * 3 + [201] * 100
    agent.close()


def test_figures_can_be_read_by_prometheus(agent: Agent) -> None:
    agent.answer("POST", "/v1/keeps", b"{}", mine())
    given = agent.ask("GET", "/metrics")
    assert isinstance(given, Response)
    assert given.media_type.startswith("text/plain")
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(given.body.decode())
        for sample in family.samples
    }
    assert found["enarx_keeps", (("state", "ready"), ("tee", "snp"))] == 1
    assert found["enarx_keeps", (("state", "ended"), ("tee", "snp"))] == 0
    assert found["enarx_keeps_started_total", ()] == 1
    assert found["enarx_keeps_limit", ()] == 1000
    assert b"anna" not in given.body


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_the_openapi_document_is_one_and_complete(agent: Agent) -> None:
    status, document = agent.answer("GET", "/openapi.json")
    assert status == 200
    assert document == json.loads(json.dumps(openapi()))
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= document["info"].keys()
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
    operations = [
        (path, method, operation)
        for path, its in document["paths"].items()
        for method, operation in its.items()
    ]
    assert {(method.upper(), path) for path, method, _ in operations} == {
        (route.method, route.path) for route in ROUTES
    }
    assert len({operation["operationId"] for _, _, operation in operations}) == len(operations)
    for path, _, operation in operations:
        assert operation["summary"]
        assert {it["name"] for it in operation["parameters"]} == set(re.findall(r"\{(\w+)\}", path))
        assert all(answer["description"] for answer in operation["responses"].values())
        assert "default" in operation["responses"]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NEW_KEEP = st.fixed_dictionaries(
    {}, optional={"tee": st.sampled_from(["any", "snp", "sev"]) | st.text(), "tenant": st.just("AAAA") | JUNK}
)
SECRET = st.fixed_dictionaries({"packet": st.sampled_from(["", "cmlnaHQ=", "AAAA"])})
BODY = st.one_of(
    *(it.map(lambda value: json.dumps(value).encode()) for it in (NEW_KEEP, SECRET, JUNK)),
    st.binary(max_size=40),
)


@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(
        st.tuples(st.sampled_from(ROUTES), BODY, st.integers(0, 3), st.booleans()), min_size=1, max_size=8
    )
)
def test_every_operation_answers_as_it_is_documented(asked: list[tuple[Route, bytes, int, bool]]) -> None:
    """Whatever comes in whatever order: the status and the document are those of the OpenAPI document."""
    document = openapi()
    agent = Agent(Accounts(), PlayedBackend(), PlayedBackend("sev", pre_boot=True))
    try:
        for route, body, choice, upgrading in asked:
            keeps = [it.id for it in agent.keeps.list(Account(name=""))]
            keep = keeps[choice % len(keeps)] if keeps else "none"
            given = agent.ask(route.method, path_of(route, keep), body, UPGRADE if upgrading else None)
            responses = document["paths"][route.path][route.method.lower()]["responses"]
            if isinstance(given, Upgrade):
                assert "101" in responses
                continue
            assert given.status.value < 500 or given.status in (502, 503)
            documented = responses.get(str(given.status.value), responses["default"])
            content = (
                documented["content"]
                if "content" in documented
                else {"text/plain": {}, JSON["content-type"]: {}}
            )
            kind = given.media_type.partition(";")[0]
            assert kind in content
            if "schema" in content[kind]:
                schema = {"components": document["components"], **content[kind]["schema"]}
                Draft202012Validator(schema).validate(json.loads(given.body))
    finally:
        agent.close()
