"""Answers of services on disk, for the next time: hints for what need not be asked again, never trusted.

An entry is one file, named by the SHA-256 of its address, which appears whole or not at all: processes that share a
directory cannot disturb each other. Whatever is wrong with an entry, it counts as absent.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from enarx.attest.fetch._http import MAX_BODY_BYTES
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import decode, encode

MAX_ENTRIES: Final = 1024
"""A platform has about six; the oldest go first."""
_MAX_ENTRY_BYTES: Final = MAX_BODY_BYTES + 128 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One answer as it came, and until when it need not be asked for again."""

    body: bytes
    headers: Mapping[str, str]
    etag: str
    fetched: datetime
    """When the service last confirmed it."""


class DiskCache:
    """Entries in ``directory``, which is made when it is missing. A disk that refuses is no error: all is fetched."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, url: str) -> Entry | None:
        """The entry of an address, or nothing."""
        try:
            with self._path(url).open("rb") as file:
                data = file.read(_MAX_ENTRY_BYTES + 1)
            digest, packed = data[:32], data[32:]
            if sha256(packed).digest() != digest:
                return None
            match decode(packed, max_bytes=_MAX_ENTRY_BYTES):
                case {
                    "url": str(of),
                    "body": bytes(body),
                    "headers": dict(headers),
                    "etag": str(etag),
                    "fetched": int(fetched),
                } if of == url:
                    texts = {name: value for name, value in headers.items() if isinstance(value, str)}
                    when = datetime.fromtimestamp(fetched, UTC)
                    return Entry(body=body, headers=texts, etag=etag, fetched=when)
        except (OSError, OverflowError, ValueError, Malformed):
            pass
        return None

    def put(self, url: str, entry: Entry) -> None:
        """Keep an entry in place of an older one."""
        packed = encode(
            {
                "url": url,
                "body": entry.body,
                "headers": dict(entry.headers),
                "etag": entry.etag,
                "fetched": int(entry.fetched.timestamp()),
            }
        )
        fresh = self._directory / f".{secrets.token_hex(8)}"
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh.write_bytes(sha256(packed).digest() + packed)
            fresh.replace(self._path(url))
            self._prune()
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)

    def _path(self, url: str) -> Path:
        return self._directory / f"{sha256(url.encode()).hexdigest()}.collateral"

    def _prune(self) -> None:
        entries = list(self._directory.glob("*.collateral"))
        if len(entries) > MAX_ENTRIES:
            entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
            for path in entries[MAX_ENTRIES:]:
                path.unlink(missing_ok=True)
