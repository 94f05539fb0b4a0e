"""Keep images on an emulated platform: loaded once, every file held against the manifest, then started often.

A real platform encrypts the memory of what it measured. Here the files of an image lie in the platform's own state
directory, and a fork server of the platform starts keeps from them; each keep has a port to the platform.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Final

from enarx.api.keep_image import MANIFEST, members, read_image
from enarx.host.fork_server import ForkServer
from enarx.host.keep_process import KeepProcess
from enarx.tcb.errors import Unavailable
from enarx_emulator.errors import EmulatorError
from enarx_emulator.program import check_files, parse_image

POOL: Final = 4
"""Keeps that are ready before anybody asks."""


class Loader:
    """The images of one platform."""

    def __init__(self, directory: Path, *, pool: int = POOL) -> None:
        self._home = directory / "images"
        self._pool = pool
        self._servers: dict[bytes, ForkServer] = {}

    def load(self, path: Path) -> bytes:
        """Load the archive at ``path``, give its manifest. Raises ``Malformed``, ``Unavailable``, ``EmulatorError``."""
        image = read_image(path)
        name = sha256(image.manifest).hexdigest()
        if image.manifest not in self._servers:
            root = self._home / name
            if not root.exists():
                self._extract(path, root)
            check_files(parse_image(image.manifest), root)
            self._servers[image.manifest] = ForkServer(attested=True, path=str(root), pool=self._pool)
        return image.manifest

    def start(self, manifest: bytes) -> KeepProcess:
        """Start a keep of a loaded image. Raises ``EmulatorError``, ``KeepNotStarted``."""
        server = self._servers.get(manifest)
        if server is None:
            raise EmulatorError("the image is not loaded", hint="load it first")
        return server.take()

    def close(self) -> None:
        """End all fork servers, and with them all keeps."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def _extract(self, path: Path, root: Path) -> None:
        """Write the files where only the platform writes; they appear all at once."""
        try:
            self._home.mkdir(mode=0o700, exist_ok=True)
            made = Path(tempfile.mkdtemp(dir=self._home))
            try:
                for name, content in members(path):
                    if name != MANIFEST:
                        (made / name).parent.mkdir(parents=True, exist_ok=True)
                        (made / name).write_bytes(content)
                made.chmod(0o755)
                os.rename(made, root)
            except BaseException:
                shutil.rmtree(made, ignore_errors=True)
                raise
        except OSError as error:
            raise Unavailable(f"{self._home}: {(error.strerror or str(error)).lower()}") from None
