"""What other systems do before anything is started: mounts, modules, devices; and the power switch."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from functools import cache
from typing import Final

from enarx.tcb.errors import Unavailable
from enarx.tcb.keep.lockdown._syscalls import call

PORTS: Final = "/sys/class/virtio-ports"
CONFIG: Final = "/sys/kernel/config"
SECURITY: Final = "/sys/kernel/security"
REPORTS: Final = ("configfs", "tsm")
"""What the modules of both TEEs need; the image has all of them as ``/lib/modules/NAME.ko``."""
PORT_WAIT_S: Final = 10.0
"""How long the kernel may take to find a port that is there; it takes some milliseconds."""
_BIND, _MOVE = 1 << 12, 1 << 13
_NOSUID, _NODEV, _NOEXEC = 2, 4, 8
_POWER_OFF: Final = 0x4321_FEDC
_MAGIC: Final = (0xFEE1_DEAD, 0x2812_1969)


def set_up() -> None:
    """Make this the system that a keep expects."""
    _leave_the_first_root()
    _mount("devtmpfs", "/dev", _NOSUID | _NOEXEC)
    _mount("proc", "/proc", _NOSUID | _NOEXEC | _NODEV)
    _mount("sysfs", "/sys", _NOSUID | _NOEXEC | _NODEV)
    _mount("securityfs", SECURITY, _NOSUID | _NOEXEC | _NODEV)
    if driver := _driver():
        for name in (*REPORTS, driver):
            _load(name)
        with contextlib.suppress(OSError):  # without the module there is no place for it
            _mount("configfs", CONFIG, _NOSUID | _NOEXEC | _NODEV)


def open_port(name: str, *, wait: bool) -> int | None:
    """Open the virtio-serial port that the host calls ``name``; None if there is none."""
    deadline = time.monotonic() + PORT_WAIT_S if wait else 0.0
    while True:
        for port in os.listdir(PORTS):
            if _read(f"{PORTS}/{port}/name").strip() == name.encode():
                return os.open(f"/dev/{port}", os.O_RDWR | os.O_CLOEXEC)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.005)


def killed_for_memory() -> int:
    """Count the processes that the kernel has killed because memory ran out; only the first time opens a file."""
    for line in os.pread(_vmstat(), 1 << 16, 0).splitlines():
        if line.startswith(b"oom_kill "):
            return int(line.split()[1])
    return 0


def has_randomness() -> bool:
    """Say whether the processor gives randomness, so that none depends on what the host can see or choose."""
    if os.uname().machine != "x86_64":
        return True
    flags = next((it for it in _read("/proc/cpuinfo").splitlines() if it.startswith(b"flags")), b"")
    return b"rdrand" in flags.split()  # the kernel strikes it out where it does not work


@cache
def _vmstat() -> int:
    return os.open("/proc/vmstat", os.O_RDONLY | os.O_CLOEXEC)


def power_off() -> None:
    """End the machine; never returns."""
    call("reboot", *_MAGIC, _POWER_OFF, None)
    os._exit(1)  # which the kernel answers with a panic


def _leave_the_first_root() -> None:
    """Have a root that is not the kernel's first one, which nobody can pivot away from."""
    os.makedirs("/root", exist_ok=True)
    call("mount", b"/", b"/root", None, _BIND, None)
    os.chdir("/root")
    call("mount", b".", b"/", None, _MOVE, None)
    os.chroot(".")
    os.chdir("/")


def _mount(kind: str, place: str, flags: int) -> None:
    os.makedirs(place, exist_ok=True)
    call("mount", kind.encode(), place.encode(), kind.encode(), flags, None)


def _driver() -> str:
    """Name the module whose aliases this machine has: to check a module's signature takes 30 ms under emulation."""
    if os.path.isdir("/sys/devices/platform/sev-guest"):
        return "sev-guest"
    return "tdx-guest" if b"tdx_guest" in _read("/proc/cpuinfo").split() else ""


def _load(name: str) -> None:
    """Load a module that the image has; one for hardware that is not there says so."""
    try:
        fd = os.open(f"/lib/modules/{name}.ko", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        call("finit_module", fd, b"", 0)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.EEXIST):
            raise Unavailable(f"module {name} cannot be loaded: {error.strerror}") from None
    finally:
        os.close(fd)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)
