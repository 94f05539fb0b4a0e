"""An attested keep as a real process, against its tenant, strangers and the host."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.integration.attested_keep import TIMEOUT_S, AttestedKeepProcess, Tenant

from enarx.tcb.binding import Stage
from enarx.tcb.sallyport.items import Admit, Deliver, Exited
from enarx.tcb.sallyport.socket_channel import ChannelClosed
from enarx.tcb.session import AuditLog, Life, Output, Problem, resumed_life
from enarx.tcb.wire import frame
from enarx.tcb.workload import Ending, Job, Limits, Secret, configuration_digest, workload_digest
from enarx.tenant.channel import Channel, ChannelLost

Guest = Callable[[str], Path]


@pytest.fixture
def keep() -> Iterator[AttestedKeepProcess]:
    with AttestedKeepProcess() as keep:
        yield keep


def job_of(wasm: Path, *arguments: str, **options: object) -> Job:
    return Job(module=wasm.read_bytes(), arguments=arguments, **options)  # type: ignore[arg-type]


def test_a_tenant_deploys_and_gets_the_output_and_the_host_gets_nothing(
    keep: AttestedKeepProcess, guest: Guest
) -> None:
    tenant = keep.tenant().attest()
    job = job_of(guest("echo"))
    stdout, stderr, ended = tenant.deliver(job).run(b"one\ntwo\n")
    assert (stdout, stderr) == (b"one\ntwo\n", b"8\n")
    assert (ended.outcome.ending, ended.outcome.code) == (Ending.EXITED, 0)
    locked = next(record for record in ended.audit if record.event == "life.lock")
    assert isinstance(locked.facts, dict)
    assert locked.facts["workload"] == workload_digest(job)
    item, descriptors = keep.keep.channel.receive()
    assert (item, descriptors) == (Exited(outcome=None), [])


def test_the_exit_code_is_the_programs(keep: AttestedKeepProcess, guest: Guest) -> None:
    _, _, ended = keep.tenant().attest().deliver(job_of(guest("exit"), "7")).run()
    assert ended.outcome.code == 7


def test_secrets_are_files_and_only_where_asked_variables(keep: AttestedKeepProcess, guest: Guest) -> None:
    secrets = (
        Secret(name="file-only", value=b"first canary"),
        Secret(name="BOTH", value=b"second canary", environment=True),
    )
    job = job_of(guest("secrets"), secrets=secrets)
    stdout, _, ended = keep.tenant().attest().deliver(job).run()
    assert ended.outcome.code == 0, stdout
    assert stdout.decode().splitlines() == [
        "/run/secrets/BOTH second canary",
        "/run/secrets/file-only first canary",
        "BOTH=second canary",
        "not writable",
    ]


def test_much_output_comes_whole(keep: AttestedKeepProcess, guest: Guest) -> None:
    stdout, stderr, ended = keep.tenant().attest().deliver(job_of(guest("largebuf"))).run()
    assert ended.outcome.code == 0, stderr
    assert stdout[: 64 << 20] == b"x" * (64 << 20)


def test_much_output_comes_whole_to_a_tenant_who_pauses(keep: AttestedKeepProcess, guest: Guest) -> None:
    """Large buffers between the two take in one go all that the keep holds ready; nothing must be lost or stuck."""
    tenant = keep.tenant(large_buffers=True).attest().deliver(job_of(guest("largebuf")))
    tenant.channel.send(tenant.session.attach() + tenant.session.run() + tenant.session.input(b""))
    time.sleep(0.5)  # what is tried here is being slow
    stdout, _, ended = tenant.collect()
    assert ended.outcome.code == 0
    assert stdout[: 64 << 20] == b"x" * (64 << 20)


def test_a_workload_that_traps_is_reported(keep: AttestedKeepProcess, guest: Guest) -> None:
    _, _, ended = keep.tenant().attest().deliver(job_of(guest("recurse"))).run()
    assert ended.outcome.ending is Ending.STACK_OVERFLOW


def test_a_workload_that_does_not_end_in_time_is_reported(keep: AttestedKeepProcess, guest: Guest) -> None:
    job = job_of(guest("loop"), limits=Limits(time_ms=300))
    _, _, ended = keep.tenant().attest().deliver(job).run()
    assert ended.outcome.ending is Ending.TIME_LIMIT


def test_a_tenant_who_reads_nothing_keeps_no_late_workload_alive(
    keep: AttestedKeepProcess, guest: Guest
) -> None:
    """The keep cannot tell the end, and must not wait for that while the workload runs on."""
    tenant = keep.tenant().attest().deliver(job_of(guest("spew"), limits=Limits(time_ms=300)))
    tenant.channel.send(tenant.session.attach() + tenant.session.run())
    assert select.select([keep.keep.channel.fileno()], [], [], TIMEOUT_S)[0], "the keep lives on"
    assert keep.keep.channel.receive()[0] == Exited(outcome=None)


def test_the_tenant_stops_its_workload(keep: AttestedKeepProcess, guest: Guest) -> None:
    tenant = keep.tenant().attest().deliver(job_of(guest("loop")))
    tenant.channel.send(tenant.session.attach() + tenant.session.run() + tenant.session.stop())
    _, _, ended = tenant.collect()
    assert ended.outcome.ending is Ending.STOPPED


def test_a_tenant_who_left_comes_back_with_its_key(keep: AttestedKeepProcess, guest: Guest) -> None:
    job = job_of(guest("echo"))
    first = keep.tenant().attest().deliver(job)
    first.channel.send(first.session.attach() + first.session.run() + first.session.input(b"before\n"))
    while not isinstance(event := next(first.events), Output):
        pass
    assert event.data == b"before\n"
    first.channel.close()
    digests = workload_digest(job), configuration_digest(job)
    again = keep.tenant(key=first.key, life=resumed_life(Life(AuditLog())), resumed=digests)
    again.channel.send(again.session.hello())
    assert again.accept().binding.stage is Stage.LOCKED
    again.channel.send(again.session.attach() + again.session.input(b"after\n") + again.session.input(b""))
    stdout, _, ended = again.collect()
    assert stdout == b"before\nafter\n"
    assert ended.outcome.code == 0
    assert "reattested" in [record.event for record in ended.audit]


def test_stolen_session_another_key_cannot_attach(keep: AttestedKeepProcess, guest: Guest) -> None:
    job = job_of(guest("echo"))
    tenant = keep.tenant().attest().deliver(job)
    stranger = keep.tenant(key=Ed25519PrivateKey.generate())
    stranger.channel.send(stranger.session.hello())
    problem = next(stranger.events)
    assert isinstance(problem, Problem)
    assert "another tenant" in problem.text
    assert tenant.run(b"still here\n")[0] == b"still here\n"


def test_stolen_session_a_stranger_that_asked_before_the_delivery_is_sent_away(
    keep: AttestedKeepProcess, guest: Guest
) -> None:
    stranger = keep.tenant().attest()
    tenant = keep.tenant().attest().deliver(job_of(guest("echo")))
    with contextlib.suppress(ChannelLost):
        assert stranger.channel.receive(timeout_s=TIMEOUT_S) == b""
    assert tenant.run(b"for my tenant\n")[0] == b"for my tenant\n"


def test_strangers_do_not_push_out_a_tenant_that_is_about_to_deliver(
    keep: AttestedKeepProcess, guest: Guest
) -> None:
    tenant = keep.tenant().attest()
    strangers = [keep.connect() for _ in range(20)]
    assert tenant.deliver(job_of(guest("echo"))).run(b"x")[0] == b"x"
    for sock in strangers:
        sock.close()


def test_a_relayed_challenge_is_refused(keep: AttestedKeepProcess) -> None:
    """A host that ends TLS itself and passes the tenant's messages on to a genuine keep."""
    victim = keep.tenant()
    relay = Channel(keep.connect())
    relay.send(victim.session.hello())
    assert b"does not hold the key" in relay.receive(timeout_s=TIMEOUT_S)


