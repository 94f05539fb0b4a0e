"""What QEMU says to the command line of a backend."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tests.forge.kernel import bz_image

from enarx.host.backends._machine import HARDWARE
from enarx.host.backends.sev import Owner
from enarx.host.backends.snp import SnpLaunch
from enarx.host.backends.tdx import TdxLaunch
from enarx.host.vm._options import Files, Guest, Protection, qemu_command

OWNER = Owner(policy=bytes([1, 0, 0, 0]), certificate=bytes(2084), session=bytes(128))
ES_OWNER = replace(OWNER, policy=bytes([5, 0, 0, 0]))
WITHOUT_HARDWARE = re.compile(
    r"cbitpos check failed|vm-type \S+ not supported by KVM|Could not access KVM|KVM required|failed to initialize kvm"
)
UNKNOWN = re.compile("does not accept value|Invalid parameter 'legacy-vm-type'")
TIMEOUT_S = 60.0
Change = Callable[[list[str]], list[str]]


def sev_objects(folder: Path) -> Sequence[str]:
    return OWNER.objects(47, 1, folder)


def sev_es_objects(folder: Path) -> Sequence[str]:
    return ES_OWNER.objects(47, 1, folder)


def snp_objects(folder: Path) -> Sequence[str]:
    named = SnpLaunch(c_bit=51, reduced_bits=1, id_block=bytes(96), id_auth=bytes(4096), author_key=True)
    return named.objects()


def tdx_objects(folder: Path) -> Sequence[str]:
    return TdxLaunch().objects()


def power_kernel() -> bytes:
    """An ELF file for POWER, little-endian, whose one segment is its headers."""
    size = 64 + 56
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 21, 1, 0, 64, 0, 2, 64, 56, 1, 64, 0, 0)
    return identity + header + struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, 0x1000)


@contextlib.contextmanager
def started(
    protection: Protection, objects: Sequence[str], folder: Path, change: Change = list
) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """QEMU with the whole command line that a backend gives it, after ``change``; and its control socket."""
    file, kernel_file = folder / "file", folder / "kernel"
    file.write_bytes(bytes(1 << 16))
    kernel_file.write_bytes(power_kernel() if protection is Protection.PEF else bz_image(sections=8))
    keep, inner_keep = socket.socketpair()
    control, inner_control = socket.socketpair()
    with contextlib.ExitStack() as stack:
        for end in (keep, control):
            stack.enter_context(end)
        with inner_keep, inner_control, file.open("rb") as opened, kernel_file.open("rb") as kernel:
            at = opened.fileno()
            files = Files(
                kernel=kernel.fileno(),
                initrd=at,
                firmware=at,
                keep=inner_keep.fileno(),
                control=inner_control.fileno(),
            )
            command = qemu_command(protection, Guest(cmdline="quiet", objects=objects), files, HARDWARE)
            process = subprocess.Popen(
                change(list(command)), pass_fds=files.all(), stderr=subprocess.PIPE, text=True
            )
        assert process.stderr is not None
        stack.enter_context(process.stderr)
        stack.callback(process.wait)
        stack.callback(process.kill)
        yield process, control


def asked(protection: Protection, objects: Sequence[str], folder: Path, change: Change = list) -> str:
    """What it complains of, and ends."""
    with started(protection, objects, folder, change) as (process, _):
        said = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode
    return said


def status(protection: Protection, objects: Sequence[str], folder: Path, change: Change = list) -> str:
    """What it answers about its machine once it has made the whole of it; empty when it ended before that."""
    with started(protection, objects, folder, change) as (_, control):
        control.settimeout(TIMEOUT_S)
        told = control.makefile("rw")
        with contextlib.suppress(ConnectionError):
            told.writelines(('{"execute": "qmp_capabilities"}', '{"execute": "query-status"}'))
            told.flush()
            for line in told:
                if isinstance(answer := json.loads(line).get("return"), dict) and "status" in answer:
                    return str(answer["status"])
        return ""
