"""Shared libraries: what is cut off was not needed, and what they are linked with is found."""

from __future__ import annotations

import ctypes
from importlib import metadata
from pathlib import Path

import pytest
from tests.forge.debian import library

from enarx.tcb.errors import Malformed
from enarx.tenant.image.vm._elf import is_elf, needed, strip


def test_symbols_behind_the_last_segment_go() -> None:
    plain = library(["libc.so.6"])
    stripped = strip(library(["libc.so.6"], symbols=b"names of functions"))
    assert len(stripped) == len(plain)
    assert b"names" not in stripped
    assert stripped[0x28:0x30] == bytes(8)
    assert stripped[0x3C:0x40] == bytes(4)
    assert strip(stripped) == stripped


def test_libraries_are_named_in_order() -> None:
    assert needed(library(["libb.so.2", "liba.so.1"])) == ("libb.so.2", "liba.so.1")
    assert needed(library()) == ()


def test_a_real_library_still_loads(tmp_path: Path) -> None:
    files = metadata.files("cffi") or []
    source = next(Path(str(file.locate())) for file in files if file.name.startswith("_cffi_backend"))
    stripped = strip(source.read_bytes())
    place = tmp_path / "library.so"
    place.write_bytes(stripped)
    assert ctypes.cast(ctypes.CDLL(str(place)).PyInit__cffi_backend, ctypes.c_void_p).value
    assert "libc.so.6" in needed(stripped)


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"#!/bin/sh\n", library()[:100], b"\x7fELF\x02\x01" + bytes(100)]
)
def test_other_files_are_refused(data: bytes) -> None:
    for read in (strip, needed):
        with pytest.raises(Malformed, match="elf: "):
            read(data)


def test_a_segment_behind_the_end_is_refused() -> None:
    with pytest.raises(Malformed, match="a segment ends at"):
        strip(library(["libc.so.6"])[:-1])


def test_a_string_table_in_no_segment_is_refused() -> None:
    data = bytearray(library(["libc.so.6"]))
    at = data.index((5).to_bytes(8, "little"), 0xB0)
    data[at + 8 : at + 16] = (1 << 40).to_bytes(8, "little")
    with pytest.raises(Malformed, match="lies in no segment"):
        needed(bytes(data))


def test_other_formats_are_told_apart() -> None:
    assert is_elf(library())
    assert not is_elf(b"\x7fELF\x01\x01")  # 32 bits


@pytest.mark.parametrize("offset", [0, 1 << 20])
def test_a_name_outside_the_table_of_strings_is_refused(offset: int) -> None:
    data = bytearray(library(["libc.so.6"]))
    at = data.index((1).to_bytes(8, "little"), 0xB0)
    data[at + 8 : at + 16] = offset.to_bytes(8, "little")
    with pytest.raises(Malformed, match="the name of a library"):
        needed(bytes(data))
