"""A machine without a TEE proves its start by a TPM that is not ours, to a tenant who says that this is enough."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.integration.agent_process import Process, alive, client, until
from tests.integration.attested_keep import Tenant
from tests.integration.test_vm_keep import HELLO
from tests.integration.vm_keep import Machine, keep_image

from enarx.api.keep_image import MANIFEST, manifest_line
from enarx.api.vm_image import CMDLINE, INITRD, VmImage, read_vm_image
from enarx.attest import (
    Claims,
    Collateral,
    CollateralMissing,
    EvidenceRejected,
    Kind,
    PolicyDenied,
    bundle,
    cmw,
)
from enarx.attest.measure import Algorithm, parse_tpm_event_log
from enarx.attest.tpm import TpmDetail
from enarx.host.backend import LaunchRequest, open_backend
from enarx.tcb.errors import EnarxError
from enarx.tcb.session import Attested
from enarx.tcb.tpm import PCRS
from enarx.tenant import Trust, deploy
from enarx.tenant.channel import Channel
from enarx.tenant.image.vm import tpm_policy
from enarx.tenant.judge import Verdict

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vm"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def image() -> VmImage:
    return keep_image()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tpm")


def serve(state: Path, image: VmImage) -> Process:
    """A host, as its owner starts it."""
    common = ("--image", str(image.directory), "--listen", "127.0.0.1:0", "--json")
    return Process("enarx", "host", "serve", "--backend", f"vm-tpm={state}", *common)


@dataclass(frozen=True)
class Deployed:
    """What came of the one deployment."""

    key: bytes
    """The host's attestation key, which its tenant has enrolled."""
    empty: Verdict
    locked: Verdict
    stdout: bytes


@pytest.fixture(scope="module")
def deployed(folder: Path, image: VmImage) -> Deployed:
    """A tenant deploys to a host whose key it knows; the host's directory is left for others."""
    from wasmtime import wat2wasm

    module = folder / "hello.wasm"
    module.write_bytes(bytes(wat2wasm(HELLO)))
    agent = serve(folder / "state", image)
    try:
        with client(agent) as asked:
            (backend,) = asked.info().backends
            (document,) = asked.platform("tpm").documents
        assert (backend.name, backend.tee, backend.emulated, backend.ready) == ("vm-tpm", "tpm", True, True)
        assert "none: no TEE" in {fact.name: fact.detail for fact in backend.facts}["Memory encryption"]
        assert document.kind == Kind.PUBLIC_KEY.value
        trust = trusting(image, document.data)
        done = deploy(module, agent.first["url"], trust=trust, image=image, tee="tpm")
    finally:
        assert agent.end() == 0
    empty, locked = done.verdicts
    return Deployed(key=document.data, empty=empty, locked=locked, stdout=done.stdout)


def trusting(image: VmImage, key: bytes, text: str = "") -> Trust:
    return Trust(policy_text=text or tpm_policy(image), roots={"the host's TPM": key})


def judged(trust: Trust, verdict: Verdict, evidence: bytes = b"") -> Claims:
    return trust.judge(evidence or verdict.evidence, Collateral.none(), verdict.binding, now=verdict.now)


def failures(error: pytest.ExceptionInfo[PolicyDenied]) -> set[str]:
    return {check.name for check in error.value.failures}


def test_a_tenant_deploys_and_the_quotes_are_of_all_that_was_started(deployed: Deployed) -> None:
    assert deployed.stdout == b"hello\n"
    for verdict in (deployed.empty, deployed.locked):
        claims = verdict.claims
        assert claims.bound
        assert not claims.memory_protected
        assert isinstance(claims.detail, TpmDetail)
        assert claims.detail.replayed == frozenset(PCRS)
        assert not claims.root.is_vendor
        assert claims.root.spki == deployed.key


def test_a_quote_for_another_challenge_is_refused(deployed: Deployed, image: VmImage) -> None:
    replayed = dataclasses.replace(deployed.locked, evidence=deployed.empty.evidence)
    with pytest.raises(EvidenceRejected) as refused:
        judged(trusting(image, deployed.key), replayed)
    assert refused.value.check.name == "binding.report_data"


def test_the_key_of_another_host_is_refused(deployed: Deployed, image: VmImage) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    other = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(EvidenceRejected) as refused:
        judged(trusting(image, other), deployed.empty)
    assert refused.value.check.name == "tpm.signature"
    with pytest.raises(CollateralMissing) as missing:
        judged(Trust(policy_text=tpm_policy(image)), deployed.empty)
    assert missing.value.check.name == "tpm.ak"


def parts(evidence: bytes) -> tuple[dict[str, cmw.Record], bytes]:
    """The quote's parts, and the log."""
    message = cmw.parse(evidence)
    assert isinstance(message, cmw.Collection)
    inner, log = message.items["evidence"], message.items["event-log"]
    assert isinstance(inner, cmw.Collection)
    assert isinstance(log, cmw.Record)
    return {name: part for name, part in inner.items.items() if isinstance(part, cmw.Record)}, log.value


def packed(quote: Mapping[str, cmw.Record], log: bytes | None) -> bytes:
    record = {} if log is None else {"event-log": cmw.Record("application/octet-stream", log)}
    return cmw.to_cbor(cmw.Collection({"evidence": cmw.Collection(quote), **record}, bundle.TYPE))


