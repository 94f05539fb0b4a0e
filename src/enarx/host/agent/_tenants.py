"""Who may ask this agent for what: the machine owner's accounts, tokens and quotas.

They protect the machine's resources. They protect no secret of a tenant: evidence does that.
"""

from __future__ import annotations

import hmac
import threading
import time
import tomllib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from enarx.tcb.errors import EnarxError, Malformed

MAX_KEEPS: Final = 256
STARTS_PER_MINUTE: Final = 600
_WINDOW_S: Final = 60.0


class NotAllowed(EnarxError):
    """The agent does not know this token."""


class QuotaReached(EnarxError):
    """The account has all that it may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody who may ask. Its keeps are its own: nobody else sees them."""

    name: str
    token_sha256: bytes = b""
    """Of the bearer token; empty for the one account of an agent without tokens."""
    max_keeps: int = MAX_KEEPS
    starts_per_minute: int = STARTS_PER_MINUTE


class Accounts:
    """All accounts, and how much each has used."""

    def __init__(self, accounts: Mapping[str, Account] | None = None) -> None:
        """Without ``accounts`` everybody who can connect is one and the same."""
        self.open = accounts is None
        self._accounts = {"": Account(name="")} if accounts is None else dict(accounts)
        self._starts: dict[str, deque[float]] = {name: deque() for name in self._accounts}
        self._lock = threading.Lock()

    def find(self, authorization: str) -> Account:
        """Give the account of a request by its ``Authorization``. Raises ``NotAllowed``."""
        if self.open:
            return self._accounts[""]
        scheme, _, token = authorization.partition(" ")
        digest = sha256(token.strip().encode("latin-1", "replace")).digest()
        found = None
        for account in self._accounts.values():  # all of them, so that the time tells nothing
            if hmac.compare_digest(account.token_sha256, digest) and scheme.lower() == "bearer":
                found = account
        if found is None:
            hint = "give the token that the owner of the machine gave you (--token-file)"
            raise NotAllowed("no account has this token", hint=hint)
        return found

    def start(self, account: Account, keeps: int, *, now: float | None = None) -> None:
        """Account for one more keep beside ``keeps`` that live. Raises ``QuotaReached``."""
        now = time.monotonic() if now is None else now
        if keeps >= account.max_keeps:
            hint = "stop one (enarx keep stop)"
            raise QuotaReached(f"{keeps} keeps live, {account.max_keeps} are allowed", hint=hint)
        with self._lock:
            starts = self._starts[account.name]
            while starts and now - starts[0] >= _WINDOW_S:
                starts.popleft()
            if len(starts) >= account.starts_per_minute:
                raise QuotaReached(
                    f"{account.starts_per_minute} keeps a minute are allowed", hint="wait a minute"
                )
            starts.append(now)


def parse_accounts(text: str) -> Accounts:
    """Read TOML: a table a tenant with ``token_sha256`` (hex) and optional quotas. Raises ``Malformed``."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Malformed(f"accounts are not TOML: {error}") from None
    accounts = {}
    for name, values in document.items():
        if not isinstance(values, dict) or not name:
            raise Malformed(f"{name}: expected a table")
        if unknown := sorted(values.keys() - {"token_sha256", "max_keeps", "starts_per_minute"}):
            raise Malformed(f"{name}.{unknown[0]}: unknown key")
        accounts[name] = Account(
            name=name,
            token_sha256=_digest(name, values.get("token_sha256")),
            max_keeps=_positive(name, "max_keeps", values.get("max_keeps", MAX_KEEPS)),
            starts_per_minute=_positive(
                name, "starts_per_minute", values.get("starts_per_minute", STARTS_PER_MINUTE)
            ),
        )
    if not accounts:
        raise Malformed("accounts: there are none, so nobody could ask for anything")
    if len({account.token_sha256 for account in accounts.values()}) != len(accounts):
        raise Malformed("accounts: two have the same token")
    return Accounts(accounts)


def _digest(name: str, value: object) -> bytes:
    try:
        digest = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        digest = b""
    hint = "printf %s TOKEN | sha256sum"
    if len(digest) != 32:
        raise Malformed(f"{name}.token_sha256: expected 64 hex digits", hint=hint)
    if digest == sha256(b"").digest():
        raise Malformed(f"{name}.token_sha256: expected a token, found the digest of nothing", hint=hint)
    return digest


def _positive(name: str, key: str, value: object) -> int:
    if type(value) is not int or not 0 < value <= 1_000_000:
        raise Malformed(f"{name}.{key}: expected a whole number of 1 to 1000000")
    return value
