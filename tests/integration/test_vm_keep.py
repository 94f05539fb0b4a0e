"""Keeps as virtual machines: booted, attested, run, and ended in every way, each with its reason."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.docs.console import ROOT
from tests.integration.attested_keep import Tenant
from tests.integration.conftest import free_port, listen_config
from tests.integration.test_emulator_kinds import running
from tests.integration.vm_keep import Machine, boot_files, booting, file_in, keep_image, machine

from enarx.api.vm_image import VmImage
from enarx.attest import Collateral, EvidenceRejected
from enarx.attest.measure import CPU_SIGNATURES, hash_kernel, parse_sev_firmware, snp_launch_digest
from enarx.host.backend import LaunchRequest
from enarx.host.keep_process import KeepNotStarted
from enarx.host.relay import answer
from enarx.host.sallyport import Host, Permissions, Scope
from enarx.host.vm import Boot, Guest, Protection, VmKeep
from enarx.tcb.errors import Unavailable
from enarx.tcb.sallyport.items import Admit, Exited, Listen, Ready
from enarx.tcb.sallyport.socket_channel import ChannelClosed
from enarx.tcb.session import Attested
from enarx.tcb.workload import Ending, Job, Outcome
from enarx.tenant.channel import Channel
from enarx.tenant.verification import Trust
from enarx_emulator.backend import EmulatedBackend

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vm")]

HELLO = """(module (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 1) (data (i32.const 8) "hello\\n")
 (func (export "_start") (i32.store (i32.const 0) (i32.const 8)) (i32.store (i32.const 4) (i32.const 6))
  (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))))"""
FOREVER = '(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))'


@pytest.fixture(scope="module")
def image() -> VmImage:
    return keep_image()


def job(wat: str, **options: object) -> Job:
    from wasmtime import wat2wasm

    return Job(module=bytes(wat2wasm(wat)), **options)  # type: ignore[arg-type]


def lost(item: object) -> str:
    """Why a keep is lost."""
    assert isinstance(item, Exited)
    outcome = Outcome.from_value(item.outcome)
    assert outcome.ending is Ending.KEEP_LOST
    return outcome.detail


def hog() -> str:
    """Takes memory until the machine has none, and touches all of it."""
    return """(module (memory (export "memory") 1)
     (func (export "_start") (local $at i32)
      (loop $more
       (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))
        (local.set $at (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1048576)))
        (memory.fill (local.get $at) (i32.const 1) (i32.const 1048576))))))"""


@pytest.mark.timeout(300)
def test_a_workload_runs_in_a_machine_as_in_a_process(image: VmImage) -> None:
    with machine(image) as (keep, host):
        stdout, stderr, end = host.tenant().attest().deliver(job(HELLO)).run()
        assert (stdout, stderr) == (b"hello\n", b"")
        assert end.outcome.ending is Ending.EXITED
        assert host.last_word() == Exited(outcome=None)
        assert keep.wait(20)
        assert keep.ended == "it ended"


@pytest.mark.timeout(300)
def test_a_listener_of_the_workload_is_reached_through_the_door(
    image: VmImage, guest: Callable[[str], Path]
) -> None:
    """The workload serves connections that the host accepts and that reach it as streams, one after another."""
    config = listen_config(name="in", prot="tcp", port=(port := free_port()))
    with machine(image) as (_, host):
        agent = threading.Thread(target=answer_requests, args=(host,), daemon=True)
        agent.start()
        tenant = host.tenant().attest()
        tenant.deliver(
            Job(
                module=guest("socket").read_bytes(),
                config=config.encode(),
                arguments=("block", "echo"),
            )
        )
        tenant.channel.send(tenant.session.attach())
        tenant.channel.send(tenant.session.run())
        with patient_connection(port) as first:
            for line in (b"one\n", b"two\n", b"three\n"):
                first.sendall(line)
                assert first.makefile("rb").readline() == line
        data = os.urandom(1 << 20)
        with patient_connection(port) as second:
            threading.Thread(target=send_whole, args=(second, data), daemon=True).start()
            assert second.makefile("rb").read() == data
        assert tenant.collect()[2].outcome.code == 0


def send_whole(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def answer_requests(host: Machine) -> None:
    """What an agent does for a keep."""
    half = Host(Permissions(listen=Scope.ANY, connect=Scope.ANY))
    half.received(Ready(version="ready"), 0)
    half.deliver(Admit())
    with contextlib.suppress(ChannelClosed):
        while True:
            item, _ = host.channel.receive()
            half.received(item, 0)
            if isinstance(item, Listen):
                answer(half, host.channel, item)


def patient_connection(port: int) -> socket.socket:
    """Connect as soon as somebody listens."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 60)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.timeout(300)
def test_a_machine_whose_memory_runs_out_says_so(image: VmImage) -> None:
    with machine(image, guest=Guest(cmdline=image.cmdline, memory_mib=256)) as (keep, host):
        tenant = host.tenant().attest().deliver(job(hog()))
        tenant.channel.send(tenant.session.run())
        assert "ran out of memory" in lost(host.channel.receive()[0])
        assert keep.wait(20)
        assert "ran out of memory" in keep.ended


