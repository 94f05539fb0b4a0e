"""Trees as values: what is a tree, and how it travels."""

from __future__ import annotations

import io

import pytest

from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value, decode, encode
from enarx.tcb.workload._tree import MAX_ENTRIES, Entry, EntryKind, Tree

FILE, DIRECTORY, SYMLINK = EntryKind.FILE, EntryKind.DIRECTORY, EntryKind.SYMLINK


def entry(path: str, kind: EntryKind = FILE, data: bytes = b"", modified_ns: int = 0) -> Entry:
    return Entry(path=path, kind=kind, data=data, modified_ns=modified_ns)


TREE = Tree(
    (
        entry("d", DIRECTORY, modified_ns=1),
        entry("d/ü", data=b"first", modified_ns=(1 << 64) - 1),
        entry("d/e", DIRECTORY),
        entry("l", SYMLINK, "d/ü".encode()),
        entry("empty"),
        entry("second", data=b"second"),
    )
)


def test_header_and_blobs_make_the_same_tree() -> None:
    header = decode(encode(TREE.header()), max_bytes=10_000)
    blobs = list(TREE.blobs())
    assert blobs == [b"first", b"", b"second"]
    assert Tree.from_header(header, io.BytesIO(b"".join(blobs)).read) == TREE


def test_header_has_no_content() -> None:
    assert b"first" not in encode(TREE.header())


def test_no_files_are_a_tree() -> None:
    assert Tree.from_header([], lambda size: bytes(size)) == Tree()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/..",
        "./a",
        "a/./b",
        "../a",
        "a\0",
        "\udc80",
        256 * "x",
        128 * "é",
    ],
)
def test_a_path_is_plain_and_relative(path: str) -> None:
    with pytest.raises(Malformed):
        Tree((entry("a", DIRECTORY), entry(path)))


def test_a_path_has_4096_bytes_at_most() -> None:
    names = 16 * [255 * "x"]
    parents = [entry("/".join(names[:depth]), DIRECTORY) for depth in range(1, 17)]
    assert len(Tree(tuple(parents)).entries[-1].path) == 4095
    with pytest.raises(Malformed, match="4096"):
        Tree((*parents, entry(parents[-1].path + "/yy")))


@pytest.mark.parametrize(
    "entries",
    [
        (entry("a"), entry("a")),
        (entry("a", DIRECTORY), entry("a", DIRECTORY)),
        (entry("a/b"), entry("a", DIRECTORY)),
        (entry("a/b"),),
        (entry("a"), entry("a/b")),
        (entry("a", SYMLINK, b"."), entry("a/b")),
        (entry("a", DIRECTORY, b"x"),),
        (entry("a", SYMLINK, b""),),
        (entry("a", SYMLINK, b"x\0"),),
        (entry("a", SYMLINK, b"\xff"),),
        (entry("a", SYMLINK, 4097 * b"x"),),
        (entry("a", modified_ns=-1),),
        (entry("a", modified_ns=1 << 64),),
    ],
)
def test_what_is_no_tree_is_refused(entries: tuple[Entry, ...]) -> None:
    with pytest.raises(Malformed):
        Tree(entries)


def test_the_number_of_entries_is_bounded() -> None:
    entries = tuple(entry(f"{number}") for number in range(MAX_ENTRIES + 1))
    assert len(Tree(entries[:-1]).entries) == MAX_ENTRIES
    with pytest.raises(Malformed, match="65537"):
        Tree(entries)
    with pytest.raises(Malformed, match="65536"):
        Tree.from_header([[], *Tree(entries[:-1]).header()], lambda size: bytes(size))  # type: ignore[misc]


@pytest.mark.parametrize(
    "header",
    [
        None,
        {},
        "text",
        [[]],
        [["a", "file", 0]],
        [["a", "file", 0, 0, 0]],
        [["a", "file", -1, 0]],
        [["a", "file", True, 0]],
        [["a", "file", b"", 0]],
        [["a", "file", 0, False]],
        [["a", "directory", 1, 0]],
        [["a", "directory", False, 0]],
        [["a", "symlink", "b", 0]],
        [["a", "device", 0, 0]],
        [[b"a", "file", 0, 0]],
        [["../a", "file", 0, 0]],
    ],
)
def test_what_is_no_header_is_refused(header: Value) -> None:
    with pytest.raises(Malformed):
        Tree.from_header(header, lambda size: bytes(size))


def test_a_short_blob_is_refused() -> None:
    with pytest.raises(Malformed, match="announced 6 bytes, got 5"):
        Tree.from_header([["a", "file", 6, 0]], lambda size: bytes(size - 1))


def test_a_negative_size_is_never_asked_for() -> None:
    asked: list[int] = []

    def take(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    with pytest.raises(Malformed):
        Tree.from_header([["a", "file", 3, 0], ["b", "file", -1, 0]], take)
    assert asked == [3]
