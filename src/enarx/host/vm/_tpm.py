"""TPMs in software for machines, by ``swtpm``: each keep has one of its own, and all of them have the same seeds.

So every keep of a host has the same attestation key, which a tenant enrols once. Who owns the directory of the seeds
can quote whatever he likes: what such a key proves is the word of the machine's owner.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from enarx.tcb import tpm
from enarx.tcb.errors import EnarxError, Unavailable

PROGRAM: Final = "swtpm"
SEEDS: Final = "tpm2-00.permall"
"""The file in which swtpm keeps what a TPM 2.0 never forgets."""
KEY: Final = "attestation-key.pem"
"""What the owner of the host gives to tenants; it is written for him, and never read."""
TIMEOUT_S: Final = 20.0
_ANSWERS: Final = ("--flags", "not-need-init,startup-clear")
"""It was switched on, and nobody sends a first command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tpm:
    """The TPM of one machine: a program behind a channel by which QEMU controls it, both not started yet."""

    command: Sequence[str]
    control: socket.socket
    """QEMU's end."""
    inside: socket.socket
    """The program's end."""
    discard: Callable[[], None]
    """Removes what it had, when it has ended."""


class Seeds:
    """The seeds of a host's TPMs in ``directory``, made when they are first needed. Safe for several threads."""

    def __init__(self, directory: Path) -> None:
        """Take the directory for this process. Raises ``Unavailable``."""
        self._place = directory
        self._lock = threading.Lock()
        self._key: bytes | None = None
        with _failing(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._hold = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._hold)
                hint = "give each host a directory of its own"
                raise Unavailable(f"{directory}: another host uses these seeds", hint=hint) from None
            shutil.rmtree(directory / "keeps", ignore_errors=True)  # of a host that was killed
            (directory / "keeps").mkdir(mode=0o700)

    def public_key(self) -> bytes:
        """Give the attestation key of all these TPMs: SubjectPublicKeyInfo in DER. Raises ``Unavailable``."""
        with self._lock:
            if self._key is None:
                with self._copy() as folder:
                    found = _attestation_key(folder)
                with _failing(self._place):
                    (self._place / KEY).write_bytes(pem_of(found))
                self._key = found
            return self._key

    def new_tpm(self) -> Tpm:
        """Give a TPM with these seeds. Raises ``Unavailable``."""
        self.public_key()  # makes the seeds, and shows that the program works
        with _failing(self._place):
            folder = self._new_folder()
        control, inside = socket.socketpair()
        channel = ("--ctrl", f"type=unixio,clientfd={inside.fileno()}", "--flags", "not-need-init")
        return Tpm(
            command=_command(folder, *channel),
            control=control,
            inside=inside,
            discard=lambda: shutil.rmtree(folder, ignore_errors=True),
        )

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._hold)

    @contextlib.contextmanager
    def _copy(self) -> Iterator[Path]:
        with _failing(self._place):
            folder = self._new_folder()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _new_folder(self) -> Path:
        """Make the folder of one TPM with a copy of the seeds; make the seeds if there are none."""
        seeds = self._place / SEEDS
        if not seeds.exists():
            with tempfile.TemporaryDirectory(dir=self._place) as folder:
                _attestation_key(Path(folder))
                Path(folder, SEEDS).rename(seeds)
        made = Path(tempfile.mkdtemp(dir=self._place / "keeps"))
        shutil.copy(seeds, made / SEEDS)
        return made


def pem_of(spki: bytes) -> bytes:
    """Give a public key in PEM."""
    return load_der_public_key(spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _attestation_key(folder: Path) -> bytes:
    """Start the TPM in ``folder`` and have it derive its key."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            command = _command(folder, "--fd", str(theirs.fileno()), *_ANSWERS)
            try:
                process = subprocess.Popen(
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
            except OSError as error:
                raise _unusable(f"does not start: {(error.strerror or '').lower()}") from None
        try:
            ours.settimeout(TIMEOUT_S)
            _, point = tpm.read_primary(tpm.ask(lambda it: _exchange(ours, it), tpm.create_primary()))
        except (OSError, EnarxError) as error:
            process.kill()
            said = process.communicate()[1].decode(errors="replace").strip()
            raise _unusable(f"gives no key: {said or error}") from None
        ours.shutdown(socket.SHUT_RDWR)  # it ends when nobody talks to it
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=TIMEOUT_S)
        process.kill()
        process.communicate()
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _exchange(sock: socket.socket, command: bytes) -> bytes:
    sock.sendall(command)
    return sock.recv(tpm.MAX_ANSWER_BYTES)


def _command(folder: Path, *more: str) -> Sequence[str]:
    return (PROGRAM, "socket", "--tpm2", "--tpmstate", f"dir={folder},mode=0600", "--terminate", *more)


def _unusable(reason: str) -> Unavailable:
    return Unavailable(f"{PROGRAM} {reason}", hint=f"install {PROGRAM}")


@contextlib.contextmanager
def _failing(place: Path) -> Iterator[None]:
    """Say of an error of the system where it was met."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{error.filename or place}: {(error.strerror or str(error)).lower()}") from None
