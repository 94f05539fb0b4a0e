"""What an owner gives to a launch beside the image stands in the evidence, and a wrong name starts nothing.

The agent gives nothing of the kind; these tests launch without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.hardware.target import Agent, Target, shows
from tests.integration.attested_keep import Tenant
from tests.integration.vm_keep import Machine

from enarx.api.vm_image import SNP_POLICY, VmImage
from enarx.attest import AuthenticityOnly, Claims, Verifier, registry
from enarx.attest.measure import IdBlock, build_id_auth
from enarx.attest.snp import SnpDetail
from enarx.attest.tdx import TdxDetail
from enarx.host.backend import Backend, Launched, LaunchRequest
from enarx.host.backends._machine import memory_encryption
from enarx.host.backends.snp import SnpBackend, SnpLaunch
from enarx.host.backends.tdx import TdxBackend, TdxLaunch
from enarx.host.platform._machine import this_machine
from enarx.host.vm import Guest
from enarx.tcb.errors import EnarxError
from enarx.tcb.session import Attested
from enarx.tenant.agent_client import AgentClient
from enarx.tenant.channel import Channel
from enarx.tenant.endorsement import collateral_for, read_platform
from enarx_emulator.backend import EmulatedBackend, EmulatedKeep

pytestmark = pytest.mark.timeout(600)
HOST_DATA = bytes(range(32))
FAMILY, IMAGE, SVN = b"enarx-family-123", b"enarx--image-456", 7
OWNED = {"mr_config_id": b"c" * 48, "mr_owner": b"o" * 48, "mr_owner_config": b"p" * 48}


class OwnedSnp(SnpBackend):
    """SNP with what an owner gives."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__("")
        self._given = given

    def guest(self, image: VmImage) -> Guest:
        c_bit, reduced = memory_encryption(this_machine())
        launch = SnpLaunch(c_bit=c_bit, reduced_bits=reduced, **self._given)
        return Guest(cmdline=image.cmdline, objects=launch.objects())


class OwnedTdx(TdxBackend):
    """TDX with what an owner gives."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__("")
        self._given = given

    def objects(self) -> Sequence[str]:
        return TdxLaunch(**self._given).objects()


class OwnedEmulated(EmulatedBackend):
    """The same on an emulated platform, which is told in the words of its firmware."""

    def __init__(self, state: str, given: Mapping[str, Any]) -> None:
        super().__init__(state)
        words = {"author_key": "auth_key_en"}
        self._given = {words.get(name, name): value for name, value in given.items()}

    def launch(self, request: LaunchRequest) -> EmulatedKeep:
        self.prepare(request.image)
        launched = self.command("launch", image=self._images[request.image], **self._given)
        guest = launched["guest"]
        assert isinstance(guest, int)
        keep = EmulatedKeep(self, guest)
        keep.start()
        return keep


def owned(target: Target, given: Mapping[str, Any]) -> Backend:
    if target.emulated is not None:
        return OwnedEmulated(str(target.emulated), given)
    return {"snp": OwnedSnp, "tdx": OwnedTdx}[target.kind.backend](given)


@contextlib.contextmanager
def launched(target: Target, given: Mapping[str, Any]) -> Iterator[Launched]:
    """A keep whose launch got ``given``."""
    backend = owned(target, given)
    try:
        keep = backend.launch(LaunchRequest(image=target.image.kernel.parent))
        try:
            yield keep
        finally:
            keep.stop()
    finally:
        backend.close()


class Curious(Tenant):
    """A tenant who wants to know what a keep is, and appraises nothing."""

    def __init__(self, channel: Channel, agent: Agent) -> None:
        super().__init__(channel, b"")
        self._agent = agent
        self.claims: Claims

    def accept(self) -> Attested:
        event = next(self.events)
        assert isinstance(event, Attested), event
        tee = self._agent.target.kind.tee.value
        with AgentClient(self._agent.address) as client:
            told = read_platform(client.platform(tee), tee)
        verifier = Verifier(
            tees=registry.select(registry.BUILTIN),
            anchors=self._agent.trust.anchors,
            policy=AuthenticityOnly(),
        )
        self.claims = verifier.verify(
            event.evidence,
            collateral=collateral_for(self._agent.target.collateral, told)(event.evidence),
            binding=event.binding.report_data(),
            now=datetime.now(UTC),
        )
        self.session.accept(self.claims.report_data)
        return event


def claims_of(target: Target, agent: Agent, given: Mapping[str, Any]) -> Claims:
    """What the evidence of a keep says whose launch got ``given``."""
    with launched(target, given) as keep:
        assert keep.channel is not None
        machine = Machine(keep.channel)
        try:
            tenant = Curious(Channel(machine.connect()), agent)
            tenant.attest()
        finally:
            machine.close()
    assert shows(tenant.claims, target.expected)
    return tenant.claims


def named(target: Target, digest: bytes) -> dict[str, Any]:
    """An ID block for this digest, signed by an ID key which an author's key signed."""
    block = IdBlock(launch_digest=digest, family_id=FAMILY, image_id=IMAGE, guest_svn=SVN, policy=SNP_POLICY)
    id_key, author = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    auth = build_id_auth(block, id_key, author)
    return {"id_block": block.pack(), "id_auth": auth, "author_key": True, "host_data": HOST_DATA}


@pytest.mark.tees("snp")
def test_host_data_and_id_block_stand_in_the_report(target: Target, agent: Agent) -> None:
    claims = claims_of(target, agent, named(target, target.expected["measurement"][0]))
    assert isinstance(claims.detail, SnpDetail)
    report = claims.detail.report
    assert report.host_data == HOST_DATA
    assert (report.family_id, report.image_id, report.guest_svn) == (FAMILY, IMAGE, SVN)
    assert any(report.id_key_digest)
    assert any(report.author_key_digest)


@pytest.mark.tees("snp")
def test_an_id_block_of_another_image_starts_nothing(target: Target) -> None:
    with pytest.raises(EnarxError), launched(target, named(target, bytes(48))):
        raise AssertionError("it was launched")


@pytest.mark.tees("tdx")
def test_the_identities_of_owner_and_configuration_stand_in_the_quote(target: Target, agent: Agent) -> None:
    claims = claims_of(target, agent, OWNED)
    assert isinstance(claims.detail, TdxDetail)
    found = {name: getattr(claims.detail.report, name) for name in OWNED}
    assert found == OWNED
