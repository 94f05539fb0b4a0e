"""What a tenant must remember to return to a detached keep: a file each, for the user alone.

Never the secrets of a workload: the tenant's key for this one keep, and what is needed to recognise it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enarx.tcb.binding import DIGEST_BYTES, INSTANCE_BYTES
from enarx.tcb.errors import EnarxError, Malformed, Unavailable
from enarx.tenant.audit import BLOBS, launch_bytes, write_blob
from enarx.tenant.kept_launch import parse_kept

SCHEMA: Final = "enarx.keep/1"
MAX_FILE_BYTES: Final = 1 << 16
_NAME: Final = re.compile(r"[0-9a-f]{16}-([0-9a-f]{32})\.json")
_TEMPORARY: Final = ".new-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """The way back to one keep. Whoever has it is the keep's tenant."""

    host: str
    """URL, without any token."""
    keep: str
    tee: str
    instance: bytes
    workload: bytes
    configuration: bytes
    created: str
    """RFC 3339, by our clock."""
    key: bytes = field(repr=False)
    """The tenant's Ed25519 key, 32 bytes, made for this keep."""
    launch: bytes = field(default=b"", repr=False)
    """Of pre-boot TEEs: the launch session with its secret, and what the launch showed."""
    image: str = ""
    """Directory of the VM image that was expected; empty for the process keep of a release."""
    record: str = ""
    """Directory of the audit record that gets the launch session when this credential is removed."""

    def private_key(self) -> Ed25519PrivateKey:
        """Load the key."""
        return Ed25519PrivateKey.from_private_bytes(self.key)


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file."""

    schema: Annotated[str, msgspec.Meta(pattern=f"^{SCHEMA}$")]
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    keep: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    tee: Annotated[str, msgspec.Meta(pattern="^[a-z0-9-]{1,32}$")]
    instance: Annotated[bytes, msgspec.Meta(min_length=INSTANCE_BYTES, max_length=INSTANCE_BYTES)]
    workload: Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
    configuration: Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
    created: str
    key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    launch: bytes = b""
    image: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    record: Annotated[str, msgspec.Meta(max_length=4096)] = ""


class Credentials:
    """All credentials of one user, in a directory that nobody else may read."""

    def __init__(self, directory: Path | None = None) -> None:
        """Without ``directory``: ``$XDG_DATA_HOME/enarx/keeps``."""
        self.directory = directory or _default()

    def add(self, credential: Credential) -> Path:
        """Write one file, whole or not at all. Raises ``EnarxError``: none is ever replaced."""
        path = self._path(credential)
        fields = {name: getattr(credential, name) for name in credential.__dataclass_fields__}
        data = msgspec.json.encode(_Stored(schema=SCHEMA, **fields))
        temporary = self.directory / f"{_TEMPORARY}{secrets.token_hex(8)}"
        with self._failing(path):
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            os.chmod(self.directory, 0o700)
            try:
                with open(temporary, "xb", opener=_private) as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(temporary, path)
            except FileExistsError:
                raise Malformed(
                    f"{path}: is there already", hint="two keeps have one name: remove it"
                ) from None
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
        return path

    def all(self, *, unreadable: Callable[[EnarxError], None] | None = None) -> list[Credential]:
        """Give all, the oldest first; ``unreadable`` is told of each file that is not as we write them.

        Raises ``EnarxError`` for the first such file when nobody is to be told.
        """
        found = []
        for path in self._paths():
            try:
                found.append(self._read(path))
            except EnarxError as error:
                if unreadable is None:
                    raise
                unreadable(error)
        return sorted(found, key=lambda it: (it.created, it.keep))

    def get(self, keep: str, *, host: str | None = None) -> Credential:
        """Find the one of a keep, whose name may be shortened. Raises ``Unavailable``."""
        named = [path for path in self._paths() if (_NAME.fullmatch(path.name) or [""])[1].startswith(keep)]
        found = [it for it in map(self._read, named) if host in (None, it.host)]
        if len(found) != 1 or not keep:
            what = "more than one keep" if found else "no keep"
            hint = "give more of its name, or its host" if found else "was it started from this account?"
            raise Unavailable(f"there is {what} called {keep[:40]!a}", hint=hint)
        return found[0]

    def remove(self, credential: Credential) -> None:
        """Forget one: nobody can return to its keep any more, so that its launch secret may go on record."""
        path = self._path(credential)
        with self._failing(path), contextlib.suppress(FileNotFoundError):
            path.unlink()
        if credential.launch and credential.record and (Path(credential.record) / BLOBS).is_dir():
            write_blob(Path(credential.record), launch_bytes(parse_kept(credential.launch).session))

    def _paths(self) -> list[Path]:
        with self._failing(self.directory):
            try:
                names = os.listdir(self.directory)
            except FileNotFoundError:
                return []
        return [self.directory / name for name in sorted(names) if _NAME.fullmatch(name)]

    def _path(self, credential: Credential) -> Path:
        host = sha256(credential.host.encode()).hexdigest()[:16]
        name = f"{host}-{credential.keep}.json"
        if not _NAME.fullmatch(name):
            raise Malformed("the name of a keep: expected 32 hex digits")
        return self.directory / name

    def _read(self, path: Path) -> Credential:
        with self._failing(path):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as file:
                mode = os.fstat(fd).st_mode
                data = file.read(MAX_FILE_BYTES + 1)
        if not stat.S_ISREG(mode) or stat.S_IMODE(mode) & 0o077 or len(data) > MAX_FILE_BYTES:
            raise Malformed(
                f"{path}: no file that only its owner can read", hint="chmod 600, if you trust it"
            )
        try:
            stored = msgspec.json.decode(data, type=_Stored)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise Malformed(f"{path}: {error}") from None
        fields = {name: getattr(stored, name) for name in Credential.__dataclass_fields__}
        return Credential(**fields)

    @staticmethod
    @contextlib.contextmanager
    def _failing(path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EnarxError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _default() -> Path:
    """Where the XDG base directory specification wants data."""
    base = os.environ.get("XDG_DATA_HOME", "")
    home = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "share"
    return home / "enarx" / "keeps"
