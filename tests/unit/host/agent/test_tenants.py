"""Accounts of an agent: whose token it is, and how much it may have."""

from __future__ import annotations

from hashlib import sha256

import pytest

from enarx.host.agent import Account, Accounts, parse_accounts
from enarx.host.agent._tenants import NotAllowed, QuotaReached
from enarx.tcb.errors import Malformed

ANNA, BEN = (sha256(token).hexdigest() for token in (b"token of anna", b"token of ben"))
TWO = f"""
[anna]
token_sha256 = "{ANNA}"
max_keeps = 2
starts_per_minute = 3

[ben]
token_sha256 = "{BEN}"
"""


def test_a_token_names_its_account() -> None:
    accounts = parse_accounts(TWO)
    assert accounts.find("Bearer token of anna") == Account(
        name="anna", token_sha256=bytes.fromhex(ANNA), max_keeps=2, starts_per_minute=3
    )
    assert accounts.find("bearer  token of ben ").name == "ben"


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer token of carl",
        "Basic token of anna",
        "token of anna",
        f"Bearer {ANNA}",
    ],
)
def test_anything_else_names_nobody(authorization: str) -> None:
    with pytest.raises(NotAllowed, match="no account"):
        parse_accounts(TWO).find(authorization)


def test_without_accounts_all_are_one() -> None:
    assert Accounts().open
    assert Accounts().find("") == Accounts().find("Bearer whatever") == Account(name="")


def test_keeps_and_starts_are_limited() -> None:
    accounts = parse_accounts(TWO)
    anna, ben = accounts.find("Bearer token of anna"), accounts.find("Bearer token of ben")
    with pytest.raises(QuotaReached, match="2 keeps live, 2 are allowed"):
        accounts.start(anna, 2, now=0.0)
    for now in (0.0, 10.0, 20.0):
        accounts.start(anna, 0, now=now)
    with pytest.raises(QuotaReached, match="3 keeps a minute"):
        accounts.start(anna, 0, now=59.9)
    accounts.start(ben, 0, now=59.9)
    accounts.start(anna, 0, now=60.0)
    with pytest.raises(QuotaReached):
        accounts.start(anna, 0, now=60.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are none"),
        ("[anna", "not TOML"),
        ("anna = 1", "anna: expected a table"),
        ("[anna]", "anna.token_sha256: expected 64 hex digits"),
        ("[anna]\ntoken_sha256 = 'abcd'", "64 hex digits"),
        ("[anna]\ntoken_sha256 = 7", "64 hex digits"),
        (f"[anna]\ntoken_sha256 = '{sha256(b'').hexdigest()}'", "found the digest of nothing"),
        (f"[anna]\ntoken_sha256 = '{ANNA}'\ntoken = 'x'", "anna.token: unknown key"),
        (f"[anna]\ntoken_sha256 = '{ANNA}'\nmax_keeps = 0", "anna.max_keeps: expected a whole number"),
        (f"[anna]\ntoken_sha256 = '{ANNA}'\nmax_keeps = true", "anna.max_keeps"),
        (f"[anna]\ntoken_sha256 = '{ANNA}'\nstarts_per_minute = 1.5", "anna.starts_per_minute"),
        (f"[anna]\ntoken_sha256 = '{ANNA}'\n[ben]\ntoken_sha256 = '{ANNA}'", "two have the same token"),
        (f"['']\ntoken_sha256 = '{ANNA}'", "expected a table"),
    ],
)
def test_malformed_accounts_are_refused(text: str, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        parse_accounts(text)
