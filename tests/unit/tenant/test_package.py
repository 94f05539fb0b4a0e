"""Packages: read whole and strictly, no link followed, nothing but regular files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enarx.tcb.errors import EnarxError, Malformed
from enarx.tcb.workload import EntryKind, Limits, Secret
from enarx.tenant.package import FILES_IN_KEEP, InvalidPackage, read_package

WASM = b"\0asm\x01\0\0\0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package with everything."""
    folder = tmp_path / "package"
    (folder / "files" / "sub").mkdir(parents=True)
    (folder / "main.wasm").write_bytes(WASM)
    (folder / "Enarx.toml").write_text('args = ["a"]\n')
    (folder / "files" / "sub" / "data").write_bytes(b"data")
    return folder


def test_a_package_with_everything(folder: Path) -> None:
    package = read_package(folder)
    assert (package.name, package.module, package.config) == ("package", WASM, b'args = ["a"]\n')
    (files,) = package.directories
    assert (files.name, files.writable, files.returned) == (FILES_IN_KEEP, False, False)
    assert [(it.path, it.kind, it.data) for it in files.tree.entries] == [
        ("sub", EntryKind.DIRECTORY, b""),
        ("sub/data", EntryKind.FILE, b"data"),
    ]


def test_a_module_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link.wasm").symlink_to(folder / "main.wasm")
    for path in (folder / "main.wasm", tmp_path / "link.wasm"):  # whom the user names, the user means
        package = read_package(path)
        assert (package.module, package.config, package.directories) == (WASM, None, ())


def test_what_was_read_is_what_is_delivered(folder: Path) -> None:
    """A48: what changes after the reading changes nothing."""
    package = read_package(folder)
    (folder / "main.wasm").write_bytes(WASM + b"other")
    (folder / "files" / "sub" / "data").write_bytes(b"other")
    job = package.job()
    assert job.module == WASM
    assert next(job.directories[0].tree.blobs()) == b"data"


@pytest.mark.parametrize("name", ["main.wasm", "Enarx.toml", "files", "files/sub/data", "files/sub"])
def test_links_are_not_followed(folder: Path, tmp_path: Path, name: str) -> None:
    """A47: wherever a link stands in a package, and wherever it leads."""
    moved = tmp_path / "moved"
    (folder / name).rename(moved)
    (folder / name).symlink_to(moved)
    with pytest.raises(EnarxError):
        read_package(folder)


def test_a_link_out_of_the_package_is_not_delivered(folder: Path) -> None:
    (folder / "files" / "shadow").symlink_to("/etc/passwd")
    with pytest.raises(InvalidPackage, match="symbolic link"):
        read_package(folder)


@pytest.mark.parametrize("name", ["main.wasm", "Enarx.toml", "files/pipe"])
def test_pipes_are_refused_and_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(EnarxError):
        read_package(folder)


def test_devices_are_refused() -> None:
    with pytest.raises(InvalidPackage, match="no regular file"):
        read_package(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("main.wasm", b"MZ", "no WebAssembly"),
        ("main.wasm", b"", "no WebAssembly"),
        ("Enarx.toml", b"arguments = 1", "Enarx.toml"),
        ("Enarx.toml", b"\xff", "Enarx.toml"),
        ("main.wsm", WASM, "unknown entry 'main.wsm'"),
        (".git", b"", "unknown entry '.git'"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(InvalidPackage, match=message):
        read_package(folder)


def test_there_must_be_a_module(folder: Path) -> None:
    (folder / "main.wasm").unlink()
    with pytest.raises(InvalidPackage, match=r"no main\.wasm"):
        read_package(folder)


def test_limits_hold_when_it_is_read(folder: Path) -> None:
    (folder / "main.wasm").write_bytes(WASM + bytes(100))
    with pytest.raises(InvalidPackage, match="more than 50 bytes"):
        read_package(folder, limits=Limits(module_bytes=50))
    with pytest.raises(EnarxError, match="more than 1 bytes"):
        read_package(folder, limits=Limits(storage_bytes=1))
    with pytest.raises(EnarxError, match="more than 1 files"):
        read_package(folder, limits=Limits(files=1))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(EnarxError, match="no such file"):
        read_package(tmp_path / "none")


def test_a_job_is_checked_before_anybody_is_asked(folder: Path) -> None:
    package = read_package(folder)
    same = Secret(name="a", value=b"")
    with pytest.raises(Malformed):
        package.job(secrets=[same, same])
    with pytest.raises(Malformed):
        package.job(environment=[("A=B", "c")])
    with pytest.raises(Malformed):
        package.job(arguments=["\0"])


def test_a_module_over_the_limit_of_one_launch(folder: Path) -> None:
    (folder / "main.wasm").write_bytes(WASM + b"x")
    with pytest.raises(InvalidPackage, match="more than 8 bytes"):
        read_package(folder).job(limits=Limits(module_bytes=8))