def another_log(evidence: bytes) -> bytes:
    """A log that tells of another kernel."""
    quote, log = parts(evidence)
    events = [event for event in parse_tpm_event_log(log).events if event.index == 4]
    digest = events[0].digests[Algorithm.SHA256]
    assert log.count(digest) == 1
    return packed(quote, log.replace(digest, digest[::-1]))


def other_registers(evidence: bytes) -> bytes:
    quote, log = parts(evidence)
    values = quote["pcrs"].value
    return packed({**quote, "pcrs": dataclasses.replace(quote["pcrs"], value=values[32:] + values[:32])}, log)


def without_log(evidence: bytes) -> bytes:
    return packed(parts(evidence)[0], None)


@pytest.mark.parametrize(
    ("change", "check"), [(another_log, "tpm.event_log"), (other_registers, "tpm.pcr_digest")]
)
def test_what_does_not_lead_to_the_quote_is_refused(
    deployed: Deployed, image: VmImage, change: Callable[[bytes], bytes], check: str
) -> None:
    with pytest.raises(EvidenceRejected) as refused:
        judged(trusting(image, deployed.key), deployed.empty, change(deployed.empty.evidence))
    assert refused.value.check.name == check


def test_evidence_without_a_log_is_refused(deployed: Deployed, image: VmImage) -> None:
    with pytest.raises(PolicyDenied) as refused:
        judged(trusting(image, deployed.key), deployed.empty, without_log(deployed.empty.evidence))
    assert failures(refused) == {"policy.tpm.event_log"}


def test_no_policy_accepts_it_that_does_not_say_that_memory_may_be_open(
    deployed: Deployed, image: VmImage
) -> None:
    default = Trust.release(image, roots={"the host's TPM": deployed.key})
    with pytest.raises(PolicyDenied) as refused:
        judged(default, deployed.empty)
    assert failures(refused) == {"policy.tee"}
    silent = "\n".join(line for line in tpm_policy(image).splitlines() if "memory_protected" not in line)
    with pytest.raises(PolicyDenied) as refused:
        judged(trusting(image, deployed.key, silent), deployed.empty)
    assert failures(refused) == {"policy.tpm.memory_protected"}


def changed(image: VmImage, place: Path) -> VmImage:
    """An image whose command line and initial ramdisk are others, and which boots all the same."""
    shutil.copytree(image.directory, place)
    with (place / INITRD).open("ab") as initrd:
        initrd.write(bytes(4096))  # what the kernel takes for filling
    with (place / CMDLINE).open("ab") as cmdline:
        cmdline.write(b" nokaslr")
    names = sorted(path.name for path in place.iterdir() if path.name != MANIFEST)
    lines = [manifest_line(name, (place / name).read_bytes()) for name in names]
    (place / MANIFEST).write_text("".join(lines))
    return read_vm_image(place)


def test_a_machine_with_another_command_line_and_ramdisk_is_refused(
    deployed: Deployed, image: VmImage, folder: Path
) -> None:
    """The host's next keep, from files that it has changed: its TPM is as good, and has the same key."""
    other = changed(image, folder / "changed")
    backend = open_backend(f"vm-tpm={folder / 'state'}")
    try:
        assert backend.endorsements().documents == ((Kind.PUBLIC_KEY.value, deployed.key),)
        keep = backend.launch(LaunchRequest(image=other.directory))
        try:
            assert keep.channel is not None
            host = Machine(keep.channel)
            tenant = Tenant(Channel(host.connect()), b"")
            tenant.channel.send(tenant.session.hello())
            event = next(tenant.events)
            host.close()
        finally:
            keep.stop()
        assert list((folder / "state" / "keeps").iterdir()) == []
    finally:
        backend.close()
    assert isinstance(event, Attested)
    shown = dataclasses.replace(
        deployed.empty, evidence=event.evidence, binding=event.binding, now=datetime.now(UTC)
    )
    assert judged(trusting(other, deployed.key), shown).bound
    with pytest.raises(PolicyDenied) as refused:
        judged(trusting(image, deployed.key), shown)
    registers = failures(refused)
    assert (
        "policy.tpm.pcrs.pcr9" in registers
    )  # and PCR4, where QEMU writes the ramdisk's size into the kernel
    assert registers <= {"policy.tpm.pcrs.pcr4", "policy.tpm.pcrs.pcr9"}


def children(pid: int) -> dict[str, int]:
    """The programs that a process has started, by name."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (path / "stat").read_text().rpartition(")")[2].split()[1] == str(pid):
                found[(path / "cmdline").read_bytes().split(b"\0")[0].decode()] = int(path.name)
    return found


def test_a_host_that_is_killed_leaves_no_machine_and_no_tpm(tmp_path: Path, image: VmImage) -> None:
    state = tmp_path / "state"
    agent = serve(state, image)

    def launch() -> None:
        with suppress(EnarxError), client(agent) as asked:
            asked.create("tpm")

    asking = threading.Thread(target=launch)
    try:
        asking.start()
        wanted = {"swtpm", "qemu-system-x86_64"}
        until(lambda: wanted <= children(agent.process.pid).keys(), "no machine with a TPM was started")
        running = [children(agent.process.pid)[name] for name in wanted]
    finally:
        os.kill(agent.process.pid, signal.SIGKILL)
        agent.ended()
        asking.join(30)
    until(lambda: not any(map(alive, running)), "a program outlived its host")
    assert list((state / "keeps").iterdir()) != []
    again = open_backend(f"vm-tpm={state}")
    again.endorsements()
    again.close()
    assert list((state / "keeps").iterdir()) == []
