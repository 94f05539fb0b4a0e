"""A hostile host loses nothing but availability: each test is an attack, and what the tenant makes of it."""

from __future__ import annotations

import dataclasses
import json
import socket
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from OpenSSL import SSL
from tests.integration.deploy_host import EmulatedHost
from tests.integration.hostile_host import (
    Answer,
    HostileHost,
    Impostor,
    genuine_evidence,
    join,
)

from enarx.attest import EvidenceRejected
from enarx.tcb.binding import Stage
from enarx.tcb.errors import EnarxError, ProtocolViolation
from enarx.tcb.keep.tls import self_signed, server_context
from enarx.tcb.record import replace
from enarx.tcb.session._messages import Attestation
from enarx.tcb.wire import encode
from enarx.tcb.workload import Secret
from enarx.tenant import conversation
from enarx.tenant.agent_calls import HostMisbehaved
from enarx.tenant.agent_client import AgentClient
from enarx.tenant.channel import ChannelLost
from enarx.tenant.conversation import KeepRefused
from enarx.tenant.credentials import Credential, Credentials
from enarx.tenant.deployment import deploy, start
from enarx.tenant.keep import Keep
from enarx.tenant.package import Package
from enarx.tenant.secret_source import SecretSource
from enarx.tenant.upgrade import open_channel
from enarx.tenant.verification import Trust

ECHO = """(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 0))))"""
FOREVER = """(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    """A machine with its agent, both honest."""
    with EmulatedHost(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture(scope="module")
def trust(host: EmulatedHost) -> Trust:
    """What the tenant trusts: this release, and the emulated vendor."""
    return host.trust()


@pytest.fixture
def hostile(host: EmulatedHost) -> Iterator[HostileHost]:
    """A host that lies."""
    with HostileHost(host.address) as hostile:
        yield hostile


@pytest.fixture(scope="module")
def package() -> Package:
    """A workload that ends at once."""
    return package_of(ECHO)


def package_of(text: str) -> Package:
    from wasmtime import wat2wasm

    return Package(name="test", module=bytes(wat2wasm(text)))


class Bait:
    """A secret that knows whether it was read: it must not be unless a keep was accepted."""

    def __init__(self) -> None:
        self.taken = False

    @property
    def source(self) -> SecretSource:
        return SecretSource(name="bait", read=self._read)

    def _read(self) -> bytes:
        self.taken = True
        return b"bait"


def rejected(
    hostile: HostileHost, package: Package, trust: Trust, kind: type[EnarxError] = EnarxError
) -> EnarxError:
    """Deploy, which must fail before the secret is even read."""
    bait = Bait()
    with pytest.raises(kind) as caught:
        deploy(package, hostile.address, trust=trust, secrets=[bait.source])
    assert not bait.taken
    return caught.value


def test_what_only_passes_on_is_no_attack(hostile: HostileHost, package: Package, trust: Trust) -> None:
    """The other tests mean something only if this one passes."""
    bait = Bait()
    assert deploy(package, hostile.address, trust=trust, secrets=[bait.source]).outcome.code == 0
    assert bait.taken


def test_relay_of_genuine_evidence_by_a_host_in_the_middle(
    hostile: HostileHost, package: Package, trust: Trust
) -> None:
    """A44, diversion: TLS ends at the host; a genuine keep attests to it with the tenant's own nonce."""

    def channel(client: socket.socket, keep: str) -> None:
        impostor = Impostor(client)
        impostor.say(genuine_evidence(hostile.real, keep, nonce=impostor.hello().nonce))
        impostor.hear()

    hostile.channel = channel
    error = rejected(hostile, package, trust, EvidenceRejected)
    assert isinstance(error, EvidenceRejected)
    assert error.check.name == "binding.report_data"


def test_replay_of_evidence_of_an_earlier_session(
    host: EmulatedHost, hostile: HostileHost, package: Package, trust: Trust
) -> None:
    with AgentClient(host.address) as agent:
        kept = agent.create("snp")
        old = genuine_evidence(host.address, kept.id, nonce=bytes(32))
        agent.stop(kept.id)

    def channel(client: socket.socket, keep: str) -> None:
        impostor = Impostor(client)
        impostor.hello()
        impostor.say(old)
        impostor.hear()

    hostile.channel = channel
    error = rejected(hostile, package, trust, EvidenceRejected)
    assert isinstance(error, EvidenceRejected)
    assert error.check.name == "binding.report_data"


