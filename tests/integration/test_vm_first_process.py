"""What the first process of a VM keep can still do in its machine, once it is confined: asked there, not here."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.vm_keep import CACHE, told

from enarx.tenant.image.vm import Cache, Options, build_vm_image

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vm"), pytest.mark.timeout(300)]
INIT = """#!/usr/bin/python3.11 -ISB
import os
import socket
import sys

sys.path.append("/keep")
from enarx.tcb.keep.lockdown import Profile
from enarx.tcb.keep.lockdown._syscalls import call
from enarx.tcb.keep.vm import _machine
from enarx.tcb.keep.vm.__main__ import _confine

TRIES = {
    "open a file": lambda: os.open("/init", os.O_RDONLY),
    "open memory": lambda: os.open("/dev/mem", os.O_RDWR),
    "list files": lambda: os.listdir("/"),
    "make a network socket": lambda: socket.socket(),
    "make a Unix socket": lambda: socket.socket(socket.AF_UNIX).bind(""),
    "fork": os.fork,
    "signal a process": lambda: os.kill(2, 0),
    "map code": lambda: call("mmap", 0, 4096, 5, 0x22, -1, 0),
    "map data": lambda: call("mmap", 0, 4096, 3, 0x22, -1, 0),
    "change the user": lambda: os.setuid(0),
    "turn off Ctrl-Alt-Del": lambda: call("reboot", 0xFEE1DEAD, 0x28121969, 0, None),
    "count kills for memory": _machine.killed_for_memory,
    "trace a process": lambda: call("ptrace", 0x4206, 2, 0, 0),
}

_machine.set_up()
port = _machine.open_port("org.enarx.keep", wait=True)
_machine.killed_for_memory()
_confine(Profile.CARRIER)
for name, attempt in TRIES.items():
    os.write(port, f"{name}: ".encode())
    try:
        attempt()
        os.write(port, b"done;")
    except OSError as error:
        os.write(port, f"{error.errno};".encode())
_machine.power_off()
"""
CAN = ("make a Unix socket", "map data", "count kills for memory")
LAST = "trace a process"
"""Ends the process that tries, and with the first one its machine."""


def test_the_first_process_of_a_machine_can_carry_and_nothing_else(tmp_path: Path) -> None:
    image = build_vm_image(tmp_path / "image", Cache(CACHE), options=Options(init=INIT, firmware=False))
    said = told(image).decode()
    found = dict(line.split(": ") for line in said.split(";"))
    assert found.pop(LAST) == ""
    assert {name for name, answer in found.items() if answer == "done"} == set(CAN)
    assert {answer for name, answer in found.items() if name not in CAN} == {"1"}
