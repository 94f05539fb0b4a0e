"""A tenant's audit record: what happened and what was decided, in a file that cannot be changed unnoticed.

A directory holds ``log.jsonl`` and ``blobs/``. Each line is a JSON document that names the SHA-256 of the line before
it; evidence, collateral, policies and roots lie beside it under their own SHA-256. No secret of a workload is in it.
Who must know that nothing is missing at the end keeps the head, the SHA-256 of the last line.

Of pre-boot TEEs a verdict names the session of the launch by its digest. The session itself, by whose secret the keep
is recognised, is added when nobody will recognise a keep by it any more (docs/spec/session.md, 8.4).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from enarx.attest import Claims, Collateral, EvidenceRejected
from enarx.attest.launch import PreBoot, write_launch
from enarx.tcb.binding import Binding
from enarx.tcb.errors import EnarxError, Unavailable
from enarx.tcb.session import AuditRecord
from enarx.tcb.wire import Value, encode
from enarx.tenant.steps import Step
from enarx.tenant.verification import Trust, summary

LOG: Final = "log.jsonl"
BLOBS: Final = "blobs"
START: Final = "0" * 64
"""What the first line names as its predecessor."""
MAX_LINE_BYTES: Final = 1 << 16
VERDICT: Final = "verdict"
KEEP_LOG: Final = "keep-log"
LIFE: Final = "life"
MAX_BLOB_BYTES: Final = 64 << 20


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of the log."""

    index: int
    previous: str
    time: str
    """RFC 3339, by our clock."""
    deployment: str
    """32 hex digits that all lines of one deployment share."""
    event: str
    facts: dict[str, str]


class AuditFile:
    """Appends the record of one deployment. Several may write to one directory at once."""

    def __init__(self, directory: Path) -> None:
        """Make what is missing of the directory. Raises ``Unavailable``."""
        self.directory = directory
        self.deployment = secrets.token_hex(16)
        self.head = START
        """SHA-256 of the last line that this object wrote."""
        self._index, self._size, self._tail = 0, 0, START
        self._launches: set[bytes] = set()
        with _failing(directory):
            (directory / BLOBS).mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.fdopen(os.open(directory / LOG, flags, 0o600), "r+b", buffering=0)

    def step(self, step: Step) -> None:
        """Record a step."""
        self._append(f"step.{step.what.value}", {"who": step.who.value, "text": step.text, **step.facts})

    def life(self, records: Sequence[AuditRecord]) -> None:
        """Record how the tenant's own view of the keep's life went."""
        self._records(LIFE, records)

    def keep_log(self, records: Sequence[AuditRecord]) -> None:
        """Record all that the keep says of its life; its chain was checked."""
        self._records(KEEP_LOG, records)

    def verdict(
        self,
        trust: Trust,
        evidence: bytes,
        collateral: Collateral,
        binding: Binding,
        *,
        now: datetime,
        launch: PreBoot | None,
        result: Claims | EnarxError,
    ) -> None:
        """Record a decision with all that it rests on."""
        facts = {
            "stage": binding.stage.value,
            "now": now.isoformat(),
            "report_data": binding.report_data().hex(),
            "instance": binding.instance.hex(),
            "workload": binding.workload.hex(),
            "configuration": binding.configuration.hex(),
            "evidence": self.blob(evidence),
            "collateral": self.blob(collateral_bytes(collateral)),
            "policy": self.blob(trust.policy_text.encode()),
            "roots": self.blob(encode([[name, root] for name, root in trust.roots.items()])),
            "tees": " ".join(trust.tees),
            "judgement": judgement(result),
        }
        if launch is not None:
            session = launch_bytes(launch)
            facts["launch"] = sha256(session).hexdigest()
            self._launches.add(session)
        if isinstance(result, Claims):
            facts |= {f"claims.{name}": text for name, text in summary(result).items()}
        self._append(VERDICT, facts)

    def blob(self, data: bytes) -> str:
        """Keep bytes under their digest, which is given in hex."""
        return write_blob(self.directory, data)

    def disclose(self) -> None:
        """Add the sessions of launches that the verdicts name: only when their keep is over, or given up for good."""
        while self._launches:
            self.blob(self._launches.pop())

    def close(self) -> None:
        """Bring everything to the disk."""
        with _failing(self.directory):
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> AuditFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _records(self, event: str, records: Sequence[AuditRecord]) -> None:
        value: list[Value] = [record.fields() for record in records]
        head = records[-1].digest().hex() if records else START
        self._append(event, {"records": self.blob(encode(value)), "head": head})

    def _append(self, event: str, facts: Mapping[str, str]) -> None:
        with _failing(self.directory / LOG):
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                self._catch_up()
                line = Line(
                    index=self._index,
                    previous=self._tail,
                    time=datetime.now(UTC).isoformat(timespec="milliseconds"),
                    deployment=self.deployment,
                    event=event,
                    facts=dict(facts),
                )
                data = msgspec.json.encode(line)
                if len(data) >= MAX_LINE_BYTES:
                    raise EnarxError(f"audit record: more than {MAX_LINE_BYTES} bytes in a line")
                self._file.write(data + b"\n")
                self._took(data)
                self.head = self._tail
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _catch_up(self) -> None:
        """Take in what others have written."""
        self._file.seek(self._size)
        rest = self._file.read()
        for data in rest.split(b"\n")[:-1]:
            self._took(data)
        if rest and not rest.endswith(b"\n"):
            raise EnarxError(
                f"{self.directory / LOG}: ends in the middle of a line", hint="begin another log"
            )

    def _took(self, data: bytes) -> None:
        self._index += 1
        self._size += len(data) + 1
        self._tail = sha256(data).hexdigest()


def write_blob(directory: Path, data: bytes) -> str:
    """Put bytes beside a log under their digest, which is given in hex. Raises ``Unavailable``."""
    name = sha256(data).hexdigest()
    path = directory / BLOBS / name
    temporary = path.with_name(f".{secrets.token_hex(8)}")
    with _failing(path):
        if not path.exists():
            with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(data)
            os.replace(temporary, path)
    return name


def launch_bytes(launch: PreBoot) -> bytes:
    """Write the session of a launch as one blob: secret as long as its keep may be asked who it is."""
    return write_launch(launch).encode()


def collateral_bytes(collateral: Collateral) -> bytes:
    """Write collateral as one blob."""
    documents: list[Value] = [[it.kind.value, it.data] for it in collateral.documents]
    return encode([list(collateral.certificates), list(collateral.crls), documents])


def judgement(result: Claims | EnarxError) -> str:
    """Name the outcome: accepted, or the check or error that stood against it."""
    if isinstance(result, Claims):
        return "accepted"
    if isinstance(result, EvidenceRejected):
        return f"rejected: {result.check.name}"
    return f"rejected: {type(result).__name__}"


@contextlib.contextmanager
def _failing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{path}: {(error.strerror or str(error)).lower()}") from None
