"""Credentials: for the user alone, whole or not at all, never replaced, strict when read."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from enarx.tcb.errors import EnarxError, Malformed, Unavailable
from enarx.tenant.credentials import Credential, Credentials

KEY = bytes(range(32))
ONE = Credential(
    host="http://localhost:7478",
    keep="0123456789abcdef" * 2,
    tee="snp",
    instance=bytes(16),
    workload=bytes(32),
    configuration=b"c" * 32,
    created="2026-01-01T00:00:00+00:00",
    key=KEY,
)


@pytest.fixture
def store(tmp_path: Path) -> Credentials:
    return Credentials(tmp_path / "deep" / "keeps")


def test_what_is_written_is_read(store: Credentials) -> None:
    store.add(ONE)
    assert store.get(ONE.keep) == ONE
    assert store.get(ONE.keep[:4], host=ONE.host) == ONE
    assert store.get(ONE.keep).private_key().private_bytes_raw() == KEY
    store.remove(ONE)
    store.remove(ONE)
    assert store.all() == []


def test_only_its_owner_can_read_it(store: Credentials) -> None:
    mask = os.umask(0)
    try:
        path = store.add(ONE)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    assert [it.name for it in store.directory.iterdir()] == [path.name]


def test_the_key_is_not_shown() -> None:
    assert "\\x01\\x02" not in repr(replace(ONE, launch=KEY))
    assert KEY.hex() not in repr(ONE)


def test_none_is_replaced(store: Credentials) -> None:
    """A host that gives a keep the name of another must not make its tenant lose the key."""
    store.add(ONE)
    with pytest.raises(Malformed, match="is there already"):
        store.add(replace(ONE, key=bytes(32)))
    assert store.get(ONE.keep).key == KEY


def test_two_hosts_may_use_one_name(store: Credentials) -> None:
    other = replace(ONE, host="http://other:7478", created="2025-01-01T00:00:00+00:00")
    store.add(ONE)
    store.add(other)
    assert store.all() == [other, ONE]
    assert store.get(ONE.keep, host=other.host) == other
    with pytest.raises(Unavailable, match="more than one"):
        store.get(ONE.keep)


@pytest.mark.parametrize("name", ["../../etc/passwd", "A" * 32, "", "0" * 31])
def test_names_that_are_paths(store: Credentials, name: str) -> None:
    with pytest.raises(Malformed):
        store.add(replace(ONE, keep=name))


@pytest.mark.parametrize("name", ["", "f", "*", "0123/"])
def test_keeps_that_are_not_there(store: Credentials, name: str) -> None:
    store.add(ONE)
    with pytest.raises(Unavailable):
        store.get(name)


@pytest.mark.parametrize(
    "change", [{"schema": "enarx.keep/2"}, {"more": 1}, {"key": "AAAA"}, {"tee": "../x"}, {"keep": "x"}]
)
def test_files_that_are_not_ours(store: Credentials, change: dict[str, object]) -> None:
    path = store.add(ONE)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(Malformed):
        store.all()


@pytest.mark.parametrize("data", [b"", b"{", b'{"schema": "\xff"}', b"\0" * 100, b"\xff\xfe"])
def test_damaged_files(store: Credentials, data: bytes) -> None:
    path = store.add(ONE)
    path.write_bytes(data)
    with pytest.raises(Malformed, match=path.name):
        store.all()
    other = replace(ONE, keep="cd" * 16)
    store.add(other)
    told: list[EnarxError] = []
    assert store.all(unreadable=told.append) == [other]
    assert [path.name in str(error) for error in told] == [True]


def test_a_file_that_others_may_read(store: Credentials) -> None:
    path = store.add(ONE)
    path.chmod(0o640)
    with pytest.raises(Malformed, match="only its owner"):
        store.all()


def test_a_link_in_its_place(store: Credentials, tmp_path: Path) -> None:
    path = store.add(ONE)
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(EnarxError):
        store.all()


def test_where_it_is_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Credentials().directory == tmp_path / "enarx" / "keeps"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Credentials().directory == tmp_path / ".local" / "share" / "enarx" / "keeps"
