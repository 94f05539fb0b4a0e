"""The grammar of ``--dir`` and ``--env``."""

from __future__ import annotations

import pytest

from enarx.host.request import Directory, DirectoryMode, parse_directory, parse_env
from enarx.tcb.errors import Malformed

COPY, READ_ONLY, SYNC = DirectoryMode.COPY, DirectoryMode.READ_ONLY, DirectoryMode.SYNC


@pytest.mark.parametrize(
    ("text", "host", "guest", "mode"),
    [
        ("data", "data", "data", COPY),
        ("./data/", "./data/", "./data/", COPY),
        (".", ".", ".", COPY),
        ("/a:b", "/a:b", "/a:b", COPY),
        ("/a::/b", "/a", "/b", COPY),
        ("/a::b:c", "/a", "b:c", COPY),
        ("/a:ro", "/a", "/a", READ_ONLY),
        ("/a:sync", "/a", "/a", SYNC),
        ("/a::/b:ro", "/a", "/b", READ_ONLY),
        ("/a::/b:sync", "/a", "/b", SYNC),
        ("/a:ro:sync", "/a:ro", "/a:ro", SYNC),
        ("/a:ro::/b", "/a:ro", "/b", COPY),
        ("/a:rw", "/a:rw", "/a:rw", COPY),
        ("ro", "ro", "ro", COPY),
        ("/ü::/ö", "/ü", "/ö", COPY),
    ],
)
def test_directories(text: str, host: str, guest: str, mode: DirectoryMode) -> None:
    assert parse_directory(text) == Directory(host_path=host, guest_path=guest, mode=mode)


@pytest.mark.parametrize(
    "text", ["", "::", "::/b", "/a::", "/a:::ro", "/a::/b::/c", "/a\0", ":ro", "/a::/b\0:ro"]
)
def test_refused_directories(text: str) -> None:
    with pytest.raises(Malformed, match="expected a path") as caught:
        parse_directory(text)
    assert "HOST[::GUEST]" in caught.value.hint


@pytest.mark.parametrize(("text", "pair"), [("A=", ("A", "")), ("A=b=c", ("A", "b=c")), ("ä=ö", ("ä", "ö"))])
def test_variables(text: str, pair: tuple[str, str]) -> None:
    assert parse_env(text) == pair


@pytest.mark.parametrize("text", ["", "A", "=b", "A\0=b", "A=secret\0"])
def test_refused_variables_show_no_value(text: str) -> None:
    with pytest.raises(Malformed, match="expected NAME=VALUE") as caught:
        parse_env(text)
    assert "secret" not in str(caught.value)
