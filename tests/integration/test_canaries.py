"""Canaries (A36): a secret is in the keep and with its tenant, and nowhere else on the machine."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.agent_process import Machine, Process, machine, process_of

from enarx.tcb.errors import EnarxError
from enarx.tcb.workload import Secret
from enarx.tenant.agent_calls import HostAddress
from enarx.tenant.agent_client import AgentClient
from enarx.tenant.audit import AuditFile
from enarx.tenant.credentials import Credential, Credentials
from enarx.tenant.deployment import deploy, release_image, start
from enarx.tenant.image import build_image
from enarx.tenant.keep import Keep
from enarx.tenant.package import Package
from enarx.tenant.steps import Step
from enarx.tenant.streams import Interrupt
from enarx.tenant.verification import Trust

CANARY = b"canary-3f1c9a7e5b2d4860"
FOREVER = """(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"""


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine as its owner runs it."""
    folder = tmp_path_factory.mktemp("machine")
    build_image(folder / "keep.tar")
    with machine(folder / "state", folder / "keep.tar") as made:
        yield made


@pytest.fixture(scope="module")
def agent(owned: Machine) -> Process:
    return owned.agent()


@pytest.fixture(scope="module")
def trust(agent: Process) -> Trust:
    with AgentClient(HostAddress.parse(agent.first["url"])) as client:
        roots = client.platform("snp").roots
    return Trust.release(release_image(), roots={f"emulated {at}": root for at, root in enumerate(roots)})


def package() -> Package:
    from wasmtime import wat2wasm

    return Package(name="test", module=bytes(wat2wasm(FOREVER)))


class Left:
    """A keep that holds the canary and runs, with all that its tenant wrote."""

    def __init__(self, folder: Path, agent: Process, trust: Trust) -> None:
        self.steps: list[Step] = []
        with AuditFile(folder / "audit") as audit:
            self.credential: Credential = start(
                package(),
                agent.first["url"],
                trust=trust,
                credentials=Credentials(folder / "keeps"),
                audit=audit,
                observer=self.steps.append,
                secrets=[Secret(name="token", value=CANARY, environment=True)],
            )
        self.shown = repr((self.steps, self.credential, audit))
        self.process = process_of(agent, self.credential.keep)


@pytest.fixture
def left(tmp_path: Path, agent: Process, trust: Trust) -> Iterator[Left]:
    left = Left(tmp_path, agent, trust)
    yield left
    with contextlib.suppress(EnarxError):
        Keep.of(left.credential, trust).discard()


@pytest.mark.timeout(300)
def test_no_secret_in_memory_arguments_or_environment_of_the_host(
    owned: Machine, agent: Process, left: Left
) -> None:
    """The agent, the platform, the fork server and the keeps of its pool."""
    inside = family(left.process)
    outside = {agent.process.pid, owned.platform.process.pid, *owned.keeps()} - inside
    assert len(outside) > 2
    for pid in outside:
        with contextlib.suppress(
            FileNotFoundError, ProcessLookupError
        ):  # a keep of the pool that was given up
            found = memory(pid)
            assert CANARY not in found, pid
            assert b"enarx" in found  # it is really looked at
    for pid in outside | inside:
        for name in ("cmdline", "environ"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                assert CANARY not in Path(f"/proc/{pid}/{name}").read_bytes(), pid


@pytest.mark.timeout(300)
def test_no_secret_in_files_or_logs(tmp_path: Path, owned: Machine, agent: Process, left: Left) -> None:
    """Neither of the host nor of the tenant."""
    assert not written(owned.state.parent)
    assert not written(tmp_path)
    assert agent.said
    assert CANARY.decode() not in "".join([*agent.said, *owned.platform.said])
    assert CANARY.decode() not in left.shown


@pytest.mark.timeout(300)
def test_no_secret_in_a_core_dump(left: Left) -> None:
    """A keep makes none. Nor can one be made of it: test_another_process_of_the_same_user_cannot_read_a_keep."""
    for pid in family(left.process):
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        (core,) = [line.split() for line in limits if line.startswith("Max core file size")]
        assert core[4:6] == ["0", "0"]


def test_no_secret_in_errors(agent: Process, trust: Trust) -> None:
    interrupt = Interrupt()
    interrupt.ring()
    secret = Secret(name="token", value=CANARY)
    with pytest.raises(EnarxError) as caught:
        deploy(package(), agent.first["url"], trust=trust, secrets=[secret], interrupt=interrupt)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert CANARY.decode() not in shown


def written(folder: Path) -> list[Path]:
    """The files that hold the canary."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    return [path for path in files if CANARY in path.read_bytes()]


def family(pid: int) -> set[int]:
    """A process and all below it."""
    found = {pid}
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found |= family(int(child))
    return found


def memory(pid: int) -> bytes:
    """All that a process has in its writable memory."""
    found = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in maps:
            span, rights, *_ = line.split()
            if rights.startswith("rw"):
                first, last = (int(end, 16) for end in span.split("-"))
                mem.seek(first)
                with contextlib.suppress(OSError):
                    found.append(mem.read(last - first) or b"")
    return b"".join(found)
