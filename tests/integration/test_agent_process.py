"""A host agent as a process: it starts, connects and ends keeps, and whatever dies, nothing half-alive remains."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.agent_process import (
    TIMEOUT_S,
    Machine,
    alive,
    await_end,
    client,
    holds,
    inode_of_peer,
    machine,
    process_of,
    until,
)
from tests.unit.host.agent.test_http import write_certificate

from enarx.api.agent import KeepState
from enarx.tenant.agent_calls import HostUnable, KeepNotReady, NoSuchKeep, NotAllowed, QuotaReached
from enarx.tenant.channel import Channel
from enarx.tenant.image import build_image
from enarx.tenant.upgrade import open_channel


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "keep.tar"
    build_image(path)
    return path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Iterator[Machine]:
    """A machine whose platform no test may harm."""
    with machine(tmp_path_factory.mktemp("machine") / "state", image) as made:
        yield made


@pytest.fixture
def own(tmp_path: Path, image: Path) -> Iterator[Machine]:
    """A machine for one test."""
    with machine(tmp_path / "state", image) as made:
        yield made


def test_a_keep_is_launched_listed_connected_and_ended(shared: Machine) -> None:
    agent = shared.agent()
    with client(agent) as asker:
        info = asker.info()
        assert [(it.tee, it.emulated, it.ready) for it in info.backends] == [("snp", True, True)]
        assert info.image == agent.first["image"]
        keep = asker.create("snp")
        assert [it.id for it in asker.keeps()] == [keep.id]
        with contextlib.closing(Channel(open_channel(asker.address, keep.id))) as channel:
            assert len(channel.keep_key) == 32
        assert asker.stop(keep.id).ended == "it was stopped"
        with pytest.raises(KeepNotReady, match="stopped"):
            open_channel(asker.address, keep.id)
        with pytest.raises(NoSuchKeep):
            asker.keep("00" * 16)
    assert agent.end() == 0


def test_the_agent_holds_no_copy_of_a_connection_that_it_gave_away(shared: Machine) -> None:
    """What it does not hold it cannot read: the socket is the keep's, and no byte passes the agent."""
    agent = shared.agent()
    with client(agent) as asker:
        keep = asker.create()
        connection = open_channel(asker.address, keep.id)
        inode = inode_of_peer(connection)
        until(lambda: not holds(agent.process.pid, inode), "the agent keeps the connection")
        assert not holds(shared.platform.process.pid, inode)
        with contextlib.closing(Channel(connection)):
            assert not holds(agent.process.pid, inode)
    agent.end()


