"""Keeps on emulated platforms that attest before boot: prepared, launched, given a secret and proved in a session."""

from __future__ import annotations

import array
import contextlib
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.integration.attested_keep import Tenant
from tests.integration.test_emulator_kinds import running

from enarx.api.keep_image import Image
from enarx.attest import Claims, Collateral, Document, EvidenceRejected, Kind, Tee
from enarx.host.backend import LaunchRequest
from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.sallyport.items import Admit
from enarx.tcb.sallyport.socket_channel import SocketChannel
from enarx.tcb.session import Attested
from enarx.tcb.workload import Ending, Job
from enarx.tenant.channel import Channel
from enarx.tenant.image import build_image, reference_measurement
from enarx.tenant.kept_launch import KeptLaunch, parse_kept
from enarx.tenant.launch import Prepared, prepare
from enarx.tenant.verification import Trust
from enarx_emulator.backend import EmulatedBackend, EmulatedKeep
from enarx_emulator.errors import Refused

KINDS = ("sev", "sev-es", "pef")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Image]:
    """The image of this installation."""
    path = tmp_path_factory.mktemp("image") / "keep.tar"
    return path, build_image(path)


class Machine:
    """One platform, its owner's image, and a tenant who trusts the platform's root."""

    def __init__(self, state: Path, path: Path, image: Image) -> None:
        self.backend = EmulatedBackend(str(state))
        self.path, self.image = path, image
        found = self.backend.endorsements()
        self.collateral = Collateral(
            documents=tuple(Document(Kind(kind), data) for kind, data in found.documents)
        )
        own = found.roots or tuple(data for _, data in found.documents)
        self.trust = Trust.release(image, roots={"the emulated one": own[0]})
        self._open = contextlib.ExitStack()

    def prepare(self, image: Image | None = None) -> Prepared:
        """What a tenant does first."""
        return prepare(
            Tee(self.backend.tee),
            self.collateral,
            image or self.image,
            anchors=self.trust.anchors,
            policy=self.trust.policy,
            now=datetime.now(UTC),
        )

    def launch(self, prepared: Prepared) -> EmulatedKeep:
        """What the host does with it."""
        keep = self.backend.launch(LaunchRequest(image=self.path, tenant=prepared.tenant))
        self._open.callback(keep.stop)
        return keep

    def ready(self, prepared: Prepared) -> socket.socket:
        """Launch it, give it its secret, and give the door of the keep."""
        keep = self.launch(prepared)
        packet = prepared.answer(keep.launch)
        if packet:
            keep.secret(packet)
        assert keep.channel is not None
        door, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._open.enter_context(door)
        with inside:
            SocketChannel(keep.channel).send(Admit(), [inside.fileno()])
        return door

    def connect(self, door: socket.socket) -> socket.socket:
        """A connection of a tenant, handed to the keep."""
        ours, theirs = socket.socketpair()
        self._open.enter_context(ours)
        with theirs:
            rights = array.array("i", [theirs.fileno()])
            door.sendmsg([b"t"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        return ours

    def tenant(self, prepared: Prepared | KeptLaunch, door: socket.socket) -> JudgingTenant:
        """A tenant on a new connection."""
        return JudgingTenant(Channel(self.connect(door)), machine=self, prepared=prepared)

    def close(self) -> None:
        """End all keeps."""
        self._open.close()
        self.backend.close()


class JudgingTenant(Tenant):
    """One who asks the verifier, and trusts nothing else."""

    def __init__(
        self, channel: Channel, *, machine: Machine, prepared: Prepared | KeptLaunch, **options: Any
    ) -> None:
        super().__init__(channel, b"", **options)
        self.machine, self.prepared = machine, prepared
        self.claims: list[Claims] = []

    def accept(self) -> Attested:
        """Judge the next evidence and accept it."""
        event = next(self.events)
        assert isinstance(event, Attested), event
        claims = self.judge(event.evidence, event)
        self.claims.append(claims)
        self.session.accept(claims.report_data)
        return event

    def judge(self, shown: bytes, event: Attested) -> Claims:
        """What the policy of this release says of it."""
        return self.machine.trust.judge(
            self.prepared.evidence(shown),
            self.machine.collateral,
            event.binding,
            now=datetime.now(UTC),
            launch=self.prepared.session,
        )


@pytest.fixture(scope="module", params=KINDS)
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A platform of each kind as a process of its own."""
    state = tmp_path_factory.mktemp(request.param) / "state"
    with running(request.param, state):
        yield state


@pytest.fixture
def machine(platform: Path, image: tuple[Path, Image]) -> Iterator[Machine]:
    """A host and a tenant on it."""
    machine = Machine(platform, *image)
    yield machine
    machine.close()


@pytest.mark.timeout(300)
def test_a_keep_of_a_machine_that_attests_before_boot_proves_itself_in_a_session(
    machine: Machine, guest: Callable[[str], Path]
) -> None:
    prepared = machine.prepare()
    tenant = machine.tenant(prepared, machine.ready(prepared))
    tenant.attest()
    stdout, _, ended = tenant.deliver(Job(module=guest("echo").read_bytes())).run(
        b"through a real platform\n"
    )
    assert (stdout, ended.outcome.ending) == (b"through a real platform\n", Ending.EXITED)
    empty, locked = tenant.claims
    assert {empty.tee.value, locked.tee.value} == {machine.backend.tee}
    assert empty.measurement == locked.measurement == reference_measurement(machine.image, empty.tee)
    assert empty.report_data != locked.report_data
    assert empty.bound
    assert locked.bound
    assert "launch.proof" in {check.name for check in locked.checks}
    assert not locked.root.is_vendor


@pytest.mark.timeout(300)
def test_a_tenant_returns_with_what_it_kept(machine: Machine) -> None:
    prepared = machine.prepare()
    door = machine.ready(prepared)
    assert prepared.kept is not None
    kept = parse_kept(prepared.kept.pack())
    tenant = machine.tenant(kept, door)
    tenant.attest()
    assert [claims.bound for claims in tenant.claims] == [True]


@pytest.mark.timeout(300)
def test_a_launch_is_answered_once(machine: Machine) -> None:
    prepared = machine.prepare()
    keep = machine.launch(prepared)
    packet = prepared.answer(keep.launch)
    if machine.backend.tee == "pef":
        assert packet == b""
        return
    with pytest.raises(ProtocolViolation, match="answered"):
        prepared.answer(keep.launch)


@pytest.mark.timeout(300)
def test_the_proof_of_another_launch_is_refused(machine: Machine) -> None:
    """The host launches twice, and shows the tenant of the one what the other answers to the same challenge."""
    mine, other = machine.prepare(), machine.prepare()
    machine.ready(mine)
    tenant = machine.tenant(mine, machine.ready(other))
    tenant.channel.send(tenant.session.hello())
    with pytest.raises(EvidenceRejected) as refused:
        tenant.accept()
    assert refused.value.check.name == "launch.proof"


@pytest.mark.timeout(300)
def test_a_proof_of_another_session_is_refused(machine: Machine) -> None:
    prepared = machine.prepare()
    door = machine.ready(prepared)
    first, second = machine.tenant(prepared, door), machine.tenant(prepared, door)
    first.channel.send(first.session.hello())
    second.channel.send(second.session.hello())
    shown, asked = (next(tenant.events) for tenant in (first, second))
    assert isinstance(shown, Attested)
    assert isinstance(asked, Attested)
    assert first.judge(shown.evidence, shown).bound
    with pytest.raises(EvidenceRejected) as refused:
        second.judge(shown.evidence, asked)
    assert refused.value.check.name == "binding.report_data"


@pytest.mark.timeout(300)
def test_another_image_gets_no_secret(machine: Machine) -> None:
    prepared = machine.prepare(Image(manifest=machine.image.manifest + b"\n", size=0))
    if machine.backend.tee == "pef":
        with pytest.raises(Refused, match="kernel"):
            machine.launch(prepared)
        return
    keep = machine.launch(prepared)
    with pytest.raises(EvidenceRejected) as refused:
        prepared.answer(keep.launch)
    assert refused.value.check.name == "sev.measure"


def test_a_platform_of_a_root_that_nobody_named_is_refused(machine: Machine) -> None:
    machine.trust = Trust.release(machine.image)
    with pytest.raises(EvidenceRejected) as refused:
        machine.prepare()
    assert refused.value.check.name in ("sev.chain.root", "pef.machine")
