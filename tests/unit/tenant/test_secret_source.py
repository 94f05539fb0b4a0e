"""Secrets that are read late, and shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from enarx.tcb.errors import Malformed, Unavailable
from enarx.tcb.workload import Secret
from enarx.tenant.secret_source import SecretSource, check_names, read_secrets

CANARY = b"canary-77aa"


def test_from_a_file_byte_by_byte(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(CANARY + b"\n\0")
    source = SecretSource.from_file("key", tmp_path / "key", environment=False)
    assert read_secrets([source, Secret(name="b", value=b"")])[0].value == CANARY + b"\n\0"


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", CANARY.decode())
    source = SecretSource.from_environment("key", "CANARY", environment=True)
    assert source.secret() == Secret(name="key", value=CANARY, environment=True)
    monkeypatch.delenv("CANARY")
    with pytest.raises(Unavailable, match="no variable CANARY"):
        source.secret()


def test_nothing_is_read_before_it_is_needed(tmp_path: Path) -> None:
    source = SecretSource.from_file("key", tmp_path / "none")
    check_names([source])
    with pytest.raises(Unavailable, match="no such file"):
        source.secret()


def test_too_large_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(Malformed, match="more than"):
        SecretSource.from_file("key", tmp_path / "key").secret()


def test_its_value_is_never_shown() -> None:
    secret = SecretSource(name="key", read=lambda: CANARY).secret()
    assert CANARY.decode() not in repr(secret)


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b", "a b"])
def test_names_are_checked_first(name: str) -> None:
    with pytest.raises(Malformed):
        SecretSource(name=name, read=lambda: b"")


def test_two_of_one_name() -> None:
    with pytest.raises(Malformed, match="given twice"):
        check_names([Secret(name="a", value=b""), SecretSource(name="a", read=lambda: b"")])
