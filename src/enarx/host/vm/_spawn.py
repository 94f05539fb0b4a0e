"""Start QEMU so that it never outlives who started it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Final

from enarx.tcb.errors import Unavailable

MAX_COMPLAINT_BYTES: Final = 64 << 10
"""What is kept of standard error: a guest can make QEMU complain for as long as it lives."""
_INSTALL: Final = "for example by apt install qemu-system-x86, for a TPM also swtpm"
_HELPER: Final = (
    "import ctypes,os,signal,sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "os.getppid() == int(sys.argv[1]) or os._exit(1)\n"
    "try:\n os.execvp(sys.argv[2], sys.argv[2:])\n"
    "except OSError as error:\n sys.exit(f'{sys.argv[2]}: {error.strerror.lower()}')\n"
)
"""PR_SET_PDEATHSIG, and an end at once if the parent has ended before it."""


class Process:
    """One QEMU. It is killed when the *thread* that made this object ends."""

    def __init__(self, command: Sequence[str], descriptors: Sequence[int]) -> None:
        """Start it with these descriptors under their numbers. Raises ``Unavailable``."""
        if shutil.which(command[0]) is None:
            raise Unavailable(
                f"{command[0]} is not in the PATH of what starts keeps: install it", hint=_INSTALL
            )
        self._complaint = _bounded_file()
        helper = [sys.executable, "-I", "-S", "-c", _HELPER, str(os.getpid()), *command]
        try:
            self._process = subprocess.Popen(
                helper,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._complaint,
                pass_fds=tuple(descriptors),
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,
            )
        except OSError as error:
            self._complaint.close()
            raise Unavailable(f"{command[0]} does not start: {(error.strerror or '').lower()}") from None
        self.pid = self._process.pid

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def wait(self, timeout_s: float) -> int:
        """Give its exit status, negative for a signal; kill it when it takes longer."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def complaint(self) -> str:
        """Give the last line that it wrote on standard error, without its own name."""
        self._complaint.seek(0)
        lines = self._complaint.read().rstrip(b"\0").decode(errors="replace").strip().splitlines()
        return lines[-1].partition(": ")[2] or lines[-1] if lines else ""

    def end(self) -> None:
        """End it now, and give back what is held for it."""
        self.kill()
        self._process.wait()
        self.close()

    def close(self) -> None:
        """Give back what is held for it."""
        self._complaint.close()


def _bounded_file() -> IO[bytes]:
    """Give a file in memory of a size that nobody can change."""
    fd = os.memfd_create("complaint", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, MAX_COMPLAINT_BYTES)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return os.fdopen(fd, "r+b", buffering=0)
