"""The lock: what the release ships is what it says, and nothing else is read as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from enarx.tcb.errors import Malformed
from enarx.tenant.image import DISTRIBUTIONS
from enarx.tenant.image.vm import Role, format_lock, installed_lock, parse_lock

TEXT = format_lock(installed_lock())
ROOT = Path(__file__).parents[5]


def test_the_lock_of_the_release_reads_back() -> None:
    assert parse_lock(TEXT) == installed_lock()


def test_its_wheels_are_those_of_the_keep() -> None:
    lock = (ROOT / "requirements/keep.txt").read_text()
    wheels = installed_lock().wheels
    assert {wheel.name for wheel in wheels} == set(DISTRIBUTIONS)
    assert [wheel.file for wheel in wheels if f"sha256:{wheel.sha256}" not in lock] == []
    assert [wheel.file for wheel in wheels if f"{wheel.name}=={wheel.version}" not in lock] == []


def test_it_names_one_kernel_and_both_kinds_of_firmware() -> None:
    lock = installed_lock()
    assert [len(lock.of(role)) for role in (Role.KERNEL, Role.SEV_FIRMWARE, Role.FIRMWARE)] == [1, 1, 1]
    assert lock.of(Role.KERNEL)[0].version.startswith("6.12.")


def test_it_names_no_registry() -> None:
    assert "://" not in TEXT


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[[package]]", "[package]", "lock: "),
        ("size = ", "sizes = ", "fields are"),
        ('role = "kernel"', 'role = "core"', "role is 'core'"),
        ('role = "kernel"', 'role = "system"', "no package has the role kernel"),
        ('path = "pool/', 'path = "pool/../', "expected a file below pool/"),
        ('path = "pool/', 'path = "/pool/', "expected a file below pool/"),
        ('path = "pool/', 'path = "pool//', "expected a file below pool/"),
        ("size = 33925512", "size = 0", "size is 0"),
        ("size = 33925512", 'size = "1"', "size is '1'"),
        ("size = 33925512", "size = 999999999999", "size is 999999999999"),
        ('sha256 = "69c', 'sha256 = "69C', "expected 64 hexadecimal digits"),
        ('file = "cbor2', 'file = "../cbor2', "expected the name of a wheel"),
        (".whl", ".zip", "expected the name of a wheel"),
        ('name = "libc6"', "name = 6", "name is 6"),
        ('name = "libc6"', 'name = "lib\'c6"', "without blanks and quotes"),
        ('name = "libc6"', 'name = "lib c6"', "without blanks and quotes"),
    ],
)
def test_another_form_is_refused(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(Malformed, match=message):
        parse_lock(TEXT.replace(old, new, 1))


def test_a_file_that_is_named_twice_is_refused() -> None:
    first = TEXT.index("[[package]]")
    once = TEXT[first : TEXT.index("[[package]]", first + 1)]
    with pytest.raises(Malformed, match="named twice"):
        parse_lock(TEXT + once)


def test_entries_that_are_no_tables_are_refused() -> None:
    with pytest.raises(Malformed, match="expected a table, found int"):
        parse_lock("package = [1]\nwheel = []\n")
