"""What a VM keep's first process shows of the kernel's attestation files, and how little a hostile keep gets of it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.tcb.keep.vm.tree_port import served

from enarx.tcb.errors import Malformed, Unavailable
from enarx.tcb.keep.platform import PortTree, find_source
from enarx.tcb.keep.vm._tree_server import DirectoryTree, serve_tree
from enarx.tcb.wire import decode

REPORT_DATA = bytes(range(64))


class CountingTree(DirectoryTree):
    """A tree whose attributes change as the kernel's do."""

    def __init__(self, root: str, provider: bytes) -> None:
        super().__init__(root)
        self._place = Path(root)
        self._provider = provider
        self._generation = 0

    def make(self, path: str) -> None:
        super().make(path)
        self._show(path, b"")

    def write(self, path: str, data: bytes) -> None:
        super().write(path, data)
        self._generation += 1
        self._show(os.path.dirname(path), b"report over " + data)

    def remove(self, path: str) -> None:
        for file in (self._place / path).iterdir():  # the kernel removes attributes with their entry
            file.unlink()
        super().remove(path)

    def _show(self, entry: str, report: bytes) -> None:
        files = {
            "provider": self._provider + b"\n",
            "generation": b"%d\n" % self._generation,
            "inblob": b"",
            "outblob": report,
            "auxblob": b"certificates",
        }
        for name, content in files.items():
            (self._place / entry / name).write_bytes(content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "tsm"
    (place / "report").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"not for the keep")
    (place / "report" / "link").symlink_to(tmp_path / "secret")
    return place


@pytest.fixture
def port(root: Path) -> Iterator[PortTree]:
    yield from served(DirectoryTree(str(root)))


@pytest.mark.parametrize(("provider", "kind"), [(b"sev_guest", "snp"), (b"tdx_guest", "tdx")])
def test_a_report_comes_through_the_kernels_files(root: Path, provider: bytes, kind: str) -> None:
    for port in served(CountingTree(str(root), provider)):
        evidence = decode(find_source(port).evidence(REPORT_DATA), max_bytes=1 << 16)
        assert evidence == [
            f"application/vnd.enarx.evidence.{kind}",
            b"report over " + REPORT_DATA + b"certificates",
        ]
    assert not (root / "report" / "keep").exists()


def test_a_machine_that_gives_no_report_says_so(root: Path) -> None:
    (root / "report" / "keep").mkdir()  # without attributes, as nothing in the kernel made it
    for port in served(DirectoryTree(str(root))):
        with pytest.raises(Unavailable, match="no report"):
            find_source(port).evidence(REPORT_DATA)


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../secret", "report/../../secret", "report//x", "report/", "a/b/c/d/e", "Ü", "x\0y"],
)
def test_nothing_outside_is_reached(port: PortTree, path: str) -> None:
    with pytest.raises(OSError) as raised:  # noqa: PT011 (the number is checked)
        port.read(path)
    assert raised.value.errno == errno.EINVAL


def test_links_are_not_followed(port: PortTree) -> None:
    with pytest.raises(OSError) as raised:  # noqa: PT011 (the number is checked)
        port.read("report/link")
    assert raised.value.errno == errno.ELOOP
    with pytest.raises(OSError) as raised:  # noqa: PT011
        port.write("report/link", b"x")
    assert raised.value.errno == errno.ELOOP


def test_files_that_no_attribute_is_as_large_as_are_not_given(root: Path, port: PortTree) -> None:
    (root / "large").write_bytes(bytes((64 << 10) + 1))
    with pytest.raises(OSError) as raised:  # noqa: PT011
        port.read("large")
    assert raised.value.errno == errno.EFBIG


def test_what_is_no_request_is_refused_or_ends_the_service(root: Path) -> None:
    tree = DirectoryTree(str(root))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\0\0\0\5\xff\xff\xff\xff\xff")
        with pytest.raises(Malformed):
            serve_tree(theirs.fileno(), tree)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(Malformed):
            serve_tree(theirs.fileno(), tree)
