"""The libraries of the image are closed, and its interpreter is its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.forge.debian import library

from enarx.tcb.errors import Malformed, Unavailable
from enarx.tenant.image.vm._guest import LOADER, Guest
from enarx.tenant.image.vm._sources import Source
from enarx.tenant.image.vm._tree import INIT, LOADED_LATER, _libraries

HOME = "lib/x86_64-linux-gnu"
OTHER = "usr/lib/x86_64-linux-gnu"


def source(*needed: str) -> Source:
    return Source(content=library(needed), executable=False, origin=None)


ALWAYS = {f"{HOME}/{name}": source() for name in LOADED_LATER}


def test_libraries_of_libraries_are_found() -> None:
    sources = {
        f"{HOME}/liba.so": source("libb.so", "ld-linux-x86-64.so.2"),
        f"{OTHER}/libb.so": source("liba.so"),
    }
    found = dict(_libraries({**ALWAYS, **sources, f"{HOME}/libc.so": source()}, [source("liba.so")]))
    assert found == {**ALWAYS, **sources}


def test_a_library_that_no_package_brings_is_told() -> None:
    with pytest.raises(Malformed, match=r"no package brings the library libcrypto\.so\.3"):
        list(_libraries(ALWAYS, [source("libcrypto.so.3")]))


def test_init_is_one_line_of_the_kernels_form() -> None:
    first, rest = INIT.split("\n", 1)
    assert first == "#!/usr/bin/python3.11 -ISB"  # the kernel passes on one argument
    compile(rest, "/init", "exec")


def test_a_machine_that_cannot_run_the_interpreter_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not run here") as caught:
        Guest(tmp_path).trace([], "keep")
    assert "x86-64" in caught.value.hint
    (tmp_path / LOADER).parent.mkdir(parents=True)
    (tmp_path / LOADER).write_text("#!/bin/sh\necho cannot load it >&2\nexit 3\n")
    (tmp_path / LOADER).chmod(0o755)
    with pytest.raises(Unavailable, match="cannot load it"):
        Guest(tmp_path).trace([], "keep")


def test_files_of_this_machine_are_refused(tmp_path: Path) -> None:
    (tmp_path / LOADER).parent.mkdir(parents=True)
    told = '{"files": ["/usr/lib/libcrypto.so.3"], "python": "3.11", "openssl": ""}'
    (tmp_path / LOADER).write_text(f"#!/bin/sh\necho '{told}'\n")
    (tmp_path / LOADER).chmod(0o755)
    with pytest.raises(Malformed, match=r"loaded /usr/lib/libcrypto\.so\.3, which is not in its packages"):
        Guest(tmp_path).trace([], "keep")
