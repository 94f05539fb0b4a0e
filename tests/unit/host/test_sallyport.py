"""The host's half against a keep that misbehaves."""

from __future__ import annotations

import pytest

from enarx.host.sallyport import Host, Permissions, Scope, State
from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.sallyport import limits
from enarx.tcb.sallyport.items import (
    Admit,
    Changed,
    Compiled,
    Connect,
    Deliver,
    Exited,
    Item,
    Listen,
    Opened,
    Progress,
    Ready,
    Reason,
    Refused,
)

READY = Ready(version="1")
DELIVERY = Deliver(header=None, size=0)
LISTEN = Listen(request=1, address="::", port=80)
CONNECT = Connect(request=1, host="db", port=5432)
ANYTHING = Permissions(listen=Scope.ANY, connect=Scope.ANY)
NOTHING = Permissions(listen=frozenset(), connect=frozenset())


def host_in(state: State, permissions: Permissions = ANYTHING, max_bytes: int = 100) -> Host:
    host = Host(permissions, max_bytes=max_bytes)
    if state in (State.READY, State.RUNNING, State.EXITED):
        host.received(READY, 0)
    if state in (State.RUNNING, State.EXITED):
        host.deliver(DELIVERY)
    if state is State.EXITED:
        host.received(Exited(outcome=None), 0)
    assert host.state is state
    return host


ALLOWED: dict[State, tuple[Item, ...]] = {
    State.BOOTING: (READY, Progress(text="x"), Exited(outcome=None)),
    State.READY: (Progress(text="x"),),
    State.RUNNING: (
        Progress(text="x"),
        LISTEN,
        CONNECT,
        Compiled(size=1),
        Changed(header=None, size=1),
        Exited(outcome=None),
    ),
    State.EXITED: (),
}
EVERYTHING: tuple[Item, ...] = (
    READY,
    *ALLOWED[State.RUNNING],
    DELIVERY,
    Admit(),
    Opened(request=1, port=1),
    Refused(request=1, reason=Reason.LIMIT, detail=""),
)


@pytest.mark.parametrize("item", EVERYTHING, ids=lambda item: type(item).__name__)
@pytest.mark.parametrize("state", State)
def test_an_item_is_taken_only_in_its_states(state: State, item: Item) -> None:
    host = host_in(state)
    if item in ALLOWED[state]:
        assert host.received(item, 0) is item
    else:
        with pytest.raises(ProtocolViolation):
            host.received(item, 0)


def test_the_delivery_is_sent_once_and_not_too_early() -> None:
    with pytest.raises(ProtocolViolation, match="BOOTING"):
        host_in(State.BOOTING).deliver(DELIVERY)
    with pytest.raises(ProtocolViolation, match="RUNNING"):
        host_in(State.RUNNING).deliver(DELIVERY)


def test_a_keep_is_given_to_a_tenant_or_gets_a_delivery_but_not_both() -> None:
    host = host_in(State.READY)
    host.deliver(Admit())
    with pytest.raises(ProtocolViolation, match="RUNNING"):
        host.deliver(DELIVERY)


def test_a_keep_never_sends_descriptors() -> None:
    with pytest.raises(ProtocolViolation, match="descriptors"):
        host_in(State.RUNNING).received(LISTEN, 1)


@pytest.mark.parametrize("request_number", [1, 4, 5])
def test_a_request_number_is_never_used_again(request_number: int) -> None:
    host = host_in(State.RUNNING)
    host.received(Listen(request=5, address="::", port=80), 0)
    with pytest.raises(ProtocolViolation, match="after 5"):
        host.received(Connect(request=request_number, host="db", port=80), 0)


def test_compiled_code_comes_once() -> None:
    host = host_in(State.RUNNING)
    host.received(Compiled(size=1), 0)
    with pytest.raises(ProtocolViolation, match="twice"):
        host.received(Compiled(size=1), 0)


def test_raw_bytes_are_limited_over_the_whole_life() -> None:
    host = host_in(State.RUNNING, max_bytes=10)
    host.received(Changed(header=None, size=6), 0)
    host.received(Changed(header=None, size=4), 0)
    host.received(Changed(header=None, size=0), 0)
    with pytest.raises(ProtocolViolation, match="0 are left"):
        host.received(Changed(header=None, size=1), 0)


def test_progress_reports_are_limited() -> None:
    host = host_in(State.RUNNING)
    for _ in range(limits.MAX_PROGRESS):
        host.received(Progress(text="x"), 0)
    with pytest.raises(ProtocolViolation, match="progress"):
        host.received(Progress(text="x"), 0)


def test_nothing_is_permitted_that_is_not_listed() -> None:
    host = host_in(State.RUNNING, NOTHING)
    for request in (LISTEN, CONNECT):
        refusal = host.refusal(request)
        assert refusal is not None
        assert refusal.reason is Reason.NOT_PERMITTED


def test_only_the_listed_endpoint_is_permitted_and_only_for_its_purpose() -> None:
    both = frozenset({("::", 80)})
    host = host_in(State.RUNNING, Permissions(listen=both, connect=frozenset()))
    assert host.refusal(LISTEN) is None
    assert host.refusal(Listen(request=2, address="::", port=81)) is not None
    assert host.refusal(Listen(request=3, address="127.0.0.1", port=80)) is not None
    assert host.refusal(Connect(request=4, host="::", port=80)) is not None


def test_requests_are_limited_in_number() -> None:
    host = host_in(State.RUNNING)
    for number in range(1, limits.MAX_REQUESTS + 1):
        assert host.refusal(Connect(request=number, host="db", port=1)) is None
    refusal = host.refusal(Connect(request=number + 1, host="db", port=1))
    assert refusal is not None
    assert refusal.reason is Reason.LIMIT
