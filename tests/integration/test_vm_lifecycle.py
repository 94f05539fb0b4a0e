"""VM keeps whose surroundings fail: each end is told with its reason, and nothing of the keep remains.

How a machine ends by itself (panic, lack of memory, no boot in time) is in ``test_vm_keep``.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.integration.agent_process import (
    BIN,
    TIMEOUT_S,
    Machine,
    alive,
    await_end,
    client,
    process_of,
    until,
)
from tests.integration.agent_process import machine as platform_machine
from tests.integration.conftest import free_port
from tests.integration.deploy_tenant import Tenant, root_of
from tests.integration.test_deploy import HELLO_AND_STAY, module
from tests.integration.test_vm_keep import expected, hog
from tests.integration.vm_keep import booting, file_in, keep_image
from wasmtime import wat2wasm

from enarx.api.vm_image import VmImage
from enarx.cli._exit import ExitCode
from enarx.host.backend import LaunchRequest
from enarx.host.keep_process import KeepNotStarted
from enarx.host.vm import Boot
from enarx.tcb.errors import EnarxError
from enarx.tenant.agent_calls import HostAddress, HostUnable
from enarx.tenant.agent_client import AgentClient
from enarx.tenant.credentials import Credentials
from enarx.tenant.deployment import start
from enarx.tenant.verification import Trust
from enarx_emulator import backend as emulated

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vm"), pytest.mark.timeout(300)]

MIB = 1 << 20


@pytest.fixture(scope="module")
def image() -> VmImage:
    return keep_image()


@pytest.fixture
def owned(tmp_path: Path, image: VmImage) -> Iterator[Machine]:
    """An emulated SNP platform and its owner's agents, which launch VM keeps."""
    with platform_machine(tmp_path / "state", image.kernel.parent) as made:
        yield made