def test_with_tls_of_its_own_the_agent_carries_what_it_cannot_read(shared: Machine, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    agent = shared.agent("--tls-cert", str(certificate), "--tls-key", str(key))
    with client(agent, certificates=certificate) as asker:
        keep = asker.create()
        with contextlib.closing(Channel(open_channel(asker.address, keep.id))) as channel:
            assert len(channel.exporter) == 32
        assert asker.stop(keep.id).state is KeepState.ENDED
    assert agent.end() == 0


def test_accounts_have_tokens_and_quotas_and_see_their_own(shared: Machine, tmp_path: Path) -> None:
    accounts = tmp_path / "accounts.toml"
    tables = [
        f'[{name}]\ntoken_sha256 = "{sha256(name.encode()).hexdigest()}"\nmax_keeps = 2\n'
        for name in ("anna", "ben")
    ]
    accounts.write_text("".join(tables))
    agent = shared.agent("--accounts", str(accounts))
    with client(agent) as nobody, client(agent, token="anna") as anna, client(agent, token="ben") as ben:
        with pytest.raises(NotAllowed):
            nobody.create()
        keep = anna.create()
        anna.create()
        with pytest.raises(QuotaReached, match="2 keeps live"):
            anna.create()
        ben.create()
        with pytest.raises(NoSuchKeep):
            ben.stop(keep.id)
        with pytest.raises(NoSuchKeep):
            open_channel(ben.address, keep.id)
        with pytest.raises(NotAllowed):
            open_channel(nobody.address, keep.id)
        assert len(anna.keeps()) == 2
        assert len(ben.keeps()) == 1
    agent.end()


def test_a_killed_keep_is_told_and_the_others_live(shared: Machine) -> None:
    agent = shared.agent()
    with client(agent) as asker:
        victim, other = asker.create(), asker.create()
        channel = Channel(open_channel(asker.address, other.id))
        os.kill(process_of(agent, victim.id), signal.SIGKILL)
        assert await_end(asker, victim.id).ended == "its process is gone"
        assert asker.keep(other.id).state is KeepState.READY
        channel.close()
    agent.end()


def test_after_a_killed_agent_nothing_half_alive_remains_and_a_restart_is_clean(own: Machine) -> None:
    agent = own.agent()
    with client(agent) as asker:
        keeps = [asker.create() for _ in range(3)]
        processes = [process_of(agent, keep.id) for keep in keeps]
        connection = open_channel(asker.address, keeps[0].id)
        agent.process.kill()
        agent.ended()
        until(lambda: not any(alive(pid) for pid in processes), "keeps outlive their agent")
        connection.settimeout(TIMEOUT_S)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        connection.close()
    again = own.agent()
    with client(again) as asker:
        assert asker.keeps() == []
        assert asker.create().state is KeepState.READY
    assert again.end() == 0


def test_an_agent_that_is_told_to_end_ends_its_keeps_in_order(own: Machine) -> None:
    agent = own.agent()
    with client(agent) as asker:
        keep = asker.create()
        pid = process_of(agent, keep.id)
    assert agent.end() == 0
    assert any("the agent went down" in line for line in agent.said)
    until(lambda: not alive(pid), "the keep outlives its agent")


def test_a_killed_platform_ends_its_keeps_and_a_new_one_is_used(own: Machine) -> None:
    agent = own.agent()
    with client(agent) as asker:
        keep = asker.create()
        own.platform.process.kill()
        own.platform.ended()
        await_end(asker, keep.id)
        until(lambda: not own.keeps(), "keeps outlive their platform")
        with pytest.raises(HostUnable, match="platform"):
            asker.create()
        backend = asker.info().backends[0]
        assert not backend.ready
        assert "enarx-emulator start" in backend.facts[0].advice
        own.restart()
        assert asker.create().state is KeepState.READY
    assert agent.end() == 0


def test_a_platform_that_hangs_does_not_hold_up_the_agents_end(own: Machine) -> None:
    agent = own.agent()
    with client(agent) as asker:
        keep = asker.create()
        os.kill(own.platform.process.pid, signal.SIGSTOP)
        try:
            assert asker.keep(keep.id).state is KeepState.READY
            assert agent.end() == 0
        finally:
            os.kill(own.platform.process.pid, signal.SIGCONT)


def test_silent_clients_hold_up_nobody(shared: Machine) -> None:
    agent = shared.agent()
    with client(agent) as asker, contextlib.ExitStack() as stack:
        where = asker.address.host, asker.address.port
        for number in range(300):
            sock = stack.enter_context(socket.create_connection(where, timeout=TIMEOUT_S))
            sock.sendall(b"POST /v1/keeps HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n"[: number % 60])
        keep = asker.create()
        for _ in range(20):  # and tenants who say nothing to their keep
            stack.enter_context(contextlib.closing(open_channel(asker.address, keep.id)))
        with contextlib.closing(Channel(open_channel(asker.address, keep.id))) as channel:
            assert channel.keep_key
    agent.end()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_hundred_keeps_live_on_one_machine(own: Machine) -> None:
    agent = own.agent()
    with client(agent) as asker:
        keeps = [asker.create() for _ in range(200)]
        assert all(keep.state is KeepState.READY for keep in keeps)
        for keep in keeps[::50]:
            with contextlib.closing(Channel(open_channel(asker.address, keep.id))) as channel:
                assert channel.keep_key
        figures = socket.create_connection((asker.address.host, asker.address.port), timeout=TIMEOUT_S)
        with figures:
            figures.sendall(b"GET /metrics HTTP/1.0\r\nHost: h\r\n\r\n")
            text = b"".join(iter(lambda: figures.recv(65536), b"")).partition(b"\r\n\r\n")[2].decode()
        samples = [it for family in text_string_to_metric_families(text) for it in family.samples]
        assert [it.value for it in samples if it.labels.get("state") == "ready"] == [200]
    assert agent.end() == 0
    until(lambda: len(own.keeps()) < 20, "keeps outlive their agent")
