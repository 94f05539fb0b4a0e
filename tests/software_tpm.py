"""A TPM 2.0 that is not ours: swtpm, with commands sent to it directly."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

TIMEOUT_S = 30.0


class SoftwareTpm:
    """One TPM, switched on."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def exchange(self, command: bytes) -> bytes:
        """Give the answer to a command."""
        self.sock.sendall(command)
        return self.sock.recv(4096)

    def extend(self, index: int, data: bytes) -> None:
        """Put the digest of ``data`` into a register of the bank of SHA-256."""
        answer = self.exchange(extend_command(index, data))
        assert answer[6:10] == bytes(4), answer.hex()


def extend_command(index: int, data: bytes) -> bytes:
    """TPM2_PCR_Extend (TPM 2.0 Library, part 3, 22.2)."""
    password = bytes.fromhex("00000009 40000009 0000 00 0000")
    digests = bytes.fromhex("00000001 000b") + hashlib.sha256(data).digest()
    return plain_command(0x182, index.to_bytes(4, "big") + password + digests, tag=0x8002)


def plain_command(code: int, rest: bytes = b"", *, tag: int = 0x8001) -> bytes:
    """Any command."""
    return tag.to_bytes(2, "big") + (10 + len(rest)).to_bytes(4, "big") + code.to_bytes(4, "big") + rest


@contextlib.contextmanager
def software_tpm(folder: Path | None = None) -> Iterator[SoftwareTpm]:
    """Switch on the TPM whose state is in ``folder``; without one it is new and has seeds of its own."""
    with tempfile.TemporaryDirectory() as new:
        ours, theirs = socket.socketpair()
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder or new}", "--terminate"]
        command += ["--fd", str(theirs.fileno()), "--flags", "not-need-init,startup-clear"]
        with theirs:
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
        try:
            with ours:
                yield SoftwareTpm(ours)
            process.wait(TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
