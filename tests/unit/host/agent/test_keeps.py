"""The life of keeps under an agent, with keeps that the test plays, some of them hostile."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.host.agent.played_backend import PlayedBackend, PlayedKeep

from enarx.api.agent import ANY, KeepInfo, KeepState
from enarx.host.agent import Account, Accounts
from enarx.host.agent import _keeps as module
from enarx.host.agent._keeps import Keeps, NotFound, NotReady
from enarx.host.agent._tenants import QuotaReached
from enarx.host.sallyport import Permissions
from enarx.tcb.errors import Unavailable
from enarx.tcb.sallyport.items import Changed, Deliver, Exited, Listen, Opened, Ready, Refused
from enarx.tcb.sallyport.socket_channel import ChannelClosed
from enarx.tcb.workload import Ending, Outcome

ANNA = Account(name="anna", token_sha256=b"a" * 32, max_keeps=3)
BEN = Account(name="ben", token_sha256=b"b" * 32)
Make = Callable[..., Keeps]


class Told:
    """What the machine's owner is told, with a way to wait for it."""

    def __init__(self) -> None:
        self.all: list[KeepInfo] = []
        self._changed = threading.Condition()

    def __call__(self, keep: KeepInfo, pid: int | None) -> None:
        with self._changed:
            self.all.append(keep)
            self._changed.notify_all()

    def ended(self) -> KeepInfo:
        """Wait for the first keep that ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(it.state is KeepState.ENDED for it in self.all), 30)
            return next(it for it in self.all if it.state is KeepState.ENDED)


@pytest.fixture
def backend() -> PlayedBackend:
    return PlayedBackend()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def make(told: Told) -> Iterator[Make]:
    made: list[Keeps] = []

    def make(
        *backends: PlayedBackend, max_keeps: int = 8, listen: frozenset[tuple[str, int]] = frozenset()
    ) -> Keeps:
        keeps = Keeps(
            backends,
            Path("image"),
            accounts=Accounts({"anna": ANNA, "ben": BEN}),
            permissions=Permissions(listen=listen, connect=frozenset()),
            max_keeps=max_keeps,
            tell=told,
        )
        made.append(keeps)
        return keeps

    yield make
    for keeps in made:
        keeps.close()
        for backend in keeps.backends:
            backend.close()


def test_a_keep_gets_its_door_and_connections_through_it(make: Make, backend: PlayedBackend) -> None:
    keeps = make(backend)
    keep = keeps.create(ANNA, tee="snp", tenant=b"told")
    assert keep.state is KeepState.READY
    assert backend.keeps[0].request.tenant == b"told"
    ours, theirs = socket.socketpair()
    with backend.keeps[0].admitted() as door, ours, theirs:
        keeps.connect(ANNA, keep.id, theirs)
        data, descriptors, _, _ = socket.recv_fds(door, 16, 4)
        assert data == b"t"
        with socket.socket(fileno=descriptors[0]) as inside:
            inside.sendall(b"hello")
        assert ours.recv(5) == b"hello"
    assert (keeps.started, keeps.channels, keeps.alive) == (1, 1, 1)


def test_names_cannot_be_guessed_and_never_repeat(make: Make, backend: PlayedBackend) -> None:
    keeps = make(backend)
    names = {keeps.create(BEN, tee=ANY, tenant=b"").id for _ in range(8)}
    assert len(names) == 8
    assert {len(bytes.fromhex(name)) for name in names} == {16}


def test_a_tenant_sees_and_touches_nobody_elses_keep(make: Make, backend: PlayedBackend) -> None:
    keeps = make(backend)
    name = keeps.create(ANNA, tee="snp", tenant=b"").id
    assert keeps.list(BEN) == []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for call in (
            lambda: keeps.get(BEN, name),
            lambda: keeps.stop(BEN, name),
            lambda: keeps.secret(BEN, name, b"right"),
            lambda: keeps.connect(BEN, name, theirs),
            lambda: keeps.door(BEN, name),
        ):
            with pytest.raises(NotFound, match="there is no keep") as foreign:
                call()
            assert foreign.value.hint == "see enarx keep list"
    assert keeps.get(ANNA, name).state is KeepState.READY


@pytest.mark.parametrize(
    ("say", "why"),
    [
        (lambda keep: keep.die(), "its process is gone"),
        (lambda keep: keep.inner.send(Exited(outcome=None)), "it ended"),
        (
            lambda keep: keep.inner.send(
                Exited(outcome=Outcome(ending=Ending.UNAVAILABLE, detail="no platform").value())
            ),
            "no platform",
        ),
        (lambda keep: keep.inner.send(Ready(version="x")), "it broke the protocol: Ready in state RUNNING"),
        (lambda keep: keep.inner.send(Deliver(header=None, size=0)), "it broke the protocol"),
        (
            lambda keep: keep.inner.send(Changed(header=None, size=1)),
            "it broke the protocol: Changed is nothing",
        ),
        (lambda keep: keep.inner.send_blob([b"\xff" * 8]), "item announces"),
        (lambda keep: keep.inner.send_blob([b"\0\0\0\2\xff\xff"]), ""),
        (lambda keep: keep.inner.send(Exited(outcome=[1, 2, 3])), ""),
        (lambda keep: keep.inner.send(Exited(outcome=None), [0]), "it broke the protocol"),
    ],
)
def test_the_end_of_a_keep_is_told_with_its_reason(
    make: Make, backend: PlayedBackend, told: Told, say: Callable[[PlayedKeep], None], why: str
) -> None:
    """Also when the keep is hostile: what it says wrong ends itself and nothing else."""
    keeps = make(backend)
    other = keeps.create(ANNA, tee="snp", tenant=b"")
    name = keeps.create(ANNA, tee="snp", tenant=b"").id
    keep = backend.keeps[1]
    keep.admitted().close()
    say(keep)
    ended = told.ended()
    assert (ended.id, ended.state) == (name, KeepState.ENDED)
    assert ended.ended
    assert why in ended.ended
    assert keep.stopped.wait(30)
    assert keeps.get(ANNA, other.id).state is KeepState.READY
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(NotReady, match="is ended"):
        keeps.connect(ANNA, name, theirs)


def test_a_stopped_keep_loses_its_door_and_its_channel(make: Make, backend: PlayedBackend) -> None:
    keeps = make(backend)
    name = keeps.create(ANNA, tee="snp", tenant=b"").id
    with backend.keeps[0].admitted() as door:
        assert keeps.stop(ANNA, name).ended == "it was stopped"
        assert keeps.stop(ANNA, name).ended == "it was stopped"
        assert door.recv(1) == b""
    with pytest.raises(ChannelClosed):
        backend.keeps[0].inner.receive()


def test_a_keep_that_dies_before_it_is_admitted_is_no_keep(make: Make, backend: PlayedBackend) -> None:
    backend.dead = True
    keeps = make(backend)
    with pytest.raises(NotReady, match="just ended"):
        keeps.create(ANNA, tee="snp", tenant=b"")
    assert keeps.alive == 0
    assert backend.keeps[0].stopped.is_set()


def test_what_workloads_may_open_the_owner_says(make: Make, backend: PlayedBackend) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    keeps = make(backend, listen=frozenset({("127.0.0.1", port)}))
    keeps.create(ANNA, tee="snp", tenant=b"")
    keep = backend.keeps[0]
    keep.admitted().close()
    keep.inner.send(Listen(request=1, address="127.0.0.1", port=port))
    item, descriptors = keep.inner.receive()
    assert isinstance(item, Opened)
    socket.socket(fileno=descriptors[0]).close()
    keep.inner.send(Listen(request=2, address="127.0.0.1", port=port + 1))
    item, descriptors = keep.inner.receive()
    assert isinstance(item, Refused)
    assert not descriptors


def test_quotas_hold_also_when_all_ask_at_once(make: Make, backend: PlayedBackend) -> None:
    keeps = make(backend)
    backend.gate.clear()

    def create() -> str:
        try:
            return keeps.create(ANNA, tee="snp", tenant=b"").id
        except QuotaReached:
            return ""

    with ThreadPoolExecutor(10) as threads:
        asked = [threads.submit(create) for _ in range(10)]
        backend.gate.set()
        names = [it.result() for it in asked]
    assert len([name for name in names if name]) == ANNA.max_keeps
    assert keeps.create(BEN, tee="snp", tenant=b"").state is KeepState.READY


def test_the_machine_has_a_limit_of_its_own_and_gives_places_back(make: Make, backend: PlayedBackend) -> None:
    keeps = make(backend, max_keeps=2)
    first = keeps.create(ANNA, tee="snp", tenant=b"")
    keeps.create(BEN, tee="snp", tenant=b"")
    with pytest.raises(QuotaReached, match="this machine takes 2 keeps"):
        keeps.create(BEN, tee="snp", tenant=b"")
    keeps.stop(ANNA, first.id)
    keeps.create(BEN, tee="snp", tenant=b"")


def test_a_launch_that_fails_gives_its_place_back(make: Make, backend: PlayedBackend) -> None:
    keeps = make(backend, max_keeps=1)
    backend.failure = Unavailable("no platform")
    with pytest.raises(Unavailable, match="no platform"):
        keeps.create(ANNA, tee="snp", tenant=b"")
    backend.failure = None
    keeps.create(ANNA, tee="snp", tenant=b"")


def test_any_takes_the_first_tee_that_is_there(make: Make) -> None:
    broken, good = PlayedBackend("sgx"), PlayedBackend("tdx")
    broken.failure = Unavailable("no platform")
    keeps = make(broken, good)
    assert keeps.create(ANNA, tee=ANY, tenant=b"").tee == "tdx"
    with pytest.raises(Unavailable, match="no platform"):
        keeps.create(ANNA, tee="sgx", tenant=b"")
    with pytest.raises(Unavailable, match="no 'snp'"):
        keeps.create(ANNA, tee="snp", tenant=b"")


def test_a_pre_boot_keep_runs_only_with_its_secret(make: Make) -> None:
    backend = PlayedBackend("sev", pre_boot=True)
    keeps = make(backend)
    keep = keeps.create(ANNA, tee="sev", tenant=b"policy")
    assert (keep.state, keep.launch) == (KeepState.AWAITING_SECRET, b"measured")
    with pytest.raises(NotReady, match="awaiting-secret"):
        keeps.door(ANNA, keep.id)
    assert keeps.secret(ANNA, keep.id, b"right").state is KeepState.READY
    backend.keeps[0].admitted().close()
    with pytest.raises(NotReady, match="waits for no secret"):
        keeps.secret(ANNA, keep.id, b"right")


def test_a_refused_secret_ends_the_keep(make: Make) -> None:
    backend = PlayedBackend("sev", pre_boot=True)
    keeps = make(backend)
    keep = keeps.create(ANNA, tee="sev", tenant=b"policy")
    with pytest.raises(Exception, match="does not open"):
        keeps.secret(ANNA, keep.id, b"wrong")
    assert keeps.get(ANNA, keep.id).ended == "the launch secret was refused: the packet does not open"
    assert backend.keeps[0].stopped.is_set()


def test_who_never_sends_a_secret_loses_the_place(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    keeps = make(PlayedBackend("sev", pre_boot=True))
    keep = keeps.create(ANNA, tee="sev", tenant=b"policy")
    keeps.sweep()
    assert keeps.get(ANNA, keep.id).state is KeepState.AWAITING_SECRET
    monkeypatch.setattr(module, "SECRET_WAIT_S", -1.0)
    keeps.sweep()
    assert keeps.get(ANNA, keep.id).ended == "no secret came"


def test_what_ended_is_told_for_a_while_and_not_for_ever(
    make: Make, backend: PlayedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeps = make(backend)
    monkeypatch.setattr(module, "MAX_ENDED", 2)
    names = [keeps.stop(BEN, keeps.create(BEN, tee="snp", tenant=b"").id).id for _ in range(4)]
    keeps.sweep()
    assert [keep.id for keep in keeps.list(BEN)] == names[2:]
    monkeypatch.setattr(module, "FORGET_S", -1.0)
    keeps.sweep()
    assert keeps.list(BEN) == []


def test_going_down_ends_all_and_starts_nothing(make: Make, backend: PlayedBackend) -> None:
    keeps = make(backend)
    keeps.create(ANNA, tee="snp", tenant=b"")
    keeps.close()
    assert backend.keeps[0].stopped.is_set()
    with pytest.raises(Unavailable, match="going down"):
        keeps.create(ANNA, tee="snp", tenant=b"")
    assert backend.keeps[1].stopped.is_set()
    assert keeps.counts() == {("snp", "ready"): 0, ("snp", "awaiting-secret"): 0, ("snp", "ended"): 1}


def test_a_keep_that_takes_no_connections_is_said_to_be_busy(make: Make, backend: PlayedBackend) -> None:
    keeps = make(backend)
    name = keeps.create(ANNA, tee="snp", tenant=b"").id
    ours, theirs = socket.socketpair()

    def connect_for_ever() -> None:
        while True:
            keeps.connect(ANNA, name, theirs)

    with ours, theirs, pytest.raises(NotReady, match="takes no more connections now"):
        connect_for_ever()
