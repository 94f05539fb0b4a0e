"""Secrets that were injected before a guest ran, as Linux shows them in ``/sys/kernel/security/secrets/coco``
(drivers/virt/coco/efi_secret).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from enarx_emulator.tree import parts, refused


class SecretTree:
    """``coco/GUID``: secrets that were injected before the guest ran; removing one wipes it."""

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        self._secrets = dict(secrets)

    def make(self, path: str) -> None:
        """Nothing can be made here."""
        raise refused(errno.EPERM, path)

    def write(self, path: str, data: bytes) -> None:
        """Nothing can be written here."""
        self._found(path)
        raise refused(errno.EACCES, path)

    def read(self, path: str) -> bytes:
        """Give a secret."""
        return self._secrets[self._found(path)]

    def remove(self, path: str) -> None:
        """Wipe a secret: nobody reads it again."""
        del self._secrets[self._found(path)]

    def list(self, path: str) -> list[str]:
        """Give the one directory, or the names of the secrets that are left in it."""
        match parts(path):
            case []:
                return ["coco"]
            case ["coco"]:
                return sorted(self._secrets)
        raise refused(errno.ENOENT, path)

    def _found(self, path: str) -> str:
        match parts(path):
            case ["coco", name] if name in self._secrets:
                return name
        raise refused(errno.ENOENT, path)
