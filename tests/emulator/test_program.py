"""The image of a process keep is a list of files; nothing starts but what it lists."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enarx.tcb.errors import Malformed
from enarx_emulator.errors import EmulatorError
from enarx_emulator.program import check_files, pack_image, parse_image, start

DIGEST = sha256(b"content").hexdigest()


def test_a_list_of_sha256sum_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/module.py").write_bytes(b"content")
    files = parse_image(f"{DIGEST}  lib/module.py\n".encode())
    assert files == {PurePosixPath("lib/module.py"): DIGEST}
    check_files(files, tmp_path)


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"\xff",
        b"no list",
        f"{DIGEST} one-space".encode(),
        f"{DIGEST[1:]}  short".encode(),
        f"{DIGEST}  ../up".encode(),
        f"{DIGEST}  a//b".encode(),
        f"{DIGEST}  a\n{DIGEST}  a".encode(),
        f"{DIGEST}  a\n\n".encode(),
    ],
)
def test_anything_else_is_refused(image: bytes) -> None:
    with pytest.raises(Malformed):
        parse_image(image)


@given(st.binary(max_size=200))
def test_the_parser_is_total(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_image(b"0" * 63 + b"g  " + data)


def test_a_changed_or_missing_file_is_named(tmp_path: Path) -> None:
    files = parse_image(f"{DIGEST}  file\n".encode())
    with pytest.raises(EmulatorError, match="file: no such file"):
        check_files(files, tmp_path)
    (tmp_path / "file").write_bytes(b"other")
    with pytest.raises(EmulatorError, match="file is not what was measured"):
        check_files(files, tmp_path)


def test_a_program_that_cannot_be_started_is_refused_and_leaves_no_descriptors(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    image = pack_image([tmp_path / "file"], [str(tmp_path / "file")])
    before = os.listdir("/proc/self/fd")
    with pytest.raises(EmulatorError, match="permission denied"):
        start(image, tmp_path, [str(tmp_path / "file")], channel=0, port=1)
    image = pack_image([tmp_path / "file"], ["/bin/true"])
    with pytest.raises(EmulatorError, match="not among the files"):
        start(image, tmp_path, ["/bin/true"], channel=0, port=1)
    with pytest.raises(Malformed):
        start(image, tmp_path, [], channel=0, port=1)
    assert os.listdir("/proc/self/fd") == before


def test_the_command_line_is_measured_too(tmp_path: Path) -> None:
    """Or the host could have a measured interpreter run what it likes."""
    true = Path("/bin/true").resolve()
    image = pack_image([true], [str(true), "--version"])
    unmeasured = f"{sha256(true.read_bytes()).hexdigest()}  {true}\n".encode()
    for listed, argv in (
        (image, [str(true)]),
        (image, [str(true), "--version", "--help"]),
        (image, [str(true), "--ver", "sion"]),
        (unmeasured, [str(true)]),
    ):
        with pytest.raises(EmulatorError, match="command line is not what was measured"):
            start(listed, tmp_path, argv, channel=0, port=1)
    pid = start(image, tmp_path, [str(true), "--version"], channel=0, port=1)
    assert os.waitpid(pid, 0)[1] == 0
