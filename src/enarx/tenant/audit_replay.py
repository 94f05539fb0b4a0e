"""Read an audit record again: nothing may be missing or changed, and every verdict must come out as it did then."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from enarx.attest import Claims, Collateral, Document, Kind, Policy, TrustAnchors, Verifier, registry
from enarx.attest.launch import parse_launch
from enarx.tcb.errors import EnarxError, Malformed, Unavailable
from enarx.tcb.session import AuditRecord, verify_chain
from enarx.tcb.wire import Value, decode
from enarx.tenant.audit import (
    BLOBS,
    KEEP_LOG,
    LIFE,
    LOG,
    MAX_BLOB_BYTES,
    MAX_LINE_BYTES,
    START,
    VERDICT,
    Line,
    judgement,
    launch_bytes,
)
from enarx.tenant.credentials import Credential
from enarx.tenant.kept_launch import parse_kept
from enarx.tenant.verification import summary

_LIST_BYTES: Final = 64 << 20
WITHHELD: Final = "not judged"
"""What ``Replayed.again`` is while the secret of a launch is kept elsewhere."""


class _Withheld(EnarxError):
    """The session of a launch is not in the record yet."""


class Tampered(Malformed):
    """The record is not as it was written: something is changed, missing or out of order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One verdict, then and now."""

    index: int
    deployment: str
    stage: str
    judgement: str
    """``accepted``, or what stood against it."""
    again: str
    """What it is now, by the same bytes, rules and time."""
    detail: str = ""

    @property
    def same(self) -> bool:
        """Whether both agree."""
        return self.judgement == self.again


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A whole record, complete up to ``head``."""

    lines: tuple[Line, ...]
    head: str
    verdicts: tuple[Replayed, ...]


def replay(directory: Path, *, head: str | None = None, launches: Iterable[bytes] = ()) -> Replay:
    """Check the whole record and judge everything again.

    ``head``, if the caller kept it, must be one of the lines': without it, lines missing at the end go unnoticed.
    ``launches`` are sessions of keeps that were left running (``kept_launches``), which the record does not hold yet.
    Raises ``Tampered``, ``Unavailable``.
    """
    kept = {sha256(launch).hexdigest(): launch for launch in launches}
    lines, heads = read_log(directory / LOG)
    if head is not None and head not in heads:
        raise Tampered("the log ends before the line that was kept as its head")
    verdicts = []
    for line in lines:
        if line.event == VERDICT:
            verdicts.append(_again(_Facts(directory, line, kept), line))
        elif line.event in (KEEP_LOG, LIFE):
            _check_records(directory, line)
    return Replay(lines=tuple(lines), head=heads[-1], verdicts=tuple(verdicts))


def kept_launches(credentials: Iterable[Credential]) -> list[bytes]:
    """Give the sessions of launches whose keeps were left running, for ``replay``. Raises ``Malformed``."""
    return [launch_bytes(parse_kept(it.launch).session) for it in credentials if it.launch]