def test_evidence_of_the_wrong_stage(hostile: HostileHost, package: Package, trust: Trust) -> None:
    """A keep that is locked already holds somebody's workload."""

    def channel(client: socket.socket, keep: str) -> None:
        impostor = Impostor(client)
        found = genuine_evidence(hostile.real, keep, nonce=impostor.hello().nonce)
        impostor.say(replace(found, stage=Stage.LOCKED, workload=bytes(32), configuration=bytes(32)))
        impostor.hear()

    hostile.channel = channel
    assert "expected empty" in str(rejected(hostile, package, trust, ProtocolViolation))


def test_a_keep_that_names_a_workload_while_it_must_be_empty(
    hostile: HostileHost, package: Package, trust: Trust
) -> None:
    """Swapped workload: something is inside already."""

    def channel(client: socket.socket, keep: str) -> None:
        impostor = Impostor(client)
        found = genuine_evidence(hostile.real, keep, nonce=impostor.hello().nonce)
        impostor.say(replace(found, workload=bytes(32)))
        impostor.hear()

    hostile.channel = channel
    assert "another workload" in str(rejected(hostile, package, trust, ProtocolViolation))


@pytest.mark.parametrize(
    "evidence", [b"\0", b"garbage" * 100, bytes(1 << 20)], ids=["byte", "text", "megabyte"]
)
def test_garbage_for_evidence(hostile: HostileHost, package: Package, trust: Trust, evidence: bytes) -> None:
    def channel(client: socket.socket, keep: str) -> None:
        impostor = Impostor(client)
        impostor.hello()
        impostor.say(
            Attestation(
                stage=Stage.EMPTY, instance=bytes(16), workload=b"", configuration=b"", evidence=evidence
            )
        )
        impostor.hear()

    hostile.channel = channel
    rejected(hostile, package, trust)


def test_text_of_a_hostile_keep_cannot_drive_a_terminal(
    hostile: HostileHost, package: Package, trust: Trust
) -> None:
    def channel(client: socket.socket, keep: str) -> None:
        impostor = Impostor(client)
        impostor.hello()
        impostor.send(encode([20, "\x1b[2Jno", "\x07"]))
        impostor.hear()

    hostile.channel = channel
    error = rejected(hostile, package, trust)
    assert (str(error) + error.hint).isprintable()


def test_evidence_of_another_image(host: EmulatedHost, package: Package, hostile: HostileHost) -> None:
    """A genuine keep of a changed image is not what this release's policy accepts."""
    policy = 'version = 1\n[snp]\nmeasurement = ["' + "ab" * 48 + '"]\nvendor_root = "any"\n'
    trust = Trust(policy_text=policy, roots=host.trust().roots)
    error = rejected(hostile, package, trust, EvidenceRejected)
    assert "measurement" in str(error)


def test_an_emulated_root_that_the_tenant_did_not_name(
    host: EmulatedHost, package: Package, hostile: HostileHost
) -> None:
    """The host sends its roots along; that makes them nobody's."""
    from enarx.tenant.deployment import release_image

    rejected(hostile, package, Trust.release(release_image()), EvidenceRejected)


def test_downgrade_of_tls(hostile: HostileHost, package: Package, trust: Trust) -> None:
    why: SimpleQueue[str] = SimpleQueue()

    def channel(client: socket.socket, keep: str) -> None:
        context = server_context(self_signed("keep", now=datetime.now(UTC)))
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        client.setblocking(True)
        connection = SSL.Connection(context, client)
        connection.set_accept_state()
        try:
            connection.do_handshake()
        except SSL.Error as error:
            why.put(str(error))

    hostile.channel = channel
    rejected(hostile, package, trust, ChannelLost)
    assert "unsupported protocol" in why.get(timeout=30)