def test_garbage_instead_of_tls_harms_nobody(keep: AttestedKeepProcess, guest: Guest) -> None:
    with keep.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(4096):  # an alert perhaps, then the end
                pass
    assert keep.tenant().attest().deliver(job_of(guest("echo"))).run(b"x")[0] == b"x"


def test_garbage_inside_tls_ends_only_that_connection(keep: AttestedKeepProcess, guest: Guest) -> None:
    channel = Channel(keep.connect())
    channel.send(frame(b"\xff" * 10))
    assert b"not CBOR" in channel.receive(timeout_s=TIMEOUT_S)
    assert keep.tenant().attest().deliver(job_of(guest("echo"))).run(b"x")[0] == b"x"


def test_a_tenant_that_breaks_the_protocol_before_it_runs_ends_the_keep(keep: AttestedKeepProcess) -> None:
    tenant = keep.tenant().attest()
    tenant.channel.send(frame(b"\x81\x04"))  # Run, with nothing delivered
    problem = next(tenant.events)
    assert isinstance(problem, Problem)
    assert "run is not possible in state attested" in problem.text
    assert isinstance(keep.keep.channel.receive()[0], Exited)


def test_silent_connections_make_room_for_a_tenant(keep: AttestedKeepProcess, guest: Guest) -> None:
    silent = [keep.connect() for _ in range(20)]
    assert keep.tenant().attest().deliver(job_of(guest("echo"))).run(b"x")[0] == b"x"
    for sock in silent:
        sock.close()


