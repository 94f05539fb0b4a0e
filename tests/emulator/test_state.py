"""Seeds give the same secrets again; directories are private, whole, and have one owner."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from enarx.tcb.errors import Malformed, Unavailable
from enarx_emulator.errors import EmulatorError
from enarx_emulator.seed import Seed, random_seed
from enarx_emulator.state import Directory, Memory


def test_a_seed_gives_the_same_secrets_and_no_two_labels_the_same() -> None:
    one, again, other = Seed(bytes(32)), Seed(bytes(32)), random_seed()
    assert one.derive("a", 48) == again.derive("a", 48) != one.derive("b", 48)
    assert one.derive("a", 48) != other.derive("a", 48)
    assert one.child("a").derive("a", 32) != one.derive("a", 32)
    for curve in (ec.SECP256R1(), ec.SECP384R1()):
        numbers = one.ec_key("k", curve).private_numbers()
        assert numbers == again.ec_key("k", curve).private_numbers()
        assert numbers.private_value < curve.group_order
    with pytest.raises(EmulatorError, match="at least 16"):
        Seed(b"short")


def test_what_is_put_is_there_in_another_process_life(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "state")
    assert directory.get("machine") is None
    directory.put("machine", b"one")
    directory.put("machine", b"two")
    again = Directory(tmp_path / "state")
    assert again.get("machine") == b"two"
    assert again.names() == ["machine"]
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state/machine").stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_the_old_value(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "state")
    directory.put("machine", b"old")
    (tmp_path / "state").chmod(0o700)
    (tmp_path / "state" / "occupied").mkdir()
    with pytest.raises(Unavailable):
        directory.put("occupied", b"new")
    assert directory.names() == ["machine", "occupied"]
    assert directory.get("machine") == b"old"


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "a\0b", "n" * 201])
def test_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    for store in (Directory(tmp_path / "state"), Memory()):
        with pytest.raises(Malformed):
            store.get(name)
        with pytest.raises(Malformed):
            store.put(name, b"")


def test_a_directory_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    with pytest.raises(Unavailable, match="read by others"):
        Directory(tmp_path / "state")


def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    first, second = Directory(tmp_path / "state"), Directory(tmp_path / "state")
    with first.owned(), pytest.raises(Unavailable, match="in use"), second.owned():
        pass
    with second.owned():
        pass


def test_memory_and_directory_make_once(tmp_path: Path) -> None:
    for store in (Directory(tmp_path / "state"), Memory()):
        assert store.once("key", lambda: b"first") == store.once("key", lambda: b"second") == b"first"
        assert store.names() == ["key"]


def _make(path: Path, mark: bytes) -> bytes:
    return Directory(path).once("key", lambda: mark)


def test_processes_that_make_at_once_agree(tmp_path: Path) -> None:
    marks = [bytes([number]) for number in range(8)]
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        made = pool.starmap(_make, [(tmp_path / "state", mark) for mark in marks])
    assert len(set(made)) == 1


WRITER = """
import sys
from pathlib import Path
from enarx_emulator.state import Directory
directory = Directory(Path(sys.argv[1]))
print("up", flush=True)
while True:
    for letter in b"ab":
        directory.put("value", bytes([letter]) * 200000)
"""


def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_value(tmp_path: Path) -> None:
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "state")], stdout=subprocess.PIPE
        )
        with writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"up\n"
            while Directory(tmp_path / "state").get("value") is None:
                time.sleep(0.001)
            writer.kill()
        directory = Directory(tmp_path / "state")
        assert directory.get("value") in (b"a" * 200000, b"b" * 200000)
        assert directory.names() == ["value"]
        with directory.owned():
            directory.put("value", b"c")
        names = {path.name for path in (tmp_path / "state").iterdir()}
        assert names == {"value", ".owner"}
        (tmp_path / "state/value").unlink()
