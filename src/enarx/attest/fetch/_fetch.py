"""From evidence to collateral: what is needed, from the cache or from a service, several at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from queue import SimpleQueue
from typing import Final, ParamSpec, Self, TypeVar

from enarx.attest import registry
from enarx.attest._verifier import recognise
from enarx.attest.collateral import Collateral
from enarx.attest.errors import MalformedCollateral
from enarx.attest.fetch import _amd_kds, _intel_pcs
from enarx.attest.fetch._disk import DiskCache, Entry
from enarx.attest.fetch._http import Answer, Client
from enarx.attest.fetch._item import Files, Item, Plan, until
from enarx.attest.fetch.errors import CollateralUnavailable
from enarx.attest.material import recognise_collateral
from enarx.attest.sgx import SgxQuote
from enarx.attest.snp import SnpEvidence
from enarx.attest.tdx import TdxQuote

WORKERS: Final = 4
"""Connections at once: services limit what one address may ask."""
QUIET_S: Final = 1.0
"""What takes longer is told to ``progress``."""
_UNKNOWN: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST)
_KEPT: Final = ("content-type",)

P = ParamSpec("P")
T = TypeVar("T")


class Origin(Enum):
    """Where a file comes from."""

    SERVICE = "service"
    CONFIRMED = "cache, confirmed by the service"
    CACHE = "cache"
    CACHE_ALONE = "cache, the service did not answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Whom to ask: the vendors themselves, or others that speak as they do."""

    kds: str = _amd_kds.AMD_KDS
    pcs: str = _intel_pcs.INTEL_PCS
    with_qve: bool = False
    """Also fetch the identity of Intel's quote verification enclave, which ``Verifier`` does not use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One piece of collateral under the name of a file. Nothing of it is verified."""

    name: str
    data: bytes
    url: str
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """All that was found."""

    files: tuple[File, ...]
    notes: tuple[str, ...] = field(default=())
    """What no service gives, or what it gave already out of date."""

    @property
    def collateral(self) -> Collateral:
        """The files as an argument for ``Verifier.verify``, each certificate once."""
        found = Collateral.none()
        for data in dict.fromkeys(file.data for file in self.files):
            found |= recognise_collateral(data)
        return replace(found, certificates=tuple(dict.fromkeys(found.certificates)))


def fetch_collateral(
    evidence: Iterable[bytes],
    *,
    now: datetime,
    services: Services | None = None,
    cache: Path | None = None,
    client: Client | None = None,
    progress: Callable[[str], None] | None = None,
) -> Fetched:
    """Fetch what the verification of ``evidence`` needs beside it.

    ``cache`` is a directory of earlier answers; ``progress`` is told, in a clause, what takes longer than a second.
    Raises ``CollateralUnavailable``, ``Unavailable`` (evidence that does not say what it needs), ``Malformed``.
    """
    asked = _Asked(client or Client(), DiskCache(cache) if cache else None, now)
    plans = tuple(plan(one, services or Services()) for one in evidence)
    told = _Progress(progress)
    with _Workers() as workers:
        chosen = told.results([workers.submit(_choose, one, asked) for one in plans])
        items = {item.url: item for choice in chosen for item in choice}
        found = told.results([workers.submit(asked.files, item) for item in items.values()])
    files = [file for some in found for file in some]
    notes = [note for one in plans for note in one.notes]
    notes += [f"{file.name}: {asked.late[file.url]}" for file in files if file.url in asked.late]
    return Fetched(files=tuple(files), notes=tuple(dict.fromkeys(notes)))


def plan(evidence: bytes, services: Services) -> Plan:
    """Derive from evidence what to ask for. Raises ``Unavailable``, ``Malformed``."""
    tee, opened = recognise(evidence, tuple(registry.BUILTIN.values()))
    parsed = tee.parse(opened)
    match getattr(parsed, "hardware", parsed):  # evidence that wraps a report of the hardware has it there
        case SnpEvidence() as found:
            return _amd_kds.plan(found, services.kds)
        case SgxQuote() | TdxQuote() as found:
            return _intel_pcs.plan(found.quote, services.pcs, with_qve=services.with_qve)
    return Plan(notes=(f"there is no service to ask about {tee.name} evidence",))


def _choose(one: Plan, asked: _Asked) -> tuple[Item, ...]:
    *tried, last = one.choices
    for choice in tried:
        try:
            asked.files(choice[0])
        except CollateralUnavailable as error:
            if error.status not in _UNKNOWN:
                raise
        else:
            return choice
    return last


