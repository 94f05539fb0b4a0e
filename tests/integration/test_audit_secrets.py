"""The secret by which a keep is recognised is in no audit record as long as anybody would be recognised by it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.deploy_host import EmulatedHost

from enarx.attest.launch import write_launch
from enarx.tcb.errors import EnarxError
from enarx.tenant.audit import AuditFile
from enarx.tenant.audit_replay import WITHHELD, kept_launches, replay
from enarx.tenant.credentials import Credential, Credentials
from enarx.tenant.deployment import deploy, start
from enarx.tenant.keep import Keep
from enarx.tenant.kept_launch import parse_kept
from enarx.tenant.package import Package
from enarx.tenant.verification import Trust

KINDS = ("sev", "sev-es", "pef")
FOREVER = """(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"""
NOTHING = """(module (memory (export "memory") 1) (func (export "_start")))"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    """One machine of every TEE that attests before boot."""
    with EmulatedHost(tmp_path_factory.mktemp("host"), KINDS) as host:
        yield host


@pytest.fixture(scope="module")
def trust(host: EmulatedHost) -> Trust:
    return host.trust()


def package_of(text: str) -> Package:
    from wasmtime import wat2wasm

    return Package(name="test", module=bytes(wat2wasm(text)))


def secrets_of(credential: Credential) -> list[bytes]:
    """All that must not be seen of a launch."""
    session = json.loads(write_launch(parse_kept(credential.launch).session))
    return [bytes.fromhex(session[name]) for name in ("secret", "tik") if name in session]


def holds(folder: Path, secret: bytes) -> bool:
    """Whether the secret is in any file, in any usual spelling."""
    forms = (secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"="))
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert files
    return any(form in data for data in files for form in forms)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_launch_secret_is_on_record_only_when_the_keep_is_forgotten(
    host: EmulatedHost, trust: Trust, tmp_path: Path, kind: str
) -> None:
    """A36. Its tenant can replay at any time, anybody else afterwards."""
    record, credentials = tmp_path / "record", Credentials(tmp_path / "keeps")
    with AuditFile(record) as audit:
        left = start(
            package_of(FOREVER), host.address, trust=trust, tee=kind, credentials=credentials, audit=audit
        )
        Keep(credential=left, host=host.address, trust=trust, audit=audit).evidence()
    secrets = secrets_of(left)
    assert len(secrets) == (1 if kind == "pef" else 2)
    assert not any(holds(record, secret) for secret in secrets)
    assert holds(credentials.directory, left.launch)
    assert [it.again for it in replay(record).verdicts] == [WITHHELD] * 3
    known = replay(record, launches=kept_launches(credentials.all()))
    assert [it.again for it in known.verdicts] == ["accepted"] * 3
    Keep.of(left, trust).stop()
    assert not any(holds(record, secret) for secret in secrets)
    credentials.remove(left)
    assert [it.again for it in replay(record).verdicts] == ["accepted"] * 3


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_a_record_of_a_keep_that_has_ended_is_whole(
    host: EmulatedHost, trust: Trust, tmp_path: Path, kind: str
) -> None:
    with AuditFile(tmp_path) as audit:
        deploy(package_of(NOTHING), host.address, trust=trust, tee=kind, audit=audit)
    assert [it.again for it in replay(tmp_path).verdicts] == ["accepted"] * 2


@pytest.mark.timeout(300)
def test_a_keep_that_ends_before_its_tenant_puts_its_launch_on_that_record(
    host: EmulatedHost, trust: Trust, tmp_path: Path
) -> None:
    left = start(
        package_of(FOREVER), host.address, trust=trust, tee="sev", credentials=Credentials(tmp_path / "keeps")
    )
    with AuditFile(tmp_path / "record") as audit:
        Keep(credential=left, host=host.address, trust=trust, audit=audit).stop()
    assert [it.again for it in replay(tmp_path / "record").verdicts] == ["accepted"]


@pytest.mark.timeout(300)
def test_another_secret_does_not_give_the_same_verdict(
    host: EmulatedHost, trust: Trust, tmp_path: Path
) -> None:
    """A session is taken for that of the record only under its digest."""
    credentials = Credentials(tmp_path / "keeps")
    with AuditFile(tmp_path / "record") as audit:
        start(package_of(FOREVER), host.address, trust=trust, tee="pef", credentials=credentials, audit=audit)
    other = start(package_of(FOREVER), host.address, trust=trust, tee="pef", credentials=credentials)
    found = replay(tmp_path / "record", launches=kept_launches([other]))
    assert [it.again for it in found.verdicts] == [WITHHELD] * 2
    for credential in credentials.all():
        Keep.of(credential, trust).discard()


def test_a_record_that_is_gone_keeps_nobody_from_forgetting(tmp_path: Path) -> None:
    credential = Credential(
        host="http://host:7478",
        keep="ab" * 16,
        tee="sev",
        instance=bytes(16),
        workload=bytes(32),
        configuration=bytes(32),
        created="2026-01-01T00:00:00+00:00",
        key=bytes(32),
        launch=b"\0",
        record=str(tmp_path / "gone"),
    )
    credentials = Credentials(tmp_path / "keeps")
    credentials.add(credential)
    credentials.remove(credential)
    assert credentials.all() == []
    with pytest.raises(EnarxError):
        credentials.get("ab")