def read_log(path: Path) -> tuple[list[Line], list[str]]:
    """Read all lines, each of which must follow the one before; give them with their digests, the start included."""
    lines: list[Line] = []
    heads = [START]
    for data in _lines(path):
        try:
            line = msgspec.json.decode(data, type=Line)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise Tampered(f"{path}: line {len(lines) + 1}: {error}") from None
        if line.index != len(lines) or line.previous != heads[-1]:
            raise Tampered(
                f"{path}: line {len(lines) + 1} does not follow the one before it",
                hint="a line was changed, removed or moved",
            )
        lines.append(line)
        heads.append(sha256(data).hexdigest())
    return lines, heads


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while data := file.readline(MAX_LINE_BYTES):
                if not data.endswith(b"\n"):
                    raise Tampered(f"{path}: ends in the middle of a line")
                yield data[:-1]
    except OSError as error:
        raise Unavailable(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _again(told: _Facts, line: Line) -> Replayed:
    """Judge once more, with the bytes, the rules and the time of then."""
    tees = registry.select(told.text("tees").split() or registry.BUILTIN)
    anchors = TrustAnchors.vendor()
    result: Claims | EnarxError
    try:
        for name, root in told.roots():
            anchors = anchors.adding(root, name=name)
        launch = parse_launch(told.launch()) if "launch" in line.facts else None
        verifier = Verifier(
            tees=tees, anchors=anchors, policy=Policy.parse(told.blob("policy").decode(), tees)
        )
        result = verifier.verify(
            told.blob("evidence"),
            collateral=told.collateral(),
            binding=told.octets("report_data"),
            now=told.time(),
            launch=launch,
        )
    except _Withheld as error:
        return told.replayed(WITHHELD, str(error))
    except Tampered:
        raise
    except EnarxError as error:
        result = error
    claims = {name.removeprefix("claims."): text for name, text in line.facts.items() if "." in name}
    again, detail = judgement(result), "" if isinstance(result, Claims) else str(result)
    if isinstance(result, Claims) and summary(result) != claims and told.text("judgement") == again:
        again, detail = (
            "accepted, but as something else",
            str(sorted(summary(result).items() ^ claims.items())),
        )
    return told.replayed(again, detail)


def _check_records(directory: Path, line: Line) -> None:
    """Check the chain of a keep's record, or of our own view of it."""
    told = _Facts(directory, line)
    found = decode(told.blob("records"), max_bytes=_LIST_BYTES)
    if not isinstance(found, list):
        raise Tampered(f"line {line.index + 1}: no list of records")
    chain = verify_chain([AuditRecord.from_fields(fields) for fields in found])
    if chain.hex() != told.text("head"):
        raise Tampered(f"line {line.index + 1}: the chain of records has another head")


class _Facts:
    """The facts of one line, and the blobs that they name."""

    def __init__(
        self, directory: Path, line: Line, launches: Mapping[str, bytes] = MappingProxyType({})
    ) -> None:
        self._directory = directory
        self._line = line
        self._launches = launches

    def replayed(self, again: str, detail: str) -> Replayed:
        """The verdict of this line, and what it is now."""
        return Replayed(
            index=self._line.index,
            deployment=self._line.deployment,
            stage=self.text("stage"),
            judgement=self.text("judgement"),
            again=again,
            detail=detail,
        )

    def launch(self) -> bytes:
        """Give the session of the launch, from wherever it is."""
        digest = self.octets("launch").hex()
        if digest in self._launches:
            return self._launches[digest]
        if not (self._directory / BLOBS / digest).exists():
            raise _Withheld(
                "the keep may still live, and the record does not hold its launch secret before it ends"
            )
        return self.blob("launch")

    def text(self, name: str) -> str:
        try:
            return self._line.facts[name]
        except KeyError:
            raise Tampered(f"line {self._line.index + 1}: there is no {name}") from None

    def octets(self, name: str) -> bytes:
        try:
            return bytes.fromhex(self.text(name))
        except ValueError:
            raise Tampered(f"line {self._line.index + 1}: {name}: expected hex digits") from None

    def time(self) -> datetime:
        with contextlib.suppress(ValueError):
            found = datetime.fromisoformat(self.text("now"))
            if found.tzinfo is not None:
                return found
        raise Tampered(f"line {self._line.index + 1}: now: expected a time with its zone")

    def blob(self, name: str) -> bytes:
        """Give the bytes that a fact names, which must have that digest."""
        digest = self.octets(name)
        path = self._directory / BLOBS / digest.hex()
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BLOB_BYTES + 1)
        except OSError:
            raise Tampered(
                f"{path}: is missing", hint=f"it is the {name} of line {self._line.index + 1}"
            ) from None
        if sha256(data).digest() != digest:
            raise Tampered(f"{path}: is not what its name says")
        return data

    def roots(self) -> Iterator[tuple[str, bytes]]:
        found = decode(self.blob("roots"), max_bytes=MAX_BLOB_BYTES)
        if not isinstance(found, list):
            raise Tampered(f"line {self._line.index + 1}: roots: expected a list")
        for item in found:
            match item:
                case [str(name), bytes(root)]:
                    yield name, root
                case _:
                    raise Tampered(f"line {self._line.index + 1}: roots: expected names and certificates")

    def collateral(self) -> Collateral:
        found = decode(self.blob("collateral"), max_bytes=MAX_BLOB_BYTES)
        try:
            match found:
                case [list(certificates), list(crls), list(documents)]:
                    return Collateral(
                        certificates=_all_bytes(certificates),
                        crls=_all_bytes(crls),
                        documents=tuple(_document(it) for it in documents),
                    )
        except ValueError:
            pass
        raise Tampered(f"line {self._line.index + 1}: collateral: expected three lists")


def _all_bytes(items: list[Value]) -> tuple[bytes, ...]:
    if not all(isinstance(item, bytes) for item in items):
        raise ValueError
    return tuple(item for item in items if isinstance(item, bytes))


def _document(item: Value) -> Document:
    match item:
        case [str(kind), bytes(data)]:
            return Document(Kind(kind), data)
    raise ValueError