class _Asked:
    """What was asked for in one call: each address once."""

    def __init__(self, client: Client, cache: DiskCache | None, now: datetime) -> None:
        self._client, self._cache, self._now = client, cache, now
        self._found: dict[str, tuple[File, ...]] = {}
        self.late: dict[str, str] = {}
        """What was already out of date when it was given, by address."""

    def files(self, item: Item) -> tuple[File, ...]:
        """From memory, from the disk, or from the service, in this order."""
        if item.url not in self._found:
            files, origin = self._look(item)
            made = (File(name=name, data=data, url=item.url, origin=origin) for name, data in files.items())
            self._found[item.url] = tuple(made)
        return self._found[item.url]

    def _look(self, item: Item) -> tuple[Files, Origin]:
        entry = self._cache.get(item.url) if self._cache else None
        files, end = _understood(item, entry)
        if entry is None or files is None or end is None:
            return self._ask(item), Origin.SERVICE
        again = end if item.revalidated is None else min(end, entry.fetched + item.revalidated)
        if entry.fetched <= self._now < again:
            return files, Origin.CACHE
        try:
            answer = self._client.get(item.url, etag=entry.etag)
        except CollateralUnavailable as error:
            if self._now > end or error.status in _UNKNOWN:
                raise
            return files, Origin.CACHE_ALONE
        if answer.status == HTTPStatus.NOT_MODIFIED:
            self._keep(item, replace(entry, fetched=self._now))
            self._note_if_late(item, end)
            return files, Origin.CONFIRMED
        return self._taken(item, answer), Origin.SERVICE

    def _ask(self, item: Item) -> Files:
        return self._taken(item, self._client.get(item.url))

    def _taken(self, item: Item, answer: Answer) -> Files:
        """Read what a service sent, and keep it."""
        try:
            if answer.status != HTTPStatus.OK:
                raise MalformedCollateral("it is empty")
            files = item.read(answer.body, answer.headers)
            end = until(files)
        except MalformedCollateral as error:
            kind = answer.headers.get("content-type", "no type")[:80]
            raise CollateralUnavailable(
                item.url,
                f"the answer ({kind}, {len(answer.body)} bytes) is not what was asked for: {error}",
                status=answer.status,
                hint="is it the right service, and no proxy or login page in between?",
            ) from None
        headers = {name: text for name, text in answer.headers.items() if _is_kept(name)}
        etag = answer.headers.get("etag", "")
        self._keep(item, Entry(body=answer.body, headers=headers, etag=etag, fetched=self._now))
        self._note_if_late(item, end)
        return files

    def _keep(self, item: Item, entry: Entry) -> None:
        if self._cache is not None:
            self._cache.put(item.url, entry)

    def _note_if_late(self, item: Item, end: datetime) -> None:
        if end < self._now:
            self.late[item.url] = f"the service gave what ended on {end:%Y-%m-%d}"


def _understood(item: Item, entry: Entry | None) -> tuple[Files | None, datetime | None]:
    """What an entry holds, and until when; nothing of one that was spoilt."""
    if entry is None:
        return None, None
    try:
        files = item.read(entry.body, entry.headers)
        return files, until(files)
    except MalformedCollateral:
        return None, None


def _is_kept(header: str) -> bool:
    return header in _KEPT or header.endswith("issuer-chain")


class _Workers:
    """Threads that nobody waits for: once one answer is missing, the others are of no use.

    The pools of the standard library are waited for when the process ends, which could take a minute.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._over = False

    def __enter__(self) -> Self:
        for _ in range(WORKERS):
            threading.Thread(target=self._work, name="enarx-fetch", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over = True
        for _ in range(WORKERS):
            self._jobs.put(None)

    def submit(self, make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Let a thread call ``make``."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(make(*args, **kwargs))
            except BaseException as error:  # raised where the result is asked for
                future.set_exception(error)

        self._jobs.put(run)
        return future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._over:
            job()


class _Progress:
    """Waits for results, and tells what takes long."""

    def __init__(self, tell: Callable[[str], None] | None) -> None:
        self._tell = tell
        self._started = time.monotonic()
        self._last = ""

    def results(self, futures: list[Future[T]]) -> list[T]:
        """The results in order. Raises what the first failure raised, without waiting for the rest."""
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=QUIET_S, return_when=FIRST_COMPLETED)
            for one in done:
                one.result()
            if self._tell and pending and time.monotonic() - self._started > QUIET_S:
                text = f"fetching: {len(futures) - len(pending)} of {len(futures)} answers are there"
                if text != self._last:
                    self._tell(text)
                self._last = text
        return [one.result() for one in futures]