def qemus(parent: int) -> set[int]:
    """The machines that a process has started."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = path.read_text().partition(" (")
            name, _, fields = rest.rpartition(") ")
        except OSError:
            continue
        if int(fields.split()[1]) == parent and name.startswith("qemu-system"):
            found.add(int(pid))
    return found


def trust_in(agent: AgentClient, image: VmImage) -> Trust:
    policy = (
        f'version = 1\nname = "test"\n[snp]\nmeasurement = ["{expected(image).hex()}"]\nvendor_root = "any"\n'
    )
    return Trust(policy_text=policy, roots={"emulated": agent.platform("snp").roots[0]})


# What the owner of the machine does.


def test_a_restarted_agent_knows_no_machine_of_the_one_before_and_a_killed_platform_ends_its_machines(
    owned: Machine, image: VmImage, tmp_path: Path
) -> None:
    """The tenant is told that the keep is gone, by ``keep list`` and by ``keep attach``."""
    listen = ("--listen", f"127.0.0.1:{free_port()}")
    credentials = Credentials(tmp_path / "home" / "enarx" / "keeps")
    agent = owned.agent(*listen)
    address = HostAddress.parse(agent.first["url"])
    with AgentClient(address) as asker:
        trust = trust_in(asker, image)
    kept = start(module(HELLO_AND_STAY), address, trust=trust, credentials=credentials)
    qemu = process_of(agent, kept.keep)
    agent.process.kill()
    agent.ended()
    until(lambda: not alive(qemu), "the machine outlives its agent")

    tenant = Tenant(tmp_path / "home", address.url, None)

    def told(*arguments: str) -> tuple[int, str, str]:
        done = tenant.run("keep", *arguments)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    assert "connection refused" in told("list")[1]
    again = owned.agent(*listen)
    assert "gone: its host knows it no more" in told("list")[1]
    for command in ("attach", "logs", "stop", "evidence"):
        code, stdout, stderr = told(command, kept.keep[:8])
        assert (code, stdout) == (ExitCode.REFUSED, "")
        assert f"keep {kept.keep} is gone" in stderr
        assert "--force" in stderr
    assert told("stop", "--force", kept.keep[:8])[0] == 0
    assert told("list")[1] == "no keeps\n"
    with client(again) as asker:
        assert asker.keeps() == []
        new = asker.create("snp")
        qemu = process_of(again, new.id)
        assert qemus(owned.platform.process.pid) == {qemu}
        owned.platform.process.kill()
        owned.platform.ended()
        until(lambda: not alive(qemu), "the machine outlives its platform")
        assert await_end(asker, new.id).ended == "its process is gone"
        with pytest.raises(HostUnable, match="platform"):
            asker.create()
    assert again.end() == 0


def test_a_tenant_whose_machine_ran_out_of_memory_is_told_so(
    owned: Machine, image: VmImage, tmp_path: Path
) -> None:
    """By the host, which nobody vouches for: all that the keep itself could say is lost with it."""
    agent = owned.agent()
    tenant = Tenant(tmp_path / "home", agent.first["url"], root_of(owned.state, tmp_path / "root.pem"))
    workload = file_in(tmp_path, "hog.wasm", bytes(wat2wasm(hog())))
    done = tenant.deploy(workload, "--image", image.directory)
    assert done.returncode == ExitCode.KEEP_LOST, done.stderr
    assert b"its host says: the keep's machine ran out of memory" in done.stderr
    agent.heard("ended: the keep's machine ran out of memory")


def test_an_agent_that_is_told_to_end_does_not_wait_for_a_machine_that_boots(owned: Machine) -> None:
    """Nor does anything of that machine remain with the platform."""
    agent, platform = owned.agent(), owned.platform.process.pid
    before = descriptors(platform)

    def create() -> None:
        with client(agent) as asker, pytest.raises(EnarxError):
            asker.create()

    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(create)
        until(lambda: qemus(platform), "no machine boots")
        assert agent.end() == 0
        refused.result(TIMEOUT_S)
    until(lambda: not qemus(platform), "the machine outlives its agent")
    until(lambda: descriptors(platform) < before, "the platform holds what the machine had")


def test_a_machine_that_does_not_boot_in_time_is_freed(
    owned: Machine, image: VmImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulated, "BOOT_TIMEOUT_S", 0.5)
    backend, platform = emulated.EmulatedBackend(str(owned.state)), owned.platform.process.pid
    backend.prepare(image.directory)
    before = descriptors(platform)
    for _ in range(3):
        with pytest.raises(KeepNotStarted, match=r"not ready after 0\.5 seconds"):
            backend.launch(LaunchRequest(image=image.directory))
        until(lambda: not qemus(platform), "the machine is still there")
        until(lambda: descriptors(platform) == before, "the platform holds what the machine had")
    backend.close()


def test_an_image_that_is_damaged_is_refused_and_loaded_anew(
    owned: Machine, image: VmImage, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(image.kernel.parent, damaged)
    (damaged / "initrd").write_bytes(b"no archive")
    serve = ("host", "serve", "--backend", f"emulated={owned.state}", "--image", str(damaged))
    done = subprocess.run([BIN / "enarx", *serve], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == ExitCode.MALFORMED
    assert "its files are not those of its manifest" in done.stderr
    agent, platform = owned.agent(), owned.platform.process.pid
    (copy,) = (owned.state / "images").iterdir()
    (copy / "initrd").unlink()
    with client(agent) as asker:
        held = set()
        for _ in range(3):
            with pytest.raises(
                HostUnable, match="copy of the image is damaged: initrd: no such file"
            ) as told:
                asker.create()
            assert "agent anew" in told.value.hint
            held.add(descriptors(platform))
        assert len(held) == 1
        assert asker.keeps() == []
    assert not qemus(platform)
    assert agent.end() == 0
    owned.agent()
    assert (copy / "initrd").stat().st_size == image.initrd.stat().st_size


# What becomes of QEMU.


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_the_signal_that_ended_qemu_is_told(
    number: signal.Signals, image: VmImage, capfd: pytest.CaptureFixture[str]
) -> None:
    """And nothing else: what a library thinks of it is not written to anybody's standard error."""
    with booting(image) as keep:
        os.kill(keep.pid, number)
        with pytest.raises(KeepNotStarted, match=f"QEMU was killed by {number.name}"):
            keep.await_ready()
    assert capfd.readouterr().err == ""


def test_a_file_that_is_no_kernel_is_told_in_qemus_words(image: VmImage, tmp_path: Path) -> None:
    files = Boot(kernel=file_in(tmp_path, "kernel", image.vmlinux.read_bytes()[:MIB]), initrd=image.initrd)
    with booting(image, files=files) as keep, pytest.raises(KeepNotStarted, match=r"QEMU failed: .*kernel"):
        keep.await_ready()


def test_many_stops_leave_nothing(image: VmImage) -> None:
    """Stopped while they boot: no process, no descriptor, no thread and no memory of them remains."""

    def held() -> tuple[int, int, set[int]]:
        return descriptors(os.getpid()), threading.active_count(), qemus(os.getpid())

    def some(count: int) -> None:
        for _ in range(count):
            with booting(image) as keep:
                assert keep.control is not None
                keep.control.command("query-status")

    some(4)
    before, size = held(), resident()
    some(12)
    assert held() == before
    assert resident() - size < 12 * MIB


def descriptors(pid: int) -> int:
    """How many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident() -> int:
    """How much memory this process has, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
