"""What a machine could have from its host alone: randomness, of which a keep takes none, and the time, which is all
there is and which nothing but the workload goes by.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.test_vm_keep import job
from tests.integration.vm_keep import CACHE, booting, keep_image, machine, told

from enarx.host.keep_process import KeepNotStarted
from enarx.host.vm import Guest, Protection, find_accelerator, qemu_command
from enarx.host.vm._options import Files
from enarx.tcb.workload import Ending
from enarx.tenant.image.vm import Cache, Options, build_vm_image
from enarx.tenant.image.vm._build import COMMAND_LINE

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vm-guests"), pytest.mark.timeout(300)]
INIT = """#!/usr/bin/python3.11 -ISB
import os
import sys

sys.path.append("/keep")
from enarx.tcb.keep.vm import _machine
_machine.set_up()
port = _machine.open_port("org.enarx.keep", wait=True)
def tell(name, text):
    os.write(port, f"{name}: {text.strip()}\\n".encode())
with open("/sys/class/misc/hw_random/rng_available") as file:
    tell("devices", file.read())
tell("processor", str(_machine.has_randomness()))
log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
try:
    while line := os.read(log, 8192).decode():
        if "crng init done" in line or "as init process" in line:
            tell("kernel", line.partition(";")[2].splitlines()[0])
except BlockingIOError:
    pass
_machine.power_off()
"""
"""Tells where the kernel has its randomness from."""


def test_the_kernel_has_its_randomness_from_the_processor_before_anything_else_runs(tmp_path: Path) -> None:
    found = told(
        build_vm_image(tmp_path / "image", Cache(CACHE), options=Options(init=INIT, firmware=False))
    ).decode()
    assert "devices: none\n" in found
    assert "processor: True\n" in found
    said = [line.removeprefix("kernel: ") for line in found.splitlines() if line.startswith("kernel: ")]
    assert said == ["random: crng init done", "Run /init as init process"]


def test_a_machine_whose_processor_has_no_randomness_is_no_keep() -> None:
    image = keep_image()
    guest = Guest(cmdline=image.cmdline, extra=("-cpu", "max,cx16=off,rdrand=off,rdseed=off"))
    with booting(image, guest=guest) as keep, pytest.raises(KeepNotStarted, match="no randomness"):
        keep.await_ready()


@pytest.mark.parametrize("protection", Protection)
def test_no_guest_has_a_source_of_randomness_of_its_host(protection: Protection) -> None:
    files = Files(kernel=3, initrd=4, firmware=5, keep=6, platform=7, control=8)
    command = " ".join(qemu_command(protection, Guest(cmdline=COMMAND_LINE), files, find_accelerator()))
    assert "rng" not in command
    assert "random.trust_cpu=on random.trust_bootloader=off" in command


NOW = """(module (import "wasi_snapshot_preview1" "clock_time_get" (func $now (param i32 i64 i32) (result i32)))
 (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 1)
 (func (export "_start")
  (drop (call $now (i32.const 0) (i64.const 1) (i32.const 8)))
  (i32.store (i32.const 0) (i32.const 8)) (i32.store (i32.const 4) (i32.const 8))
  (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))))"""
"""Writes the time of day, in nanoseconds, as eight bytes."""


def test_a_clock_that_lies_deceives_the_workload_and_nobody_else() -> None:
    """The tenant accepts evidence, delivers and gets the outcome, all by its own clock."""
    image = keep_image()
    guest = Guest(cmdline=image.cmdline, extra=("-rtc", "base=2001-09-09T01:46:40"))
    with machine(image, guest=guest) as (_, host):
        stdout, _, end = host.tenant().attest().deliver(job(NOW)).run()
    assert end.outcome.ending is Ending.EXITED
    assert 1_000_000_000 <= int.from_bytes(stdout, "little") // 10**9 < 1_000_000_000 + 600
