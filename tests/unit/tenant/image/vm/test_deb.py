"""Packages are read to the letter, and refused when they are not what they say."""

from __future__ import annotations

import lzma

import pytest
from tests.forge.debian import ar, deb, tar

from enarx.tcb.errors import Malformed
from enarx.tenant.image.vm import _deb as module
from enarx.tenant.image.vm._deb import Member, read_deb


def test_files_and_links_come_out() -> None:
    made = deb({"usr/bin/x": b"code", "usr/share/y": b"text"}, {"bin": "usr/bin"}, executable=["usr/bin/x"])
    assert list(read_deb(made)) == [
        Member(path="usr/bin/x", content=b"code", executable=True),
        Member(path="usr/share/y", content=b"text"),
        Member(path="bin", target="usr/bin"),
    ]


def test_only_what_is_wanted_comes_out() -> None:
    made = deb({"a": b"1", "b": b"2"})
    assert [member.path for member in read_deb(made, lambda path: path == "b")] == ["b"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not start as an ar archive"),
        (ar({}), "found nothing"),
        (ar({"debian-binary": b"2.0\n", "data.tar.zst": b"x"}), "found debian-binary, data.tar.zst"),
        (deb({"a": b"1"})[:-9], "behind its"),
        (b"!<arch>\n" + bytes(60), "no ar header at offset 0x8"),
        (ar({"data.tar.xz": b"not xz"}), "cannot be read"),
        (ar({"data.tar.xz": lzma.compress(b"no tar")}), "cannot be read"),
        (ar({"data.tar.xz": lzma.compress(tar({"../../etc/passwd": b""}))}), "leads out of the root"),
    ],
)
def test_damaged_packages_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        list(read_deb(data))


def test_a_package_that_grows_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNPACKED_BYTES", 10)
    with pytest.raises(Malformed, match="more than 10 bytes"):
        list(read_deb(deb({"a": b"12345", "b": b"123456"})))
