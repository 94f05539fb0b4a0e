"""The image of VM keeps for tests, and machines that run it."""

from __future__ import annotations

import array
import contextlib
import fcntl
import socket
import subprocess
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from tests.docs.console import ROOT
from tests.integration.attested_keep import Tenant

from enarx.api.vm_image import VmImage
from enarx.cli._run import default_cache_dir
from enarx.host.vm import Boot, Guest, Protection, VmKeep, find_accelerator, qemu_command
from enarx.host.vm._options import Files
from enarx.tcb.sallyport.items import Admit, Exited, Item
from enarx.tcb.sallyport.socket_channel import ChannelClosed, SocketChannel
from enarx.tcb.session import LAUNCH_GUID
from enarx.tcb.wire import FrameDecoder, Value, decode, encode, frame
from enarx.tenant.channel import Channel
from enarx.tenant.image.vm import Cache, build_vm_image, read_vm_image

BUILD = ROOT / "build" / "vm"
CACHE = Path(default_cache_dir(), "vm")
"""Shared with whoever builds an image by the command line: packages are fetched once."""
SOURCES = ("src/enarx/tcb", "src/enarx/tenant/image/vm")
END_S = 60.0
BOOT_S = 120.0
SECRET = bytes(range(32))


def keep_image() -> VmImage:
    """Build the image, once for all processes that run tests and for as long as nothing in it changes."""
    digest = sha256((ROOT / "src/enarx/__init__.py").read_bytes())
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".toml"):
                digest.update(path.read_bytes())
    place = BUILD / digest.hexdigest()[:16]
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.exists():
            return read_vm_image(place)
        return build_vm_image(place, Cache(CACHE))


class SecretPort:
    """A platform that offers nothing but a launch secret, behind the machine's second port."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        decoder = FrameDecoder(max_bytes=1 << 17)
        with contextlib.suppress(OSError), self._ours:
            while data := self._ours.recv(1 << 16):
                decoder.feed(data)
                for body in decoder.frames():
                    answer: Value = [2, b""]
                    match decode(body, max_bytes=1 << 17):
                        case ["list", "", _]:
                            answer = [0, b"coco"]
                        case ["read", str(path), _] if path == f"coco/{LAUNCH_GUID}":
                            answer = [0, SECRET]
                        case ["remove", str(), _]:
                            answer = [0, b""]
                    self._ours.sendall(frame(encode(answer)))


class Machine:
    """A VM keep and what its host has of it."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = SocketChannel(channel)
        channel.settimeout(END_S)
        self.door, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with inside:
            self.channel.send(Admit(), [inside.fileno()])
        self._ends: list[socket.socket] = []

    def connect(self) -> socket.socket:
        """Give a tenant's end of a new connection."""
        ours, theirs = socket.socketpair()
        with theirs:
            rights = array.array("i", [theirs.fileno()])
            self.door.sendmsg([b"t"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        self._ends.append(ours)
        return ours

    def tenant(self) -> Tenant:
        """Give a tenant on a new connection, who checks evidence by the launch secret."""
        return Tenant(Channel(self.connect()), SECRET)

    def last_word(self) -> Item:
        """Read the channel to its end and give what came last; tenants leave first."""
        for end in self._ends:
            end.close()
        last: Item = Exited(outcome="nothing")
        with contextlib.suppress(ChannelClosed):
            while True:
                last, _ = self.channel.receive()
        return last

    def close(self) -> None:
        """Close everything."""
        for end in (*self._ends, self.door):
            end.close()


def boot_files(image: VmImage) -> Boot:
    """What QEMU starts without firmware."""
    return Boot(kernel=image.vmlinux, initrd=image.initrd)


@contextlib.contextmanager
def booting(image: VmImage, *, files: Boot | None = None, guest: Guest | None = None) -> Iterator[VmKeep]:
    """Start a VM keep on the platform of a secret."""
    keep = VmKeep(
        Protection.NONE,
        files or boot_files(image),
        guest or Guest(cmdline=image.cmdline),
        platform=SecretPort().theirs,
    )
    try:
        yield keep
    finally:
        keep.stop()


@contextlib.contextmanager
def machine(image: VmImage, *, guest: Guest | None = None) -> Iterator[tuple[VmKeep, Machine]]:
    """A VM keep that has booted."""
    with booting(image, guest=guest) as keep:
        keep.await_ready()
        made = Machine(keep.channel)
        try:
            yield keep, made
        finally:
            made.close()


def file_in(folder: Path, name: str, content: bytes) -> Path:
    """Write a file and give its path."""
    path = folder / name
    path.write_bytes(content)
    return path


def told(image: VmImage, guest: Guest | None = None, *, protection: Protection = Protection.NONE) -> bytes:
    """Boot an image with an init of a test's own, and give everything that it writes to its port until it ends.

    With measurement by a TPM through firmware, else without both. The machine must end by itself.
    """
    measured = protection is Protection.TPM
    paths = [image.kernel if measured else image.vmlinux, image.initrd]
    if measured:
        assert image.firmware is not None
        paths.append(image.firmware)
    ours, port = socket.socketpair()
    watch, control = socket.socketpair()
    with contextlib.ExitStack() as stack:
        for end in (ours, port, watch, control):
            stack.enter_context(end)
        kernel, initrd, *firmware = (stack.enter_context(path.open("rb")).fileno() for path in paths)
        files = Files(
            kernel=kernel,
            initrd=initrd,
            firmware=firmware[0] if firmware else None,
            keep=port.fileno(),
            control=control.fileno(),
        )
        guest = guest or Guest(cmdline=image.cmdline)
        command = qemu_command(protection, guest, files, find_accelerator())
        qemu = subprocess.Popen(command, pass_fds=files.all())
        stack.callback(qemu.wait)
        stack.callback(qemu.kill)
        port.close()
        control.close()
        ours.settimeout(BOOT_S)
        said = b"".join(iter(lambda: ours.recv(4096), b""))
        assert qemu.wait(BOOT_S) == 0
        return said
