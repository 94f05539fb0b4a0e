"""What a guest sees of its TEE: the files that Linux (or Gramine) shows, with their errors."""

from __future__ import annotations

from typing import Protocol


class Tree(Protocol):
    """Files as one guest sees them; paths are relative, parts divided by ``/``. Everything raises ``OSError``."""

    def make(self, path: str) -> None:
        """Make a directory."""

    def remove(self, path: str) -> None:
        """Remove a directory that the guest made, or a file that may be removed."""

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file at once."""

    def read(self, path: str) -> bytes:
        """Read a whole file at once."""

    def list(self, path: str) -> list[str]:
        """Give the names in a directory, sorted."""
