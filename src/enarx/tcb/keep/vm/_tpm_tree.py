"""A TPM as a folder of three files, for a keep that may open none: commands, answers, and the firmware's log.

The keep runs a workload and counts as hostile here. It gets what a quote needs: nothing that changes a register, clears
the TPM, or reads what else is in it. The kernel's resource manager keeps its objects apart from all others.
"""

from __future__ import annotations

import os

from enarx.tcb.keep.platform._tpm import FOLDER
from enarx.tcb.tpm import MAX_ANSWER_BYTES, code_of

_ENOENT, _EIO, _EACCES = 2, 5, 13
COMMAND, ANSWER, LOG = (f"{FOLDER}/{name}" for name in ("command", "answer", "log"))


class TpmTree:
    """The TPM behind the descriptor ``device`` (``Tree``)."""

    def __init__(self, device: int, log: bytes) -> None:
        self._device, self._log = device, log

    def write(self, path: str, data: bytes) -> None:
        """Have the TPM do a command of those that may be. Raises ``Malformed`` for all others."""
        if path != COMMAND:
            raise OSError(_EACCES, "not a file for commands")
        code_of(data)
        if os.write(self._device, data) != len(data):
            raise OSError(_EIO, "written in part")

    def read(self, path: str) -> bytes:
        """Give the answer to the last command, or the log."""
        if path == LOG:
            return self._log
        if path != ANSWER:
            raise OSError(_ENOENT, "no such file")
        return os.read(self._device, MAX_ANSWER_BYTES)

    def list(self, path: str) -> list[str]:
        """Give the folder."""
        return [FOLDER]

    def make(self, path: str) -> None:
        """Refuse, as ``remove`` does: these are all files that there are."""
        raise OSError(_EACCES, "neither made nor removed")

    remove = make
