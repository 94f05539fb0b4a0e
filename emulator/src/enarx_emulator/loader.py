"""Keep images on an emulated platform: loaded once, every file held against the manifest, then started often.

The image of VM keeps is a directory, and its keeps are started by QEMU from files that the platform has opened.

A real platform encrypts the memory of what it measured. Here the files of an image lie in the platform's own state
directory, and a fork server of the platform starts keeps from them; each keep has a port to the platform.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from enarx.api.keep_image import MANIFEST, members, read_image
from enarx.api.vm_image import VmImage, read_vm_image
from enarx.host.fork_server import ForkServer
from enarx.tcb.errors import EnarxError, Unavailable
from enarx_emulator.errors import EmulatorError
from enarx_emulator.program import check_files, parse_image

POOL: Final = 4
"""Keeps that are ready before anybody asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """One keep: its process, the host's end of its channel, and the platform's end of its port."""

    pid: int
    channel: socket.socket
    port: socket.socket
    booting: bool
    """Whether its first word is still to come through the channel."""


class Loader:
    """The images of one platform."""

    def __init__(self, directory: Path, *, pool: int = POOL, vcpus: int = 1) -> None:
        self._home = directory / "images"
        self._pool = pool
        self.vcpus = vcpus
        """Processors of each virtual machine."""
        self._servers: dict[bytes, ForkServer] = {}
        self.machines: dict[bytes, VmImage] = {}
        """Images of VM keeps, by their manifests."""

    def load(self, path: Path) -> bytes:
        """Load the archive or directory at ``path``, give its manifest.

        Raises ``Malformed``, ``Unavailable``, ``EmulatorError``.
        """
        if path.is_dir():
            return self._load_machine(path)
        image = read_image(path)
        name = sha256(image.manifest).hexdigest()
        if image.manifest not in self._servers:
            root = self._home / name
            if not root.exists():
                self._extract(path, root)
            check_files(parse_image(image.manifest), root)
            self._servers[image.manifest] = ForkServer(attested=True, path=str(root), pool=self._pool)
        return image.manifest

    def start(self, manifest: bytes, kind: str) -> Started:
        """Start a keep of a loaded image on a machine of this kind.

        Raises ``EmulatorError``, ``Unavailable``, ``KeepNotStarted``.
        """
        if manifest in self.machines:
            image = self.machines[manifest]
            return _boot(image, image.vmlinux if kind == "pef" else image.kernel, vcpus=self.vcpus)
        server = self._servers.get(manifest)
        if server is None:
            raise EmulatorError("the image is not loaded", hint="load it first")
        keep = server.take()
        if keep.port is None:
            raise EmulatorError("the keep has no port")
        return Started(pid=keep.pid, channel=keep.hand_over(), port=keep.port, booting=False)

    def _load_machine(self, path: Path) -> bytes:
        """Copy the image to where only the platform writes."""
        given = read_vm_image(path)
        root = self._home / given.digest.hex()
        image: VmImage | None = None
        with contextlib.suppress(EnarxError):  # not there yet, or damaged since
            image = read_vm_image(root)
        if image is None or image.snp_identity != given.snp_identity:
            shutil.rmtree(root, ignore_errors=True)
            self._made(root, lambda made: shutil.copytree(path, made, dirs_exist_ok=True))
            image = read_vm_image(root)
        self.machines[image.manifest] = image
        return image.manifest

    def close(self) -> None:
        """End all fork servers, and with them all keeps."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def _extract(self, path: Path, root: Path) -> None:
        """Write the files where only the platform writes."""

        def write(made: Path) -> None:
            for name, content in members(path):
                if name != MANIFEST:
                    (made / name).parent.mkdir(parents=True, exist_ok=True)
                    (made / name).write_bytes(content)

        self._made(root, write)

    def _made(self, root: Path, write: Callable[[Path], object]) -> None:
        """Have ``write`` fill a directory, which appears as ``root`` all at once."""
        try:
            self._home.mkdir(mode=0o700, exist_ok=True)
            made = Path(tempfile.mkdtemp(dir=self._home))
            try:
                write(made)
                made.chmod(0o755)
                os.rename(made, root)
            except BaseException:
                shutil.rmtree(made, ignore_errors=True)
                raise
        except OSError as error:
            raise Unavailable(f"{self._home}: {(error.strerror or str(error)).lower()}") from None


def _boot(image: VmImage, kernel: Path, *, vcpus: int) -> Started:
    """Start QEMU with the kernel that was measured, and with a port that no other guest has."""
    from enarx.host.vm import Boot, Guest, Protection, VmKeep  # QEMU's client costs others their start

    ours, theirs = socket.socketpair()
    try:
        keep = VmKeep(
            Protection.NONE,
            Boot(kernel=kernel, initrd=image.initrd),
            Guest(cmdline=image.cmdline, vcpus=vcpus),
            platform=theirs,
            announce=True,
        )
    except BaseException:
        ours.close()
        raise
    return Started(pid=keep.pid, channel=keep.channel, port=ours, booting=True)
