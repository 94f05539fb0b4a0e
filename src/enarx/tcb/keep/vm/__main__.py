"""Where a VM keep begins: the kernel of the image starts this as its first process (``/init``).

1. Make a system of what the kernel left (``_machine``); find the port to the host, and where evidence comes from.
2. Load what every keep needs, and fork the keep: the same ``AttestedKeep``, as confined as any process keep.
3. Give up all but carrying bytes and the power switch; serve the port until the keep has ended (``_door``); power off.

Nothing is read from the kernel's command line, and there is no console.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

from enarx.tcb.errors import EnarxError, Unavailable
from enarx.tcb.keep.attested import AttestedKeep
from enarx.tcb.keep.confinement import confined_child
from enarx.tcb.keep.lockdown import Profile, close_all_but, confine, isolate
from enarx.tcb.keep.network import load
from enarx.tcb.keep.platform import Tree
from enarx.tcb.keep.runner import Runtime, prepare
from enarx.tcb.keep.vm._door import Door
from enarx.tcb.keep.vm._launch_secret import take_secret
from enarx.tcb.keep.vm._machine import (
    CONFIG,
    SECURITY,
    has_randomness,
    killed_for_memory,
    open_port,
    power_off,
    set_up,
)
from enarx.tcb.keep.vm._tpm_tree import TpmTree
from enarx.tcb.keep.vm._tree_server import DirectoryTree, serve_tree
from enarx.tcb.sallyport.items import Exited
from enarx.tcb.sallyport.socket_channel import SocketChannel
from enarx.tcb.workload import Ending, Outcome

HOST_PORT: Final = "org.enarx.keep"
PLATFORM_PORT: Final = "org.enarx.platform"
TSM: Final = f"{CONFIG}/tsm"
TPM: Final = "/dev/tpmrm0"
MEASUREMENTS: Final = f"{SECURITY}/tpm0"
NO_RANDOMNESS: Final = Outcome(
    ending=Ending.UNAVAILABLE,
    detail="the processor gives this machine no randomness (RDRAND), and a keep takes none from its host",
    hint="choose a CPU model that has rdrand",
)


def main() -> None:
    """Be the first process; never returns."""
    try:
        set_up()
        port = open_port(HOST_PORT, wait=True)
        if port is None:
            raise Unavailable(f"there is no port {HOST_PORT}")
        _live(port)
    finally:
        power_off()


def _live(port: int) -> None:
    platform = _hardware() or open_port(PLATFORM_PORT, wait=False)
    if platform is None:
        platform = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)  # no evidence: the keep says so itself
    runtime = prepare()
    load()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _keep(theirs, platform, runtime)
    theirs.close()
    os.close(platform)
    os.set_blocking(port, False)
    door = Door(port, ours, pid)
    killed_for_memory()  # which opens what it reads, while that is possible
    try:
        _confine(Profile.CARRIER)
        door.serve()
    except EnarxError as error:
        door.report(error)


def _confine(profile: Profile, *, beneath: str | None = None) -> None:
    """Give up what this process does not need. Raises ``Unavailable`` if a layer is missing."""
    results = confine(profile, beneath=beneath)
    if missing := [f"{it.step.value} ({it.detail})" for it in results if not it.applied]:
        raise Unavailable(f"a process of the machine cannot be confined: {', '.join(missing)}")


def _keep(channel: socket.socket, platform: int, runtime: Runtime) -> None:
    """Become the keep; never returns."""
    try:
        link = SocketChannel(channel)
        if not has_randomness():
            link.send(Exited(outcome=NO_RANDOMNESS.value()))
            return
        keep = AttestedKeep(link, platform, runtime, required=True, streams=True)
        confined_child(keep, Profile.MODULE, isolate(Profile.MODULE))
    finally:
        os._exit(1)


def _hardware() -> int | None:
    """Fork a process that answers from what a TEE, or a TPM, has left in this machine, where there is one."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        try:
            close_all_but(ours.fileno())
            tree = _evidence()
            if tree is not None:
                _confine(Profile.TREE, beneath=TSM if isinstance(tree, DirectoryTree) else None)
                os.write(ours.fileno(), b"!")
                serve_tree(ours.fileno(), tree)
        finally:
            os._exit(0)
    ours.close()
    return theirs.detach() if theirs.recv(1) else None


def _evidence() -> Tree | None:
    """Find the kernel's own reports, or else the secret of a launch, or else, without a TEE, a TPM."""
    with contextlib.suppress(OSError):
        os.mkdir(f"{TSM}/report/probe")
        os.rmdir(f"{TSM}/report/probe")
        return DirectoryTree(TSM)
    with contextlib.suppress(OSError):
        if (secret := take_secret()) is not None:
            return secret
    with contextlib.suppress(OSError):
        return _tpm()
    return None


def _tpm() -> TpmTree:
    device, log = os.open(TPM, os.O_RDWR | os.O_CLOEXEC), b""
    with contextlib.suppress(OSError):  # firmware that keeps none
        log = DirectoryTree(MEASUREMENTS).read("binary_bios_measurements")
    return TpmTree(device, log)


if __name__ == "__main__":
    main()