def test_a_host_that_swallows_everything_costs_only_time(
    hostile: HostileHost, package: Package, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    def channel(client: socket.socket, keep: str) -> None:
        impostor = Impostor(client)
        impostor.hello()
        impostor.hear()

    monkeypatch.setattr(conversation, "EVIDENCE_TIMEOUT_S", 0.2)
    hostile.channel = channel
    assert "in time" in str(rejected(hostile, package, trust, ChannelLost))


# The stolen session.


@pytest.fixture
def left(host: EmulatedHost, trust: Trust, tmp_path: Path) -> Iterator[Credential]:
    """A keep that was left running."""
    credential = start(
        package_of(FOREVER), host.address, trust=trust, credentials=Credentials(tmp_path / "keeps")
    )
    yield credential
    Keep.of(credential, trust).discard()


def test_session_stolen_by_whoever_knows_all_but_the_key(left: Credential, trust: Trust) -> None:
    thief = Keep.of(dataclasses.replace(left, key=bytes(range(32))), trust)
    with pytest.raises(KeepRefused, match="another tenant"):
        thief.attach()
    assert Keep.of(left, trust).evidence().stage is Stage.LOCKED


def test_diversion_to_another_keep_of_the_same_tenant(
    host: EmulatedHost, hostile: HostileHost, left: Credential, trust: Trust, tmp_path: Path
) -> None:
    other = start(package_of(FOREVER), host.address, trust=trust, credentials=Credentials(tmp_path / "other"))
    hostile.channel = lambda client, keep: join(client, open_channel(host.address, other.keep))
    with pytest.raises(EnarxError):
        Keep.of(left, trust, host=hostile.address).evidence()
    Keep.of(other, trust).discard()


def test_diversion_of_a_returning_tenant_to_a_fresh_keep(
    host: EmulatedHost, hostile: HostileHost, left: Credential, trust: Trust
) -> None:
    with AgentClient(host.address) as agent:
        fresh = agent.create("snp").id
        hostile.channel = lambda client, keep: join(client, open_channel(host.address, fresh))
        with pytest.raises(ProtocolViolation, match="expected locked"):
            Keep.of(left, trust, host=hostile.address).attach(stdin=b"for the old keep alone")
        agent.stop(fresh)


@pytest.mark.parametrize("name", ["workload", "configuration", "instance"])
def test_a_keep_that_is_not_the_one_remembered(left: Credential, trust: Trust, name: str) -> None:
    """Swapped workload, seen by a tenant who returns."""
    others: dict[str, Any] = {name: bytes(len(getattr(left, name)))}
    keep = Keep.of(dataclasses.replace(left, **others), trust)
    with pytest.raises(EnarxError, match="another"):
        keep.evidence()


# The host's interface.


def changed(hostile: HostileHost, path: str, **fields: object) -> None:
    """Have the host answer for ``path`` with other fields."""

    def answer(method: str, asked: str, given: Answer) -> Answer:
        if asked != path:
            return given
        status, headers, body = given
        return status, headers, json.dumps(json.loads(body) | fields).encode()

    hostile.answer = answer


def test_host_says_another_tee_than_asked_for(hostile: HostileHost, package: Package, trust: Trust) -> None:
    changed(hostile, "/v1/keeps", tee="sgx")
    rejected(hostile, package, trust, HostMisbehaved)


def test_host_names_a_keep_by_a_path(hostile: HostileHost, package: Package, trust: Trust) -> None:
    changed(hostile, "/v1/keeps", id="../../../etc/passwd")
    assert "32 hex digits" in str(rejected(hostile, package, trust, HostMisbehaved))


def test_host_offers_what_it_does_not_have(hostile: HostileHost, package: Package, trust: Trust) -> None:
    fact = {"name": "tdx", "tee": "tdx", "emulated": False, "ready": True, "facts": []}
    changed(hostile, "/v1/info", backends=[fact])
    rejected(hostile, package, trust)


def test_host_adds_a_field(hostile: HostileHost, package: Package, trust: Trust) -> None:
    changed(hostile, "/v1/info", debug=True)
    assert "malformed" in str(rejected(hostile, package, trust, HostMisbehaved))


def test_host_keeps_collateral_back(hostile: HostileHost, package: Package, trust: Trust) -> None:
    changed(hostile, "/v1/platforms/snp", certificates=[], crls=[])
    rejected(hostile, package, trust)


def test_host_redirects(hostile: HostileHost, package: Package, trust: Trust) -> None:
    hostile.answer = lambda method, path, given: (307, {"Location": "http://127.0.0.1:9/"}, b"")
    assert "status 307" in str(rejected(hostile, package, trust, HostMisbehaved))


def test_host_returns_the_channel_of_another_keep(
    host: EmulatedHost, hostile: HostileHost, left: Credential, package: Package, trust: Trust
) -> None:
    hostile.channel = lambda client, keep: join(client, open_channel(host.address, left.keep))
    assert "another tenant" in str(rejected(hostile, package, trust, KeepRefused))


def test_what_fails_is_ended(hostile: HostileHost, package: Package, trust: Trust) -> None:
    hostile.channel = lambda client, keep: client.close()
    rejected(hostile, package, trust, ChannelLost)
    assert any(line.startswith("DELETE /v1/keeps/") for line in hostile.asked)


# The bytes of the channel.


class Tampering:
    """Changes the bytes of one direction once some have passed."""

    def __init__(self, kind: str, after: int) -> None:
        self._kind = kind
        self._left = after
        self._held = b""

    def __call__(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left > 0 or not data:
            return data
        self._left = 1 << 60
        match self._kind:
            case "truncated":
                return data[: len(data) // 2]
            case "duplicated":
                return data + data
            case "reordered":
                middle = len(data) // 2
                return data[middle:] + data[:middle]
            case "flipped":
                return data[:-1] + bytes([data[-1] ^ 1])
        return b""  # dropped


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("kind", ["duplicated", "reordered", "flipped"])
@pytest.mark.parametrize("after", [1, 1000, 4000], ids=["handshake", "challenge", "evidence"])
def test_changed_bytes_on_the_channel_end_it(
    hostile: HostileHost, trust: Trust, direction: str, kind: str, after: int
) -> None:
    """TLS notices; whatever the moment, the workload does not run to an end that the tenant believes."""
    tampering = Tampering(kind, after)
    hostile.channel = lambda client, keep: join(
        client,
        open_channel(hostile.real, keep),
        up=tampering if direction == "up" else bytes,
        down=tampering if direction == "down" else bytes,
    )
    package = dataclasses.replace(package_of(ECHO), config=b"# " + b"x" * 8000)
    with pytest.raises(EnarxError):
        deploy(package, hostile.address, trust=trust)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_truncated_channel_is_no_end(hostile: HostileHost, trust: Trust, direction: str) -> None:
    def channel(client: socket.socket, keep: str) -> None:
        passed = 0

        def cut(data: bytes) -> bytes:
            nonlocal passed
            passed += len(data)
            if passed > 3000:
                client.shutdown(socket.SHUT_RDWR)
                return b""
            return data

        keep_end = open_channel(hostile.real, keep)
        join(
            client,
            keep_end,
            up=cut if direction == "up" else bytes,
            down=cut if direction == "down" else bytes,
        )

    hostile.channel = channel
    package = dataclasses.replace(package_of(ECHO), config=b"# " + b"x" * 8000)
    with pytest.raises(ChannelLost):
        deploy(package, hostile.address, trust=trust)


def test_no_traceback_of_a_cut_delivery_shows_a_secret(hostile: HostileHost, trust: Trust) -> None:
    """A36: not even one that shows all variables."""
    canary = b"canary-5d0f3c"
    passed = 0

    def cut(data: bytes) -> bytes:
        nonlocal passed
        passed += len(data)
        if passed > 20_000:
            raise OSError("cut")
        return data

    hostile.channel = lambda client, keep: join(client, open_channel(hostile.real, keep), up=cut)
    package = dataclasses.replace(package_of(ECHO), config=b"# " + b"x" * 900_000)
    secrets = [Secret(name="token", value=canary), Secret(name="large", value=canary * 10_000)]
    with pytest.raises(ChannelLost) as caught:
        deploy(package, hostile.address, trust=trust, secrets=secrets)
    assert caught.tb.tb_next is not None  # below this function, which knows the canary
    error = traceback.TracebackException(ChannelLost, caught.value, caught.tb.tb_next, capture_locals=True)
    shown = error.format()
    assert canary.decode() not in "".join(shown)
    assert passed > 20_000