@pytest.mark.timeout(300)
def test_a_killed_machine_is_told_from_one_that_panicked(image: VmImage, tmp_path: Path) -> None:
    with machine(image) as (keep, host):
        tenant = host.tenant().attest().deliver(job(FOREVER))
        tenant.channel.send(tenant.session.run())
        os.kill(keep.pid, signal.SIGKILL)
        assert lost(host.last_word()) == "QEMU was killed by SIGKILL"
        assert keep.wait(20)
    broken = file_in(tmp_path, "initrd", b"no archive")
    with booting(image, files=Boot(kernel=image.vmlinux, initrd=broken)) as keep:
        with pytest.raises(KeepNotStarted, match="panicked"):
            keep.await_ready()
        assert keep.ended == "the kernel of its machine panicked"


@pytest.mark.timeout(300)
def test_a_machine_that_does_not_boot_in_time_is_ended(image: VmImage) -> None:
    with booting(image) as keep:
        with pytest.raises(KeepNotStarted, match="not ready after"):
            keep.await_ready(0.5)
        assert keep.wait(20)
        assert keep.ended == "it was stopped"
        with pytest.raises(ProcessLookupError):
            os.kill(keep.pid, 0)


def test_a_machine_that_qemu_refuses_is_told_in_its_words(image: VmImage, tmp_path: Path) -> None:
    guest = Guest(cmdline="", extra=("-device", "no-such-device"))
    with booting(image, guest=guest) as keep, pytest.raises(KeepNotStarted, match="no-such-device"):
        keep.await_ready()
    with pytest.raises(Unavailable, match="no-such-file"):
        VmKeep(
            Protection.NONE, Boot(kernel=tmp_path / "no-such-file", initrd=image.initrd), Guest(cmdline="")
        )


@pytest.mark.timeout(300)
def test_machines_end_with_the_process_that_started_them(image: VmImage) -> None:
    """As when a host agent is killed, or starts anew."""
    program = (
        "from pathlib import Path; import sys, time\n"
        "from enarx.host.vm import *\n"
        "kernel, initrd, cmdline = sys.argv[1:]\n"
        "keep = VmKeep(Protection.NONE, Boot(kernel=Path(kernel), initrd=Path(initrd)), Guest(cmdline=cmdline))\n"
        "print(keep.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    files = boot_files(image)
    command = [sys.executable, "-c", program, str(files.kernel), str(files.initrd), image.cmdline]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as agent:
        assert agent.stdout is not None
        qemu = os.pidfd_open(int(agent.stdout.readline()))
        agent.kill()
    assert select.select([qemu], [], [], 20)[0]
    os.close(qemu)


def expected(image: VmImage) -> bytes:
    """The launch digest that a tenant computes."""
    assert image.sev_firmware is not None
    return snp_launch_digest(
        parse_sev_firmware(image.sev_firmware.read_bytes()),
        vcpus=1,
        cpu_signature=CPU_SIGNATURES["EPYC-v4"],
        kernel=hash_kernel(
            image.kernel.read_bytes(), initrd=image.initrd.read_bytes(), cmdline=image.cmdline
        ),
    )


class JudgingTenant(Tenant):
    """One who accepts exactly one measurement, signed by the emulated vendor that it names."""

    def __init__(self, host: Machine, backend: EmulatedBackend, measurement: bytes) -> None:
        super().__init__(Channel(host.connect()), b"")
        found = backend.endorsements()
        self.collateral = Collateral(certificates=found.certificates, crls=found.crls)
        policy = (
            f'version = 1\nname = "test"\n[snp]\nmeasurement = ["{measurement.hex()}"]\nvendor_root = "any"\n'
        )
        self.trust = Trust(policy_text=policy, roots={"emulated": found.roots[0]})

    def accept(self) -> Attested:
        """Judge the next evidence and accept it."""
        event = next(self.events)
        assert isinstance(event, Attested), event
        claims = self.trust.judge(event.evidence, self.collateral, event.binding, now=datetime.now(UTC))
        self.session.accept(claims.report_data)
        return event


@pytest.mark.timeout(300)
def test_an_emulated_platform_measures_the_machine_that_it_boots(image: VmImage, tmp_path: Path) -> None:
    """A tenant accepts exactly the image whose digest it computed, and says what else it found."""
    with running("snp", tmp_path / "state"):
        backend = EmulatedBackend(str(tmp_path / "state"))
        keep = backend.launch(LaunchRequest(image=image.kernel.parent))
        try:
            assert keep.channel is not None
            host = Machine(keep.channel)
            with pytest.raises(EvidenceRejected, match="measurement"):
                JudgingTenant(host, backend, b"\1" * 48).attest()
            tenant = JudgingTenant(host, backend, expected(image)).attest()
            assert tenant.deliver(job(HELLO)).run()[0] == b"hello\n"
            host.close()
        finally:
            keep.stop()
            backend.close()
