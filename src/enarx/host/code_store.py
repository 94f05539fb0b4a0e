"""The host's store of sealed compiled code: opaque to the host, useless to anybody without the key.

Entries are named by the module's digest and replaced whenever a keep compiled anew; what they hold is for the keep to
judge. The key lies beside them, readable for its owner only: it protects a keep against everybody else's entries.
"""

from __future__ import annotations

import os
import secrets
from hashlib import sha256
from pathlib import Path
from typing import Final

from enarx.tcb.errors import EnarxError
from enarx.tcb.workload import SEAL_KEY_BYTES

MAX_ENTRIES: Final = 64
"""Entries kept; the least recently used go first. A module of 20 MB makes an entry of about 35 MB."""
_KEY_NAME: Final = "seal.key"


class CodeStore:
    """Sealed code in the directory ``path``, which is made when it is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.key = self._load_key()
        except OSError as error:
            raise EnarxError(
                f"the code cache {path} cannot be used: {(error.strerror or '').lower()}",
                hint="name another with --cache, or do without with --no-cache",
            ) from None

    def _load_key(self) -> bytes:
        """Give the key, made on first use; two processes that make it at once agree on one."""
        path = self._path / _KEY_NAME
        for _ in range(2):
            try:
                key = path.read_bytes()
                mode = path.stat().st_mode
                if len(key) == SEAL_KEY_BYTES and not mode & 0o077:
                    return key
                path.unlink()  # a torn or a readable key protects nothing
            except FileNotFoundError:
                pass
            fresh = self._path / f".{_KEY_NAME}.{secrets.token_hex(8)}"
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(secrets.token_bytes(SEAL_KEY_BYTES))
            try:
                os.link(fresh, path)
            except FileExistsError:
                pass  # another process was first; its key holds
            finally:
                fresh.unlink()
        return path.read_bytes()

    def _entry(self, module: bytes) -> Path:
        return self._path / f"{sha256(module).hexdigest()}.sealed"

    def get(self, module: bytes) -> bytes:
        """Give the sealed code for ``module``, or nothing."""
        path = self._entry(module)
        try:
            sealed = path.read_bytes()
            os.utime(path)
        except OSError:
            return b""
        return sealed

    def put(self, module: bytes, sealed: bytes | bytearray) -> None:
        """Keep ``sealed`` for the next time. A full disk is no error: the next run compiles again."""
        fresh = self._path / f".{secrets.token_hex(8)}"
        try:
            fresh.write_bytes(sealed)
            fresh.replace(self._entry(module))
            self._prune()
        except OSError:
            fresh.unlink(missing_ok=True)

    def _prune(self) -> None:
        entries = sorted(self._path.glob("*.sealed"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in entries[MAX_ENTRIES:]:
            path.unlink(missing_ok=True)
