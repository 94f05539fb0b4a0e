"""What can get into the image: links are followed inside packages, wheels give what keeps are made of."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.forge.debian import deb

from enarx.tcb.errors import Malformed
from enarx.tenant.image import own_files
from enarx.tenant.image.vm import Package, Role, Wheel
from enarx.tenant.image.vm._sources import license_of, own_sources, system_sources, wheel_sources, write_out


def package(name: str) -> Package:
    return Package(
        role=Role.SYSTEM,
        name=name,
        version="1",
        architecture="amd64",
        path=f"pool/{name}",
        size=1,
        sha256="0" * 64,
    )


WHEEL = Wheel(name="cffi", version="1", file="cffi-1-py3-none-any.whl", sha256="0" * 64)
METADATA = "Metadata-Version: 2.4\nName: cffi\nLicense-Expression: MIT\n\nLicense-Expression: not this\n"


def wheel(files: Mapping[str, str]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return made.getvalue()


def test_links_become_the_files_that_they_lead_to_across_packages() -> None:
    one, two = package("one"), package("two")
    found = system_sources(
        {
            one: deb({"lib/x/ld.so": b"loader"}, {"lib64/ld.so": "/lib/x/ld.so", "lib/x/lib.so": "lib.so.1"}),
            two: deb(
                {"lib/x/lib.so.1.2": b"library"}, {"lib/x/lib.so.1": "../x/lib.so.1.2", "lib/gone": "nowhere"}
            ),
        }
    )
    assert {path: (source.content, source.origin) for path, source in found.items()} == {
        "lib/x/ld.so": (b"loader", one),
        "lib64/ld.so": (b"loader", one),
        "lib/x/lib.so": (b"library", one),
        "lib/x/lib.so.1": (b"library", two),
        "lib/x/lib.so.1.2": (b"library", two),
    }


def test_links_in_a_circle_lead_to_nothing() -> None:
    assert system_sources({package("x"): deb({}, {"a": "b", "b": "a"})}) == {}


@pytest.mark.parametrize("target", ["../../../../etc/passwd", "/etc/passwd"])
def test_links_lead_to_no_file_of_this_machine(target: str) -> None:
    assert Path("/etc/passwd").is_file()
    assert system_sources({package("x"): deb({}, {"lib/a": target})}) == {}


def test_documentation_and_a_second_openssl_stay_out() -> None:
    dynload = "usr/lib/python3.11/lib-dynload"
    files = [
        "usr/share/doc/x",
        "etc/x",
        f"{dynload}/_ssl.so",
        f"{dynload}/_hashlib.so",
        f"{dynload}/_json.so",
    ]
    assert list(system_sources({package("x"): deb(dict.fromkeys(files, b""))})) == [f"{dynload}/_json.so"]


def test_wheels_give_what_an_installation_gives() -> None:
    data = wheel(
        {"_cffi_backend.so": "x", "cffi/api.py": "", "cffi-1.dist-info/METADATA": METADATA, "x.pyi": ""}
    )
    assert list(wheel_sources(WHEEL, data)) == ["keep/_cffi_backend.so"]
    assert license_of(data) == "MIT"
    assert license_of(wheel({"x.py": ""})) == ""


def test_wheels_that_lead_out_of_the_image_are_not_followed() -> None:
    assert wheel_sources(WHEEL, wheel({"../../x.py": "", "a/../../x.py": ""})) == {}


def test_what_is_no_wheel_is_refused() -> None:
    with pytest.raises(Malformed, match="cffi-1-py3-none-any"):
        wheel_sources(WHEEL, b"PK")


def test_ours_is_what_process_keeps_have(tmp_path: Path) -> None:
    sources = own_sources()
    assert set(sources) == {f"keep/{file.path}" for file in own_files()}
    write_out(sources, tmp_path)
    for file in own_files():
        assert (tmp_path / "keep" / file.path).read_bytes() == file.source.read_bytes()
