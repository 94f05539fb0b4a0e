"""Deployments as tenants make them, with real agents, platforms and keeps."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.integration.deploy_host import EmulatedHost

from enarx.attest import Collateral
from enarx.tcb.errors import EnarxError, Malformed, Unavailable
from enarx.tcb.workload import Ending, Limits, Secret
from enarx.tenant import aio
from enarx.tenant.agent_calls import HostAddress, HostUnreachable, NotAllowed, QuotaReached
from enarx.tenant.agent_client import AgentClient, AsyncAgentClient
from enarx.tenant.audit import LOG, AuditFile
from enarx.tenant.audit_replay import replay
from enarx.tenant.conversation import KeepRefused
from enarx.tenant.credentials import Credentials
from enarx.tenant.deployment import deploy, release_image, start
from enarx.tenant.endorsement import read_platform
from enarx.tenant.keep import Keep, is_over
from enarx.tenant.package import Package
from enarx.tenant.secret_source import SecretSource
from enarx.tenant.steps import Step, What
from enarx.tenant.streams import Interrupt, Interrupted
from enarx.tenant.verification import Trust

KINDS = ("sev", "sev-es", "snp", "sgx", "tdx", "pef")
CANARY = b"canary-3f1c9a7e5b2d4860"
HELLO_AND_STAY = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\08\\00\\00\\00\\06\\00\\00\\00hello\\n")
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))
    (loop $again (br $again))))"""
