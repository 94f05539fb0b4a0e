"""Whatever the builder of VM images reads is understood or refused, and what it packs is the same in any order."""

from __future__ import annotations

from fuzz.vm_image import one
from hypothesis import given
from hypothesis import strategies as st
from tests.forge.debian import deb, library

from enarx.tenant.image.vm._cpio import cpio, file
from enarx.tenant.image.vm._deb import read_deb
from enarx.tenant.image.vm._elf import needed, strip

NAMES = st.text("abcxyz-._+", min_size=1, max_size=8).filter(lambda name: name not in {".", ".."})
FILES = st.dictionaries(NAMES, st.binary(max_size=64), max_size=6)
DAMAGE = st.tuples(st.integers(0, 600), st.integers(1, 255))


@given(FILES)
def test_a_package_gives_back_what_went_in(files: dict[str, bytes]) -> None:
    placed = {f"usr/{name}": content for name, content in files.items()}
    assert {member.path: member.content for member in read_deb(deb(placed))} == placed


@given(st.lists(NAMES, max_size=5), st.binary(max_size=64))
def test_stripping_keeps_what_a_loader_reads(names: list[str], symbols: bytes) -> None:
    stripped = strip(library(names, symbols=symbols))
    assert needed(stripped) == tuple(names)
    assert strip(stripped) == stripped == strip(library(names))


@given(FILES)
def test_an_archive_does_not_depend_on_the_order_of_its_files(files: dict[str, bytes]) -> None:
    entries = {name: file(content) for name, content in files.items()}
    archive = cpio(entries)
    assert archive == cpio(dict(sorted(entries.items(), reverse=True)))
    assert len(archive) % 512 == 0


@given(st.sampled_from([deb({"a": b"1"}), library(["libc.so.6"])]), DAMAGE)
def test_damage_is_understood_or_refused(data: bytes, damage: tuple[int, int]) -> None:
    at, change = damage
    one(data[:at] + bytes(byte ^ change for byte in data[at : at + 1]) + data[at + 1 :])
    one(data[:at])


@given(st.binary(max_size=300))
def test_any_bytes_are_understood_or_refused(data: bytes) -> None:
    one(data)
