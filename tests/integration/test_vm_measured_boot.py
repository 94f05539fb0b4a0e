"""A TPM, a firmware and a kernel that are not ours measure the image as we compute it."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.vm_keep import CACHE, told

from enarx.attest.claims import Tee
from enarx.attest.measure import expected_pcrs
from enarx.host.vm import Guest, Protection
from enarx.tenant.image.vm import Cache, Machine, Measurements, Options, build_vm_image

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vm"), pytest.mark.timeout(300)]
MEMORY_MIB = 512
PCRS = (2, 3, 4, 5, 6, 9)
INIT = f"""#!/usr/bin/python3.11 -ISB
import os
import sys

sys.path.append("/keep")
from enarx.tcb.keep.vm import _machine
_machine.set_up()
port = _machine.open_port("org.enarx.keep", wait=True)
for index in {PCRS}:
    with open(f"/sys/class/tpm/tpm0/pcr-sha256/{{index}}") as file:
        os.write(port, f"{{index}} {{file.read().strip()}}\\n".encode())
_machine.power_off()
"""
"""Tells the host what the TPM holds, which is no secret, and ends."""


@contextlib.contextmanager
def tpm() -> Iterator[str]:
    """A new TPM 2.0; gives the path of the socket by which QEMU controls it."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/control")
        listener.listen()
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--flags", "not-need-init"]
        command += ["--ctrl", f"type=unixio,fd={listener.fileno()}"]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()])
        try:
            yield f"{folder}/control"
        finally:
            process.kill()
            process.wait()


def qemu_version() -> int:
    done = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
    match = re.search(r"version (\d+)\.", done.stdout)
    assert match
    return int(match[1])


def test_a_tpm_measures_what_we_compute(tmp_path: Path) -> None:
    image = build_vm_image(tmp_path / "image", Cache(CACHE), options=Options(init=INIT))
    with tpm() as control:
        extra = ("-chardev", f"socket,id=tpm,path={control}", "-tpmdev", "emulator,id=tpm0,chardev=tpm")
        guest = Guest(
            cmdline=image.cmdline, memory_mib=MEMORY_MIB, extra=(*extra, "-device", "tpm-crb,tpmdev=tpm0")
        )
        found = dict(
            line.split() for line in told(image, guest, protection=Protection.TPM).decode().splitlines()
        )
    patched = MEMORY_MIB << 20 if qemu_version() < 10 else None
    expected = expected_pcrs(
        image.kernel.read_bytes(),
        initrd=image.initrd.read_bytes(),
        cmdline=image.cmdline,
        patched_for=patched,
    )
    assert {int(index): value.lower() for index, value in found.items()} == {
        index: expected[index].hex() for index in PCRS
    }
    values = Measurements(image).of(Tee.TPM, Machine(patched_for=patched))
    assert values == {"pcr4": expected[4], "pcr9": expected[9]}