FOREVER = """(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    """A machine with its agent."""
    with EmulatedHost(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture(scope="module")
def trust(host: EmulatedHost) -> Trust:
    return host.trust()


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials(tmp_path / "keeps")


@pytest.fixture(scope="module")
def rot13(example: Callable[[str], Path]) -> Path:
    return example("rot13")


def module(text: str) -> Package:
    from wasmtime import wat2wasm

    return Package(name="test", module=bytes(wat2wasm(text)))


def test_the_same_workload_on_every_tee_gives_the_same_output(tmp_path: Path, rot13: Path) -> None:
    with EmulatedHost(tmp_path, KINDS) as host:
        trust = host.trust()
        for kind in KINDS:
            with AuditFile(tmp_path / "audit") as audit:
                result = deploy(rot13, host.address, trust=trust, tee=kind, stdin=b"uryyb", audit=audit)
            assert (result.stdout, result.outcome.code) == (b"hello", 0), kind
            assert [verdict.claims.tee.value for verdict in result.verdicts] == [kind, kind]
            left = start(
                rot13, host.address, trust=trust, tee=kind, credentials=Credentials(tmp_path / "keeps")
            )
            with AuditFile(tmp_path / "audit") as audit:
                returned = replace(Keep.of(left, trust), audit=audit).attach()
            assert returned.outcome.code == 0, kind
        played = replay(tmp_path / "audit", head=audit.head)
        assert len(played.verdicts) == 3 * len(KINDS)
        assert all(verdict.same and verdict.again == "accepted" for verdict in played.verdicts)


def test_steps_are_told_in_order(host: EmulatedHost, trust: Trust, rot13: Path) -> None:
    steps: list[Step] = []
    deploy(rot13, host.address, trust=trust, observer=steps.append)
    told = [step.what for step in steps if step.what is not What.PROGRESS]
    assert told == [
        What.ENDORSED,
        What.CREATED,
        What.CONNECTED,
        What.ACCEPTED,
        What.ACCEPTED,
        What.DELIVERED,
        What.STARTED,
        What.ENDED,
    ]
    assert "NOT a vendor root" in steps[3].facts["root"]


def test_secrets_are_read_only_for_an_accepted_keep_and_arrive(
    host: EmulatedHost, trust: Trust, guest: Callable[[str], Path]
) -> None:
    accepted: list[What] = []
    seen: list[list[What]] = []

    def read() -> bytes:
        seen.append(list(accepted))
        return CANARY

    result = deploy(
        guest("secrets"),
        host.address,
        trust=trust,
        secrets=[SecretSource(name="token", read=read)],
        observer=lambda step: accepted.append(step.what),
    )
    assert f"/run/secrets/token {CANARY.decode()}\n" in result.stdout.decode()
    assert seen == [[What.ENDORSED, What.CREATED, What.CONNECTED, What.ACCEPTED]]


def test_more_than_any_buffer_in_both_directions(host: EmulatedHost, trust: Trust, rot13: Path) -> None:
    """No deadlock when the keep is choked while it sends, and a slow reader holds everything back."""
    sent = b"Uryyb, jbeyq! " * 600_000
    got = io.BytesIO()

    def slow(data: bytes) -> None:
        if got.tell() < 1 << 20:
            time.sleep(0.002)
        got.write(data)

    result = deploy(rot13, host.address, trust=trust, stdin=sent, stdout=slow)
    assert result.outcome.code == 0
    assert got.getvalue() == b"Hello, world! " * 600_000


def test_input_from_a_pipe_is_passed_on_as_it_comes(
    host: EmulatedHost, trust: Trust, guest: Callable[[str], Path]
) -> None:
    reading, writing = os.pipe()
    heard = threading.Event()

    def talk() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            pipe.write(b"one\n")
            heard.wait(30)
            pipe.write(b"two\n")

    def output(data: bytes) -> None:
        parts.append(data)
        heard.set()

    parts: list[bytes] = []
    thread = threading.Thread(target=talk)
    thread.start()
    with os.fdopen(reading, "rb") as stdin:
        result = deploy(guest("echo"), host.address, trust=trust, stdin=stdin, stdout=output)
    thread.join()
    assert b"".join(parts) == b"one\ntwo\n"
    assert parts[0] == b"one\n"
    assert result.stderr == b"8\n"


def test_a_limit_ends_it_and_the_result_says_so(host: EmulatedHost, trust: Trust) -> None:
    result = deploy(module(FOREVER), host.address, trust=trust, limits=Limits(time_ms=200))
    assert result.outcome.ending is Ending.TIME_LIMIT


def test_an_interrupt_ends_the_keep(host: EmulatedHost, trust: Trust) -> None:
    interrupt = Interrupt()
    keeps: list[str] = []

    def watch(step: Step) -> None:
        keeps.extend(text for name, text in step.facts.items() if name == "keep")
        if step.what is What.STARTED:
            interrupt.ring()

    with pytest.raises(Interrupted):
        deploy(module(FOREVER), host.address, trust=trust, observer=watch, interrupt=interrupt)
    with AgentClient(host.address) as agent:
        assert agent.keep(keeps[0]).state.value == "ended"


def test_bad_workloads_cost_no_launch(host: EmulatedHost, trust: Trust, rot13: Path) -> None:
    package = Package(name="bad", module=rot13.read_bytes())
    steps: list[Step] = []
    twice = [Secret(name="a", value=b""), Secret(name="a", value=b"")]
    with pytest.raises(Malformed, match="given twice"):
        deploy(package, host.address, trust=trust, secrets=twice, observer=steps.append)
    with pytest.raises(EnarxError):
        deploy(replace(package, config=b"args = 1"), host.address, trust=trust, observer=steps.append)
    assert {step.what for step in steps} == {What.STOPPED}


def test_a_module_that_is_none_is_the_keeps_word(host: EmulatedHost, trust: Trust) -> None:
    package = Package(name="bad", module=b"\0asm\x01\0\0\0\xff")
    assert deploy(package, host.address, trust=trust).outcome.ending is Ending.MALFORMED


def test_a_component_is_refused_as_what_it_is(host: EmulatedHost, trust: Trust) -> None:
    outcome = deploy(module("(component)"), host.address, trust=trust).outcome
    assert outcome.ending is Ending.UNAVAILABLE
    assert outcome.detail == "this keep runs modules, and this is a component"


def test_only_tees_of_the_policy_are_asked_for(host: EmulatedHost, trust: Trust, rot13: Path) -> None:
    with pytest.raises(Unavailable, match="accepts no nitro"):
        deploy(rot13, host.address, trust=trust, tee="nitro")
    policy = trust.policy_text.split("[snp]")[0] + "[sgx]" + trust.policy_text.split("[sgx]")[1]
    with pytest.raises(Unavailable, match="host offers snp"):
        deploy(rot13, host.address, trust=Trust(policy_text=policy, roots=trust.roots))


def test_nobody_is_there(rot13: Path) -> None:
    with pytest.raises(HostUnreachable):
        deploy(rot13, "http://127.0.0.1:9", trust=Trust.release(release_image()))


def test_collateral_from_elsewhere(host: EmulatedHost, trust: Trust, rot13: Path) -> None:
    """The host is not asked; what the tenant finds is asked for once, and verified like anything."""
    with AgentClient(host.address) as agent:
        told = read_platform(agent.platform("snp"), "snp")
    asked: list[bytes] = []

    def find(evidence: bytes) -> Collateral:
        asked.append(evidence)
        return told

    steps: list[What] = []
    for choice in (find, told):
        result = deploy(
            rot13,
            host.address,
            trust=trust,
            collateral=choice,
            observer=lambda step: steps.append(step.what),
        )
        assert result.outcome.code == 0
    assert len(asked) == 1
    assert What.ENDORSED not in steps
    for nothing in (Collateral.none(), lambda evidence: Collateral.none()):
        with pytest.raises(EnarxError):
            deploy(rot13, host.address, trust=trust, collateral=nothing)


# For asyncio.


def test_asyncio_deploys_many_at_once(host: EmulatedHost, trust: Trust, rot13: Path) -> None:
    async def all_of_them() -> list[bytes]:
        parts: dict[int, list[bytes]] = {number: [] for number in range(6)}

        async def one(number: int) -> bytes:
            async def take(data: bytes) -> None:
                await asyncio.sleep(0)
                parts[number].append(data)

            await aio.deploy(rot13, host.address, trust=trust, stdin=f"n{number}".encode(), stdout=take)
            return b"".join(parts[number])

        return await asyncio.gather(*(one(number) for number in range(6)))

    assert asyncio.run(all_of_them()) == [f"a{number}".encode() for number in range(6)]


def test_a_cancelled_deployment_ends_its_keep(host: EmulatedHost, trust: Trust) -> None:
    async def cancelled() -> str:
        started = asyncio.Event()
        keeps: list[str] = []

        def watch(step: Step) -> None:
            keeps.extend(text for name, text in step.facts.items() if name == "keep")
            if step.what is What.STARTED:
                started.set()

        task = asyncio.create_task(aio.deploy(module(FOREVER), host.address, trust=trust, observer=watch))
        await asyncio.wait_for(started.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with AsyncAgentClient(host.address) as agent:
            return (await agent.keep(keeps[0])).state.value

    assert asyncio.run(cancelled()) == "ended"


# Keeps that are left running.


def test_return_to_a_keep(
    host: EmulatedHost, trust: Trust, rot13: Path, credentials: Credentials, tmp_path: Path
) -> None:
    credential = start(rot13, host.address, trust=trust, credentials=credentials)
    keep = Keep.of(credentials.get(credential.keep), trust)
    assert keep.evidence().binding.workload == credential.workload
    with AuditFile(tmp_path / "audit") as audit:
        result = replace(keep, audit=audit).attach()
    assert (result.stdout, result.outcome.code) == (b"", 0)
    assert [verdict.same for verdict in replay(tmp_path / "audit").verdicts] == [True]
    deadline = time.monotonic() + 60
    while not is_over(keep):
        assert time.monotonic() < deadline
    with pytest.raises(EnarxError):
        keep.attach()


def test_output_that_was_written_meanwhile_is_there(
    host: EmulatedHost, trust: Trust, credentials: Credentials
) -> None:
    credential = start(module(HELLO_AND_STAY), host.address, trust=trust, credentials=credentials)
    keep = Keep.of(credential, trust)
    out = io.BytesIO()
    deadline = time.monotonic() + 60
    while not out.getvalue():
        assert time.monotonic() < deadline
        assert keep.logs(stdout=out) is None
    assert out.getvalue() == b"hello\n"
    again = io.BytesIO()
    assert keep.logs(stdout=again) is None
    assert again.getvalue() == b"hello\n"
    assert keep.stop().ending is Ending.STOPPED


def test_the_end_is_told_to_whoever_waits(
    host: EmulatedHost, trust: Trust, rot13: Path, credentials: Credentials
) -> None:
    credential = start(rot13, host.address, trust=trust, credentials=credentials)
    assert asyncio.run(aio.attach(Keep.of(credential, trust))).outcome.code == 0


def test_only_the_key_opens_a_keep_that_was_left(
    host: EmulatedHost, trust: Trust, credentials: Credentials
) -> None:
    credential = start(module(FOREVER), host.address, trust=trust, credentials=credentials)
    with pytest.raises(KeepRefused, match="belongs to another tenant"):
        Keep.of(replace(credential, key=os.urandom(32)), trust).stop()
    Keep.of(credential, trust).discard()
    assert is_over(Keep.of(credential, trust))


# Tokens, and the host's own TLS.


def test_token_and_tls_of_the_host(tmp_path: Path, rot13: Path) -> None:
    certificate(tmp_path)
    token = "correct-horse"
    (tmp_path / "tokens").write_text(
        f'[me]\ntoken_sha256 = "{sha256(token.encode()).hexdigest()}"\nmax_keeps = 1\n'
    )
    with EmulatedHost(tmp_path, options=["--tokens", str(tmp_path / "tokens")], tls=True) as host:
        url = host.address.url.replace("127.0.0.1", "localhost")
        address = HostAddress.parse(url, token=token, certificates=tmp_path / "host.pem")
        host.address = address
        trust = host.trust()
        sent = b"Uryyb, jbeyq! " * 100_000
        assert deploy(rot13, address, trust=trust, stdin=sent).stdout == b"Hello, world! " * 100_000
        with pytest.raises(HostUnreachable, match=r"certificate|verify"):
            deploy(rot13, HostAddress.parse(url, token=token), trust=trust)
        with pytest.raises(NotAllowed):
            deploy(rot13, replace(address, token="wrong"), trust=trust)
        with AgentClient(address) as agent:
            agent.create("snp")
            with pytest.raises(QuotaReached):
                deploy(rot13, address, trust=trust)


def certificate(folder: Path) -> None:
    """Write the certificate and key of a host named localhost."""
    from datetime import UTC, datetime

    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from enarx.tcb.keep.tls import self_signed

    made = self_signed("localhost", now=datetime.now(UTC))
    (folder / "host.pem").write_bytes(made.chain[0].public_bytes(Encoding.PEM))
    key = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "host.key").write_bytes(key)


def test_a_warm_deployment_is_quick(host: EmulatedHost, trust: Trust, rot13: Path) -> None:
    """The goal is 150 ms on a quiet machine; here it must not be off by far."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        deploy(rot13, host.address, trust=trust)
        took.append(time.perf_counter() - began)
    assert min(took) < 1.0


