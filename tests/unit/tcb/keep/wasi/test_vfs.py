"""The file system in memory: mounts, quotas, paths."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from enarx.tcb.errors import EnarxError, Malformed
from enarx.tcb.keep.wasi._abi import Errno, FdFlags, FileType, FstFlags, OFlags, Rights, WasiError
from enarx.tcb.keep.wasi._fds import Descriptor
from enarx.tcb.keep.wasi._files import OpenDirectory
from enarx.tcb.keep.wasi._vfs import FileSystem
from enarx.tcb.workload import Entry, EntryKind, Tree

ALL = Rights((1 << 30) - 1)
NO_OFLAGS = OFlags(0)
READ_WRITE = Rights.FD_READ | Rights.FD_WRITE


def new(max_nodes: int = 1000, max_bytes: int = 1 << 20) -> tuple[FileSystem, OpenDirectory]:
    clock = itertools.count(1_000)
    fs = FileSystem(max_nodes=max_nodes, max_bytes=max_bytes, now=lambda: next(clock))
    return fs, fs.preopen("/", "/")


def open_at(
    at: OpenDirectory, path: str, oflags: OFlags = NO_OFLAGS, rights: Rights = READ_WRITE, follow: bool = True
) -> Descriptor:
    return at.open(path, follow=follow, oflags=oflags, rights=rights, inheriting=ALL, flags=FdFlags(0))


def create(at: OpenDirectory, path: str, data: bytes = b"") -> None:
    opened = open_at(at, path, OFlags.CREAT)
    opened.write([memoryview(data)])
    opened.close()


def content(at: OpenDirectory, path: str) -> bytes:
    opened = open_at(at, path, rights=Rights.FD_READ)
    room = bytearray(opened.filestat().size)
    assert opened.read([memoryview(room)]) == len(room)
    opened.close()
    return bytes(room)


@contextmanager
def fails(*errnos: Errno) -> Iterator[None]:
    with pytest.raises(WasiError) as caught:
        yield
    assert caught.value.errno in errnos


def file(path: str, data: bytes = b"", modified_ns: int = 0) -> Entry:
    return Entry(path=path, kind=EntryKind.FILE, data=data, modified_ns=modified_ns)


def directory(path: str, modified_ns: int = 0) -> Entry:
    return Entry(path=path, kind=EntryKind.DIRECTORY, modified_ns=modified_ns)


def symlink(path: str, target: bytes) -> Entry:
    return Entry(path=path, kind=EntryKind.SYMLINK, data=target)


TREE = Tree((directory("d", 5), file("d/f", b"content", 7), symlink("l", b"d/f")))


class TestDelivery:
    def test_a_tree_comes_back_as_it_went_in(self) -> None:
        fs, _ = new()
        fs.mount(TREE, "/data/in", False)
        harvested = fs.harvest("/data/in")
        assert harvested == TREE
        assert fs.bytes == len(b"content") + len(b"d/f")

    def test_delivered_content_is_not_copied_until_it_changes(self) -> None:
        fs, root = new()
        fs.mount(TREE, "/", True)
        assert fs.harvest("/").entries[1].data is TREE.entries[1].data
        create(root, "d/f", b"C")
        assert content(root, "d/f") == b"Content"
        assert TREE.entries[1].data == b"content"
        assert fs.harvest("/").entries[1].modified_ns > 7

    def test_harvest_leaves_out_devices_and_other_mounts(self) -> None:
        fs, root = new()
        fs.mount(Tree((file("a"),)), "/", True)
        fs.mount(Tree((file("b"),)), "/inner", True)
        create(root, "c", b"new")
        assert [entry.path for entry in fs.harvest("/").entries] == ["a", "c"]
        assert [entry.path for entry in fs.harvest("/inner").entries] == ["b"]

    @pytest.mark.parametrize("path", ["/data", "/data/", "/data/d"])
    def test_a_mount_does_not_hide_what_is_there(self, path: str) -> None:
        fs, _ = new()
        fs.mount(TREE, "/data", True)
        with pytest.raises(EnarxError, match="there already"):
            fs.mount(TREE, path, True)

    @pytest.mark.parametrize("path", ["/../x", "/dev/null", "/data/d/f/x", "/" + 256 * "x", "/a\0b"])
    def test_a_mount_point_is_a_plain_path(self, path: str) -> None:
        fs, _ = new()
        fs.mount(TREE, "/data", True)
        with pytest.raises(EnarxError, match="cannot be a directory"):
            fs.mount(Tree(), path, True)

    @pytest.mark.parametrize(("limits", "name"), [((3, 100), "files"), ((10, 9), "file system bytes")])
    def test_a_delivery_beyond_a_limit_is_an_error(self, limits: tuple[int, int], name: str) -> None:
        fs, _ = new(*limits)
        with pytest.raises(EnarxError, match=f"limit of {name}"):
            fs.mount(TREE, "/data", True)

    def test_two_preopened_directories_have_their_names(self) -> None:
        fs, _ = new()
        assert [fs.preopen(path, path).preopen_name for path in ("/a", "/b")] == [b"/a", b"/b"]

    def test_harvest_bounds_what_hard_links_multiply(self) -> None:
        fs, root = new(max_bytes=100)
        root.create_directory("d")
        create(root, "d/f", bytes(60))
        root.link("d/f", follow=False, target=root, new_path="d/g")
        with pytest.raises(EnarxError, match="too large"):
            fs.harvest("/d")

    def test_harvest_bounds_depth(self) -> None:
        fs, at = new()
        for _ in range(20):
            at.create_directory(255 * "x")
            inner = open_at(at, 255 * "x", OFlags.DIRECTORY, ALL & ~Rights.FD_WRITE)
            assert isinstance(inner, OpenDirectory)
            at = inner
        with pytest.raises(EnarxError, match="too deep"):
            fs.harvest("/")

    def test_harvest_of_a_path_longer_than_a_tree_holds_is_an_error(self) -> None:
        fs, at = new()
        for size in 16 * [255]:
            at.create_directory(size * "x")
            inner = open_at(at, size * "x", OFlags.DIRECTORY, ALL & ~Rights.FD_WRITE)
            assert isinstance(inner, OpenDirectory)
            at = inner
        create(at, "yy")
        with pytest.raises(Malformed, match="4096"):
            fs.harvest("/")


class TestReadOnlyVolumes:
    def test_each_change_answers_rofs(self) -> None:
        fs, root = new()
        fs.mount(TREE, "/ro", False)
        ro = fs.preopen("/ro", "/ro")
        opened = open_at(ro, "d/f", rights=Rights.FD_READ)
        attempts: dict[str, Callable[[], object]] = {
            "create": lambda: open_at(ro, "new", OFlags.CREAT),
            "write": lambda: open_at(ro, "d/f"),
            "truncate": lambda: open_at(ro, "d/f", OFlags.TRUNC, Rights(0)),
            "mkdir": lambda: ro.create_directory("new"),
            "unlink": lambda: ro.unlink_file("l"),
            "rmdir": lambda: ro.remove_directory("d"),
            "rename": lambda: ro.rename("l", ro, "k"),
            "link": lambda: ro.link("d/f", follow=False, target=ro, new_path="k"),
            "symlink": lambda: ro.symlink("x", "k"),
            "times": lambda: ro.set_times_at("d", follow=True, accessed=0, modified=0, flags=FstFlags.MTIM),
            "fd times": lambda: opened.set_times(0, 0, FstFlags.ATIM),
            "fd size": lambda: opened.set_size(0),
            "fd allocate": lambda: opened.allocate(0, 100),
        }
        for name, attempt in attempts.items():
            with pytest.raises(WasiError) as caught:
                attempt()
            assert caught.value.errno is Errno.ROFS, name
        assert fs.harvest("/ro") == TREE
        assert content(root, "ro/l") == b"content"

    def test_links_and_renames_stay_on_their_volume(self) -> None:
        fs, root = new()
        fs.mount(TREE, "/ro", False)
        attempts: list[Callable[[], object]] = [
            lambda: root.link("ro/d/f", follow=False, target=root, new_path="stolen"),
            lambda: root.rename("ro/d/f", root, "stolen"),
        ]
        for attempt in attempts:
            with fails(Errno.XDEV):
                attempt()

    def test_a_mount_point_can_be_neither_removed_nor_renamed(self) -> None:
        fs, root = new()
        fs.mount(Tree(), "/data", True)
        root.create_directory("x")
        attempts: list[Callable[[], object]] = [
            lambda: root.remove_directory("data"),
            lambda: root.rename("data", root, "y"),
            lambda: root.rename("x", root, "data"),
        ]
        for attempt in attempts:
            with fails(Errno.BUSY):
                attempt()

    def test_the_null_device_cannot_be_removed_and_takes_everything(self) -> None:
        fs, root = new()
        with fails(Errno.ROFS):
            root.unlink_file("dev/null")
        null = open_at(root, "dev/null", OFlags.CREAT)
        assert null.filetype is null.filestat().filetype is FileType.CHARACTER_DEVICE
        assert null.write([memoryview(b"gone")]) == 4
        assert null.read([memoryview(bytearray(4))]) == 0
        assert fs.bytes == 0


class TestQuotas:
    @pytest.mark.parametrize("offset", [1 << 40, 1 << 62, (1 << 63) - 2, 100])
    def test_sparse_write_bomb_is_refused_before_memory_is_taken(self, offset: int) -> None:
        fs, root = new(max_bytes=100)
        opened = open_at(root, "f", OFlags.CREAT)
        with fails(Errno.NOSPC):
            opened.pwrite([memoryview(b"x")], offset)
        assert (fs.hit, fs.bytes, opened.filestat().size) == ("file system bytes", 0, 0)

    @pytest.mark.parametrize("offset", [(1 << 63) - 1, (1 << 64) - 1])
    def test_an_offset_beyond_any_file_is_too_big(self, offset: int) -> None:
        _, root = new()
        opened = open_at(root, "f", OFlags.CREAT)
        with fails(Errno.FBIG):
            opened.pwrite([memoryview(b"x")], offset)

    def test_allocation_bomb_is_refused_before_memory_is_taken(self) -> None:
        fs, root = new()
        opened = open_at(root, "f", OFlags.CREAT)
        with fails(Errno.NOSPC):
            opened.allocate(0, 1 << 40)
        with fails(Errno.FBIG):
            opened.allocate((1 << 64) - 1, (1 << 64) - 1)
        with fails(Errno.NOSPC):
            opened.set_size(1 << 40)
        with fails(Errno.FBIG):
            opened.set_size((1 << 64) - 1)
        assert fs.bytes == 0

    def test_bytes_come_back_with_the_last_name_and_the_last_descriptor(self) -> None:
        fs, root = new(max_bytes=10)
        create(root, "a", bytes(10))
        root.link("a", follow=False, target=root, new_path="b")
        opened = open_at(root, "a")
        root.unlink_file("a")
        root.unlink_file("b")
        assert (fs.bytes, fs.nodes) == (10, 1)
        with fails(Errno.NOSPC):
            create(root, "c", b"x")
        opened.close()
        assert (fs.bytes, fs.nodes) == (0, 1)
        create(root, "c", bytes(10))

    def test_truncation_gives_bytes_back(self) -> None:
        fs, root = new(max_bytes=10)
        create(root, "a", bytes(10))
        opened = open_at(root, "a")
        opened.set_size(4)
        assert fs.bytes == 4
        open_at(root, "a", OFlags.TRUNC).close()
        assert fs.bytes == 0

    def test_replacing_by_rename_gives_bytes_back(self) -> None:
        fs, root = new()
        create(root, "a", bytes(10))
        create(root, "b", bytes(5))
        root.rename("b", root, "a")
        assert (fs.bytes, fs.nodes) == (5, 1)

    def test_a_write_is_all_or_nothing(self) -> None:
        _, root = new(max_bytes=10)
        opened = open_at(root, "f", OFlags.CREAT)
        opened.write([memoryview(bytes(8))])
        with fails(Errno.NOSPC):
            opened.write([memoryview(b"ab"), memoryview(b"c")])
        assert opened.filestat().size == 8
        assert opened.write([memoryview(b"ab")]) == 2

    def test_hard_links_and_symlinks_count(self) -> None:
        fs, root = new(max_nodes=3, max_bytes=10)
        create(root, "f")
        root.link("f", follow=False, target=root, new_path="g")
        with fails(Errno.NOSPC):
            root.symlink(11 * "x", "l")
        assert fs.hit == "file system bytes"
        root.symlink(10 * "x", "l")
        attempts: list[Callable[[], object]] = [
            lambda: root.link("f", follow=False, target=root, new_path="h"),
            lambda: root.create_directory("d"),
            lambda: create(root, "e"),
        ]
        for attempt in attempts:
            with fails(Errno.NOSPC):
                attempt()
            assert fs.hit == "files"

    def test_no_limit_met_leaves_no_trace(self) -> None:
        fs, root = new()
        create(root, "f", b"x")
        assert fs.hit == ""


class TestPaths:
    def errno(self, at: OpenDirectory, path: str, follow: bool = True) -> Errno:
        try:
            at.filestat_at(path, follow=follow)
        except WasiError as error:
            return error.errno
        return Errno.SUCCESS

    def below(self) -> OpenDirectory:
        fs, root = new()
        create(root, "secret", b"s")
        root.create_directory("top")
        root.create_directory("top/a")
        create(root, "top/a/f", b"f")
        return fs.preopen("/top", "/top")

    @pytest.mark.parametrize(
        ("path", "errno"),
        [
            (".", Errno.SUCCESS),
            ("a/.//../a/../a///./f", Errno.SUCCESS),
            ("a/..", Errno.SUCCESS),
            ("a/", Errno.SUCCESS),
            ("", Errno.NOENT),
            ("..", Errno.PERM),
            ("../top/a", Errno.PERM),
            ("../secret", Errno.PERM),
            ("a/../../secret", Errno.PERM),
            ("/", Errno.PERM),
            ("/a/f", Errno.PERM),
            ("a/f/", Errno.NOTDIR),
            ("a/f///", Errno.NOTDIR),
            ("a/f/.", Errno.NOTDIR),
            ("a/f/..", Errno.NOTDIR),
            ("a/f/x", Errno.NOTDIR),
            ("a/f\0", Errno.INVAL),
            ("missing", Errno.NOENT),
            ("missing/f", Errno.NOENT),
            ("missing/..", Errno.NOENT),
            (256 * "x", Errno.NAMETOOLONG),
            (128 * "é", Errno.NAMETOOLONG),
            (255 * "x", Errno.NOENT),
            (2049 * "./", Errno.NAMETOOLONG),
            (2048 * "./", Errno.SUCCESS),
        ],
    )
    def test_resolution(self, path: str, errno: Errno) -> None:
        assert self.errno(self.below(), path) is errno

    @pytest.mark.parametrize(
        ("target", "errno"),
        [
            ("..", Errno.PERM),
            ("../secret", Errno.PERM),
            ("a/../../secret", Errno.PERM),
            ("./a/../../top/a/f", Errno.PERM),
            ("link", Errno.LOOP),
            ("a", Errno.SUCCESS),
            ("a/f", Errno.SUCCESS),
            ("a/f/", Errno.NOTDIR),
            ("gone", Errno.NOENT),
        ],
    )
    def test_a54_symbolic_links_do_not_lead_out(self, target: str, errno: Errno) -> None:
        at = self.below()
        at.symlink(target, "link")
        assert self.errno(at, "link") is errno
        assert self.errno(at, "link", follow=False) is Errno.SUCCESS
        assert at.readlink("link") == target.encode()

    @pytest.mark.parametrize("path", ["link/", "link/.", "link/secret", "link/../secret"])
    def test_a54_trailing_slashes_do_not_lead_out(self, path: str) -> None:
        at = self.below()
        at.symlink("..", "link")
        for follow in (False, True):
            assert self.errno(at, path, follow) is Errno.PERM

    def test_a54_a_delivered_link_with_an_absolute_target_leads_nowhere(self) -> None:
        fs, _ = new()
        fs.mount(Tree((symlink("l", b"/dev/null"), symlink("m", b"../secret"))), "/data", True)
        at = fs.preopen("/data", "/data")
        assert self.errno(at, "l") is self.errno(at, "m") is Errno.PERM

    def test_a54_a_link_may_climb_within_its_descriptor_only(self) -> None:
        fs, root = new()
        create(root, "f", b"f")
        root.create_directory("d")
        root.symlink("../f", "d/up")
        assert self.errno(root, "d/up") is Errno.SUCCESS
        assert self.errno(fs.preopen("/d", "/d"), "up") is Errno.PERM

    @pytest.mark.parametrize(
        ("target", "errno"), [("/x", Errno.PERM), ("", Errno.NOENT), ("a\0", Errno.INVAL)]
    )
    def test_impossible_targets_are_not_made(self, target: str, errno: Errno) -> None:
        at = self.below()
        with fails(errno):
            at.symlink(target, "l")

    def test_32_links_are_followed_and_no_more(self) -> None:
        at = self.below()
        at.symlink("a", "l0")
        for number in range(32):
            at.symlink(f"l{number}", f"l{number + 1}")
        assert self.errno(at, "l31") is Errno.SUCCESS
        assert self.errno(at, "l32") is Errno.LOOP

    def test_links_that_multiply_are_cut_off(self) -> None:
        at = self.below()
        at.symlink("a", "l0")
        for number in range(30):
            at.symlink(f"l{number}/../l{number}", f"l{number + 1}")
        assert self.errno(at, "l30") is Errno.LOOP

    def test_a_removed_directory_takes_nothing_new(self) -> None:
        _, root = new()
        root.create_directory("d")
        inner = open_at(root, "d", OFlags.DIRECTORY, ALL & ~Rights.FD_WRITE)
        assert isinstance(inner, OpenDirectory)
        root.remove_directory("d")
        create(root, "f")
        attempts: list[Callable[[], object]] = [
            lambda: inner.create_directory("x"),
            lambda: create(inner, "x"),
            lambda: inner.symlink("x", "y"),
            lambda: root.link("f", follow=False, target=inner, new_path="x"),
            lambda: root.rename("f", inner, "x"),
        ]
        for attempt in attempts:
            with fails(Errno.NOENT):
                attempt()
        inner.close()