def test_a_delivery_by_the_host_is_refused(keep: AttestedKeepProcess, guest: Guest) -> None:
    """What the host sends on its channel after the admission is never read as a workload."""
    keep.keep.channel.send(Deliver(header=None, size=0))
    assert keep.tenant().attest().deliver(job_of(guest("echo"))).run(b"x")[0] == b"x"


def test_a_host_that_goes_away_ends_the_keep(keep: AttestedKeepProcess) -> None:
    tenant = keep.tenant().attest()
    keep.keep.channel.close()
    with contextlib.suppress(ChannelLost):
        assert tenant.channel.receive(timeout_s=TIMEOUT_S) == b""
    assert keep.keep.wait() == 0


def test_a_killed_keep_is_noticed_by_its_tenant(keep: AttestedKeepProcess, guest: Guest) -> None:
    tenant = keep.tenant().attest().deliver(job_of(guest("loop")))
    tenant.channel.send(tenant.session.attach() + tenant.session.run())
    os.kill(keep.keep.pid, signal.SIGKILL)
    with pytest.raises((ChannelLost, AssertionError)):
        tenant.collect()


def test_a_second_admission_is_not_obeyed(keep: AttestedKeepProcess, guest: Guest) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        keep.keep.channel.send(Admit(), [theirs.fileno()])
        assert keep.tenant().attest().deliver(job_of(guest("echo"))).run(b"x")[0] == b"x"


def test_a_keep_without_a_platform_does_not_come_to_life() -> None:
    with AttestedKeepProcess() as keep:
        keep.platform.shutdown(socket.SHUT_RDWR)
        item, _ = keep.keep.channel.receive()
        assert isinstance(item, Exited)
        assert isinstance(item.outcome, list)
        assert item.outcome[0] == Ending.UNAVAILABLE.value
        with pytest.raises(ChannelClosed):
            keep.keep.channel.receive()


def test_each_keep_has_a_key_and_an_instance_of_its_own() -> None:
    seen: set[bytes] = set()
    for _ in range(3):
        with AttestedKeepProcess() as keep:
            tenant: Tenant = keep.tenant().attest()
            assert tenant.session.instance is not None
            seen |= {tenant.session.instance, tenant.channel.keep_key}
    assert len(seen) == 6