# The audit record.


def test_a_rejection_is_on_record_and_comes_out_again(
    host: EmulatedHost, rot13: Path, tmp_path: Path
) -> None:
    steps: list[Step] = []
    with AuditFile(tmp_path) as audit, pytest.raises(EnarxError):
        deploy(
            rot13,
            host.address,
            trust=Trust.release(release_image()),
            audit=audit,
            observer=steps.append,
        )
    (verdict,) = replay(tmp_path, head=audit.head).verdicts
    assert verdict.same
    assert verdict.judgement == f"rejected: {steps[-2].facts['check']}"
    assert [step.what for step in steps[-2:]] == [What.REJECTED, What.STOPPED]


def test_a_record_that_cannot_be_written_ends_the_keep(
    host: EmulatedHost, trust: Trust, rot13: Path, tmp_path: Path
) -> None:
    """A full disk, at the moment when the keep is there and has not been judged."""

    class Full(AuditFile):
        keep = ""

        def step(self, step: Step) -> None:
            self.keep = step.facts.get("keep", self.keep)
            if self.keep:
                raise Unavailable("no space left on device")

    audit = Full(tmp_path)
    with audit, pytest.raises(Unavailable, match="no space"):
        deploy(rot13, host.address, trust=trust, audit=audit)
    with AgentClient(host.address) as agent:
        assert agent.keep(audit.keep).state.value == "ended"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("judgement", "rejected: policy.snp.measurement"),
        ("now", "2056-01-01T00:00:00+00:00"),
        ("report_data", "00" * 64),
        ("claims.measurement", "00" * 48),
    ],
)
def test_a_record_that_was_forged_whole_does_not_come_out_again(
    recorded: Path, tmp_path: Path, name: str, value: str
) -> None:
    """Its writer may compute all hashes anew; the vendor's signatures he cannot."""
    forge(recorded, tmp_path / "forged", lambda line: line["facts"].update({name: value}))
    assert not replay(tmp_path / "forged").verdicts[0].same


@pytest.mark.parametrize("name", ["evidence", "policy", "collateral", "roots"])
def test_other_bytes_do_not_give_the_same_verdict(recorded: Path, tmp_path: Path, name: str) -> None:
    import cbor2

    other = {
        "evidence": b"\0" * 1184,
        "policy": b'version = 1\n[snp]\nmeasurement = ["' + b"ab" * 48 + b'"]\n',
        "collateral": cbor2.dumps([[], [], []], canonical=True),
        "roots": cbor2.dumps([], canonical=True),
    }[name]
    digest = sha256(other).hexdigest()
    forge(recorded, tmp_path / "forged", lambda line: line["facts"].update({name: digest}))
    (tmp_path / "forged" / "blobs" / digest).write_bytes(other)
    assert not replay(tmp_path / "forged").verdicts[0].same


@pytest.fixture(scope="module")
def recorded(host: EmulatedHost, trust: Trust, rot13: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of one deployment."""
    folder = tmp_path_factory.mktemp("audit")
    with AuditFile(folder) as audit:
        deploy(rot13, host.address, trust=trust, audit=audit)
    return folder


def forge(recorded: Path, forged: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change every verdict, and chain the lines again."""
    shutil.copytree(recorded, forged)
    previous = "0" * 64
    lines = []
    for text in (recorded / LOG).read_text().splitlines():
        line = json.loads(text)
        if line["event"] == "verdict":
            change(line)
        line["previous"] = previous
        lines.append(json.dumps(line))
        previous = sha256(lines[-1].encode()).hexdigest()
    (forged / LOG).write_text("\n".join(lines) + "\n")
