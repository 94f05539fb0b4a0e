"""Descriptors of files and directories: what each call answers, as the public WASI test suite expects it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from enarx.tcb.keep.wasi._abi import Errno, FdFlags, FileType, FstFlags, OFlags, Rights, WasiError, Whence
from enarx.tcb.keep.wasi._fds import Descriptor, Readiness
from enarx.tcb.keep.wasi._files import DIRECTORY_RIGHTS, FILE_RIGHTS, OpenDirectory
from enarx.tcb.keep.wasi._vfs import FileSystem

NONE = Rights(0)
NO_OFLAGS = OFlags(0)
NO_FLAGS = FdFlags(0)
READ_WRITE = Rights.FD_READ | Rights.FD_WRITE
CREAT, EXCL, TRUNC, DIRECTORY = OFlags.CREAT, OFlags.EXCL, OFlags.TRUNC, OFlags.DIRECTORY


@pytest.fixture
def root() -> OpenDirectory:
    clock = itertools.count(1_000)
    return FileSystem(max_nodes=2000, max_bytes=1 << 20, now=lambda: next(clock)).preopen("/work", "/work")


def open_at(
    at: OpenDirectory,
    path: str,
    oflags: OFlags = NO_OFLAGS,
    rights: Rights = NONE,
    *,
    follow: bool = False,
    inheriting: Rights = NONE,
    flags: FdFlags = NO_FLAGS,
) -> Descriptor:
    return at.open(path, follow=follow, oflags=oflags, rights=rights, inheriting=inheriting, flags=flags)


def subdirectory(at: OpenDirectory, path: str, rights: Rights, inheriting: Rights) -> OpenDirectory:
    opened = open_at(at, path, DIRECTORY, rights, inheriting=inheriting)
    assert isinstance(opened, OpenDirectory)
    return opened


def create(at: OpenDirectory, path: str) -> None:
    open_at(at, path, CREAT).close()


@contextmanager
def fails(*errnos: Errno) -> Iterator[None]:
    with pytest.raises(WasiError) as caught:
        yield
    assert caught.value.errno in errnos


def read(opened: Descriptor, size: int) -> bytes:
    room = bytearray(size)
    return bytes(room[: opened.read([memoryview(room)])])


def write(opened: Descriptor, data: bytes) -> int:
    return opened.write([memoryview(data)])


def names(at: OpenDirectory, cookie: int = 0) -> list[str]:
    return [name.decode() for _, _, name, _ in at.readdir(cookie)]


class TestReadingAndWriting:
    def test_position_moves_with_reads_and_writes(self, root: OpenDirectory) -> None:
        opened = open_at(root, "f", CREAT, READ_WRITE)
        assert write(opened, bytes(100)) == 100
        assert opened.seek(0, Whence.CUR) == 100
        assert opened.seek(-50, Whence.CUR) == 50
        assert opened.seek(0, Whence.SET) == 0
        assert opened.seek(1000, Whence.CUR) == 1000
        assert read(opened, 1) == b""
        with fails(Errno.INVAL):
            opened.seek(-2000, Whence.CUR)
        with fails(Errno.INVAL):
            opened.seek((1 << 63) - 1, Whence.CUR)
        assert opened.seek(-100, Whence.END) == 0
        assert len(read(opened, 200)) == 100
        assert opened.seek(0, Whence.CUR) == 100

    def test_scattered_reads_and_gathered_writes(self, root: OpenDirectory) -> None:
        opened = open_at(root, "f", CREAT, READ_WRITE)
        assert opened.pwrite([memoryview(b"ab"), memoryview(b""), memoryview(b"cde")], 0) == 5
        rooms = bytearray(2), bytearray(2), bytearray(2)
        assert opened.pread([memoryview(room) for room in rooms], 0) == 5
        assert list(map(bytes, rooms)) == [b"ab", b"cd", b"e\0"]
        assert opened.pread([memoryview(rooms[0])], 4) == 1
        assert opened.pread([memoryview(rooms[0])], 5) == 0
        assert opened.seek(0, Whence.CUR) == 0
        with fails(Errno.INVAL):
            opened.pread([memoryview(rooms[0])], 1 << 63)

    def test_a_write_may_straddle_the_end_and_a_gap_is_zero(self, root: OpenDirectory) -> None:
        opened = open_at(root, "f", CREAT, READ_WRITE)
        opened.pwrite([memoryview(b"abc")], 0)
        opened.pwrite([memoryview(b"XY"), memoryview(b"Z")], 2)
        opened.pwrite([memoryview(b"end")], 8)
        assert read(opened, 100) == b"abXYZ\0\0\0end"

    def test_an_empty_write_does_not_grow_a_file(self, root: OpenDirectory) -> None:
        opened = open_at(root, "f", CREAT, READ_WRITE)
        assert opened.pwrite([memoryview(b"")], 100) == 0
        assert opened.filestat().size == 0

    def test_append_writes_at_the_end_until_it_is_taken_away(self, root: OpenDirectory) -> None:
        opened = open_at(root, "f", CREAT, READ_WRITE, flags=FdFlags.APPEND | FdFlags.SYNC)
        assert opened.flags == FdFlags.APPEND | FdFlags.SYNC
        write(opened, b"ab")
        opened.seek(0, Whence.SET)
        write(opened, b"cd")
        assert opened.seek(0, Whence.CUR) == 4
        opened.pwrite([memoryview(b"X")], 0)
        assert opened.seek(0, Whence.CUR) == 4
        opened.set_flags(FdFlags.DSYNC | FdFlags.RSYNC | FdFlags.NONBLOCK)
        opened.seek(1, Whence.SET)
        write(opened, b"Y")
        opened.seek(0, Whence.SET)
        assert read(opened, 10) == b"XYcd"

    def test_descriptors_of_one_file_share_content_not_position(self, root: OpenDirectory) -> None:
        reader = open_at(root, "f", CREAT, Rights.FD_READ)
        writer = open_at(root, "f", rights=Rights.FD_WRITE)
        write(writer, b"x")
        assert read(reader, 1) == b"x"

    def test_reading_or_writing_without_the_right_is_a_bad_descriptor(self, root: OpenDirectory) -> None:
        create(root, "f")
        reader, writer = open_at(root, "f", rights=Rights.FD_READ), open_at(root, "f", rights=Rights.FD_WRITE)
        bare = open_at(root, "f")
        for opened in (reader, bare):
            with fails(Errno.BADF):
                write(opened, b"x")
            with fails(Errno.BADF):
                opened.pwrite([memoryview(b"x")], 0)
        for opened in (writer, bare):
            with fails(Errno.BADF):
                read(opened, 1)
            with fails(Errno.BADF):
                opened.pread([memoryview(bytearray(1))], 0)

    def test_allocate_only_grows(self, root: OpenDirectory) -> None:
        opened = open_at(root, "f", CREAT, READ_WRITE)
        for offset, length, size in ((0, 100, 100), (10, 10, 100), (90, 20, 110)):
            opened.allocate(offset, length)
            assert opened.filestat().size == size
        with fails(Errno.INVAL):
            opened.allocate(0, 0)

    def test_set_size_cuts_and_fills(self, root: OpenDirectory) -> None:
        opened = open_at(root, "f", CREAT, READ_WRITE)
        write(opened, b"abcdef")
        opened.set_size(3)
        opened.set_size(5)
        opened.seek(0, Whence.SET)
        assert read(opened, 10) == b"abc\0\0"

    def test_advice_changes_nothing(self, root: OpenDirectory) -> None:
        opened = open_at(root, "f", CREAT, READ_WRITE)
        opened.set_size(100)
        opened.advise(10, 50, 0)
        assert opened.filestat().size == 100
        with fails(Errno.INVAL):
            opened.advise(0, 1, 6)
        with fails(Errno.INVAL):
            opened.advise(1 << 63, 1, 0)

    def test_a_file_is_always_ready(self, root: OpenDirectory) -> None:
        opened = open_at(root, "f", CREAT, READ_WRITE)
        write(opened, b"abc")
        opened.seek(1, Whence.SET)
        assert opened.ready(write=False) == Readiness(available=2)
        assert opened.ready(write=True) == Readiness()

    def test_an_unlinked_file_lives_while_it_is_open(self, root: OpenDirectory) -> None:
        opened = open_at(root, "f", CREAT, READ_WRITE)
        write(opened, b"still here")
        root.unlink_file("f")
        assert opened.filestat().links == 0
        create(root, "f")
        opened.seek(0, Whence.SET)
        assert read(opened, 20) == b"still here"

    def test_the_guests_buffer_may_be_written_while_the_file_grows(self, root: OpenDirectory) -> None:
        opened = open_at(root, "f", CREAT, READ_WRITE)
        for size in range(64):
            write(opened, bytes(size))
            assert opened.pread([memoryview(bytearray(4096))], 0) == size * (size + 1) // 2


class TestOpening:
    def test_rights_are_the_intersection(self, root: OpenDirectory) -> None:
        root.create_directory("d")
        d = subdirectory(root, "d", Rights((1 << 30) - 1) & ~Rights.FD_WRITE, READ_WRITE | Rights.PATH_OPEN)
        assert (d.rights, d.inheriting) == (DIRECTORY_RIGHTS, READ_WRITE | Rights.PATH_OPEN)
        f = open_at(d, "f", CREAT, Rights((1 << 30) - 1), inheriting=Rights((1 << 30) - 1))
        assert (f.rights, f.inheriting) == (READ_WRITE, NONE)
        assert open_at(root, "d/f", rights=Rights((1 << 30) - 1)).rights == FILE_RIGHTS

    def test_a_directory_has_no_rights_of_files(self, root: OpenDirectory) -> None:
        for wrong in (Rights.FD_SEEK, Rights.FD_READ, Rights.FD_FILESTAT_SET_SIZE, Rights.FD_TELL):
            assert open_at(root, ".", DIRECTORY, wrong).rights == NONE
            assert wrong not in root.rights

    def test_a_preopened_directory_opens_with_its_own_rights(self, root: OpenDirectory) -> None:
        opened = subdirectory(root, ".", root.rights, root.inheriting)
        assert (opened.rights, opened.inheriting) == (root.rights, root.inheriting)
        assert opened.filestat() == root.filestat()
        assert opened.preopen_name is None

    def test_a_directory_cannot_be_opened_for_writing(self, root: OpenDirectory) -> None:
        for oflags in (DIRECTORY, OFlags(0)):
            with fails(Errno.ISDIR):
                open_at(root, ".", oflags, READ_WRITE)
        with fails(Errno.ISDIR):
            open_at(root, ".", CREAT)
        with fails(Errno.ISDIR):
            open_at(root, ".", TRUNC)
        open_at(root, ".", flags=FdFlags.NONBLOCK).close()

    @pytest.mark.parametrize("other", [CREAT, EXCL, TRUNC])
    def test_directory_goes_with_no_other_flag(self, root: OpenDirectory, other: OFlags) -> None:
        with fails(Errno.INVAL):
            open_at(root, "d", DIRECTORY | other)

    def test_creation_and_truncation_need_their_right(self, root: OpenDirectory) -> None:
        create(root, "f")
        root.rights &= ~Rights.PATH_FILESTAT_SET_SIZE
        with fails(Errno.PERM):
            open_at(root, "f", TRUNC)
        root.rights &= ~Rights.PATH_CREATE_FILE
        with fails(Errno.PERM):
            open_at(root, "g", CREAT)
        open_at(root, "f").close()

    def test_truncation_needs_no_right_to_write(self, root: OpenDirectory) -> None:
        write(open_at(root, "f", CREAT, Rights.FD_WRITE), b"to be cut")
        open_at(root, "f", TRUNC).close()
        assert root.filestat_at("f", follow=False).size == 0

    def test_exclusive_creation(self, root: OpenDirectory) -> None:
        open_at(root, "f", CREAT | EXCL).close()
        root.symlink("gone", "dangling")
        for path in ("f", "dangling", "."):
            with fails(Errno.EXIST):
                open_at(root, path, CREAT | EXCL, follow=True)

    def test_missing(self, root: OpenDirectory) -> None:
        with fails(Errno.NOENT):
            open_at(root, "f")
        with fails(Errno.ISDIR):
            open_at(root, "f/", CREAT)
        with fails(Errno.NOENT):
            open_at(root, "d/f", CREAT)

    def test_trailing_slashes_demand_a_directory(self, root: OpenDirectory) -> None:
        root.create_directory("d")
        create(root, "d/f")
        for path in ("d/", "d///", "d/./", "./d/../d/"):
            open_at(root, path).close()
        for path in ("d/f/", "d/f///"):
            with fails(Errno.NOTDIR):
                open_at(root, path)
        with fails(Errno.NOTDIR):
            open_at(root, "d/f", DIRECTORY)

    def test_links_are_followed_only_when_asked(self, root: OpenDirectory) -> None:
        root.create_directory("d")
        create(root, "f")
        for target in ("d", "f", "gone", "l"):
            root.symlink(target, "l")
            with fails(Errno.LOOP, Errno.NOTDIR):
                open_at(root, "l", DIRECTORY)
            with fails(Errno.LOOP):
                open_at(root, "l")
            match target:
                case "d":
                    assert open_at(root, "l", DIRECTORY, follow=True).filetype is FileType.DIRECTORY
                case "f":
                    assert open_at(root, "l", follow=True).filetype is FileType.REGULAR_FILE
                    with fails(Errno.NOTDIR):
                        open_at(root, "l", DIRECTORY, follow=True)
                case "gone":
                    with fails(Errno.NOENT):
                        open_at(root, "l", follow=True)
                case _:
                    with fails(Errno.LOOP):
                        open_at(root, "l", follow=True)
            root.unlink_file("l")

    def test_a_file_can_be_created_through_a_dangling_link(self, root: OpenDirectory) -> None:
        root.symlink("f", "l")
        open_at(root, "l", CREAT, follow=True).close()
        assert root.filestat_at("f", follow=False).filetype is FileType.REGULAR_FILE

    def test_a_directory_has_no_bytes(self, root: OpenDirectory) -> None:
        room = [memoryview(bytearray(8))]
        with fails(Errno.BADF):
            root.read(room)
        with fails(Errno.BADF):
            root.write(room)
        for whence in Whence:
            with fails(Errno.BADF):
                root.seek(0, whence)
        with fails(Errno.INVAL):
            root.set_size(0)


class TestStatus:
    def test_files_differ_by_inode_and_links_share_it(self, root: OpenDirectory) -> None:
        create(root, "a")
        create(root, "b")
        root.link("a", follow=False, target=root, new_path="c")
        a, b, c = (root.filestat_at(name, follow=False) for name in "abc")
        assert a == c
        assert a.links == 2
        assert a.device == b.device
        assert a.inode != b.inode

    def test_times(self, root: OpenDirectory) -> None:
        opened = open_at(root, "f", CREAT, READ_WRITE)
        before = opened.filestat()
        opened.set_times(1, 2, FstFlags.MTIM)
        assert (opened.filestat().accessed, opened.filestat().modified) == (before.accessed, 2)
        opened.set_times(1, 9, FstFlags.ATIM | FstFlags.MTIM_NOW)
        assert opened.filestat().accessed == 1
        assert opened.filestat().modified > before.modified
        assert opened.filestat().changed > before.changed
        write(opened, b"x")
        assert opened.filestat().modified > before.modified
        read(opened, 1)
        assert opened.filestat().accessed > before.modified

    @pytest.mark.parametrize(
        "flags", [FstFlags.ATIM | FstFlags.ATIM_NOW, FstFlags.MTIM | FstFlags.MTIM_NOW, FstFlags(15)]
    )
    def test_a_time_is_either_given_or_now(self, root: OpenDirectory, flags: FstFlags) -> None:
        opened = open_at(root, "f", CREAT)
        before = opened.filestat()
        with fails(Errno.INVAL):
            opened.set_times(1, 2, flags)
        with fails(Errno.INVAL):
            root.set_times_at("f", follow=False, accessed=1, modified=2, flags=flags)
        assert opened.filestat() == before

    def test_times_of_a_link_and_of_what_it_points_to(self, root: OpenDirectory) -> None:
        create(root, "f")
        root.symlink("f", "l")
        before = root.filestat_at("f", follow=False)
        root.set_times_at("l", follow=False, accessed=0, modified=7, flags=FstFlags.MTIM)
        assert root.filestat_at("l", follow=False).modified == 7
        assert root.filestat_at("l", follow=True) == before
        root.set_times_at("l", follow=True, accessed=0, modified=8, flags=FstFlags.MTIM)
        assert root.filestat_at("f", follow=False).modified == 8

    def test_types(self, root: OpenDirectory) -> None:
        root.create_directory("d")
        create(root, "d/f")
        root.symlink("d/f", "lf")
        root.symlink("d", "ld")
        for path, follow, kind in (
            ("d", False, FileType.DIRECTORY),
            ("d/f", False, FileType.REGULAR_FILE),
            ("lf", False, FileType.SYMBOLIC_LINK),
            ("lf", True, FileType.REGULAR_FILE),
            ("ld", False, FileType.SYMBOLIC_LINK),
            ("ld", True, FileType.DIRECTORY),
            ("ld/f", False, FileType.REGULAR_FILE),
        ):
            assert root.filestat_at(path, follow=follow).filetype is kind

    def test_readlink(self, root: OpenDirectory) -> None:
        root.symlink("tärget", "l")
        assert root.readlink("l") == "tärget".encode()
        assert root.filestat_at("l", follow=False).size == 7
        with fails(Errno.INVAL):
            root.readlink(".")
        with fails(Errno.NOENT):
            root.readlink("gone")


class TestLinking:
    def test_a_link_in_another_directory_has_the_same_rights(self, root: OpenDirectory) -> None:
        rights = Rights.FD_READ | Rights.PATH_LINK_TARGET | Rights.PATH_OPEN | Rights.FD_FILESTAT_GET
        opened = open_at(root, "f", CREAT, rights, inheriting=rights)
        root.create_directory("d")
        d = subdirectory(root, "d", rights, rights)
        root.link("f", follow=False, target=d, new_path="l")
        linked = open_at(d, "l", rights=rights, inheriting=rights)
        assert linked.filestat() == opened.filestat()
        assert (linked.rights, linked.inheriting) == (opened.rights, opened.inheriting)
        root.unlink_file("f")
        assert linked.filestat().links == 1

    def test_existing_names(self, root: OpenDirectory) -> None:
        create(root, "f")
        create(root, "g")
        root.create_directory("d")
        root.symlink("gone", "l")
        for taken in ("f", "g", "d", "l", "."):
            with fails(Errno.EXIST):
                root.link("f", follow=False, target=root, new_path=taken)
        with fails(Errno.PERM, Errno.ACCES):
            root.link("d", follow=False, target=root, new_path="e")
        with fails(Errno.NOENT):
            root.link("f", follow=False, target=root, new_path="n/")
        with fails(Errno.NOTDIR):
            root.link("f/", follow=False, target=root, new_path="n")
        with fails(Errno.NOENT):
            root.link("gone", follow=False, target=root, new_path="n")

    def test_links_to_symbolic_links(self, root: OpenDirectory) -> None:
        for target in ("gone", "l"):
            root.symlink(target, "l")
            root.link("l", follow=False, target=root, new_path="m")
            assert root.filestat_at("m", follow=False).filetype is FileType.SYMBOLIC_LINK
            root.unlink_file("l")
            root.unlink_file("m")
        root.symlink("gone", "l")
        with fails(Errno.INVAL, Errno.NOENT):
            root.link("l", follow=True, target=root, new_path="m")

    def test_symlink_names_with_trailing_slashes(self, root: OpenDirectory) -> None:
        with fails(Errno.NOENT):
            root.symlink("x", "l/")
        root.create_directory("d")
        create(root, "f")
        for path, errno in (
            ("d", Errno.EXIST),
            ("d/", Errno.EXIST),
            ("f", Errno.EXIST),
            ("f/", Errno.NOTDIR),
        ):
            with fails(errno):
                root.symlink("x", path)


class TestRemoving:
    def test_directories(self, root: OpenDirectory) -> None:
        root.create_directory("d")
        root.create_directory("d/e/")
        create(root, "f")
        with fails(Errno.EXIST):
            root.create_directory("d")
        with fails(Errno.EXIST):
            root.create_directory("f")
        with fails(Errno.NOENT):
            root.create_directory("gone/e")
        with fails(Errno.NOTEMPTY):
            root.remove_directory("d")
        with fails(Errno.INVAL):
            root.remove_directory(".")
        with fails(Errno.NOTDIR):
            root.remove_directory("f")
        with fails(Errno.NOTDIR):
            root.remove_directory("f/")
        with fails(Errno.NOENT):
            root.remove_directory("gone")
        root.remove_directory("d/e")
        root.remove_directory("d/")
        root.symlink(".", "l")
        with fails(Errno.NOTDIR):
            root.remove_directory("l")
        with fails(Errno.NOTDIR):
            root.remove_directory("l/")

    def test_files(self, root: OpenDirectory) -> None:
        root.create_directory("d")
        create(root, "f")
        root.symlink("d", "l")
        for path in ("d", "d/", "."):
            with fails(Errno.ISDIR):
                root.unlink_file(path)
        for path in ("f/", "l/"):
            with fails(Errno.NOTDIR):
                root.unlink_file(path)
        with fails(Errno.NOENT):
            root.unlink_file("gone")
        root.unlink_file("f")
        root.unlink_file("l")
        assert names(root) == [".", "..", "d"]

    def test_a_removed_directory_can_be_made_again_while_open(self, root: OpenDirectory) -> None:
        root.create_directory("d")
        opened = subdirectory(root, "d", NONE, NONE)
        root.remove_directory("d")
        root.create_directory("d")
        assert names(opened) == [".", ".."]
        assert opened.filestat().inode != root.filestat_at("d", follow=False).inode


class TestRenaming:
    def test_directories(self, root: OpenDirectory) -> None:
        root.create_directory("s")
        root.rename("s", root, "t")
        root.rename("t/", root, "s")
        root.rename("s", root, "t/")
        root.create_directory("s")
        root.rename("s/", root, "t/")
        assert names(root) == [".", "..", "t"]
        create(root, "t/f")
        root.create_directory("s")
        with fails(Errno.NOTEMPTY):
            root.rename("s", root, "t")
        with fails(Errno.NOTDIR):
            root.rename("s", root, "t/f")
        with fails(Errno.ISDIR):
            root.rename("t/f", root, "s")
        with fails(Errno.INVAL):
            root.rename("t", root, "t/g")
        with fails(Errno.NOENT):
            root.rename("t", root, "t/g/h")
        with fails(Errno.BUSY):
            root.rename(".", root, "x")
        with fails(Errno.BUSY):
            root.rename("s", root, ".")
        with fails(Errno.NOENT):
            root.rename("gone", root, "x")

    def test_a_moved_directory_knows_its_parent(self, root: OpenDirectory) -> None:
        for path in ("a", "a/b", "c"):
            root.create_directory(path)
        b = subdirectory(root, "a/b", NONE, NONE)
        root.rename("a/b", root, "c/b")
        assert next(b.readdir(1))[1] == root.filestat_at("c", follow=False).inode
        with fails(Errno.INVAL):
            root.rename("c", root, "c/b/x")

    def test_files(self, root: OpenDirectory) -> None:
        write(open_at(root, "a", CREAT, Rights.FD_WRITE), b"a")
        create(root, "b")
        root.rename("a", root, "b")
        assert root.filestat_at("b", follow=False).size == 1
        with fails(Errno.NOTDIR):
            root.rename("b/", root, "c")
        with fails(Errno.NOTDIR):
            root.rename("b", root, "c/")
        root.link("b", follow=False, target=root, new_path="c")
        root.rename("b", root, "c")
        assert names(root) == [".", "..", "b", "c"]

    def test_a_link_is_renamed_itself(self, root: OpenDirectory) -> None:
        create(root, "f")
        root.symlink("f", "l")
        root.rename("l", root, "m")
        assert root.readlink("m") == b"f"
        create(root, "g")
        root.rename("g", root, "m")
        assert root.filestat_at("m", follow=False).filetype is FileType.REGULAR_FILE


class TestListing:
    def test_entries(self, root: OpenDirectory) -> None:
        create(root, "f")
        root.create_directory("d")
        root.symlink("f", "ü")
        entries = list(root.readdir(0))
        assert [entry[2:] for entry in entries] == [
            (b".", FileType.DIRECTORY),
            (b"..", FileType.DIRECTORY),
            (b"f", FileType.REGULAR_FILE),
            (b"d", FileType.DIRECTORY),
            ("ü".encode(), FileType.SYMBOLIC_LINK),
        ]
        assert entries[0][1] == root.filestat().inode
        for _, inode, name, _ in entries[2:]:
            assert inode == root.filestat_at(name.decode(), follow=False).inode
        for index, entry in enumerate(entries):
            assert list(root.readdir(entry[0])) == entries[index + 1 :]
        assert list(root.readdir((1 << 64) - 1)) == []

    def test_many_entries_by_small_steps(self, root: OpenDirectory) -> None:
        for number in range(1000):
            create(root, f"f{number}")
        seen, cookie = [], 0
        while part := list(itertools.islice(root.readdir(cookie), 7)):
            seen += [name for _, _, name, _ in part]
            cookie = part[-1][0]
        assert len(seen) == len(set(seen)) == 1002

    def test_what_stays_appears_once_while_others_come_and_go(self, root: OpenDirectory) -> None:
        for number in range(20):
            create(root, f"f{number}")
        seen, cookie = [], 0
        for step in range(100):
            entry = next(root.readdir(cookie), None)
            if entry is None:
                break
            cookie = entry[0]
            seen.append(entry[2].decode())
            if step < 20:
                create(root, f"new{step}")
            if step % 3 == 0 and step < 18:
                root.unlink_file(f"f{step}")
        stayed = {f"f{number}" for number in range(20) if number % 3 or number >= 18}
        assert all(seen.count(name) == 1 for name in stayed)

    def test_renaming_each_entry_comes_to_an_end(self, root: OpenDirectory) -> None:
        for number in range(5):
            create(root, f"f{number}")
        for _, _, name, _ in root.readdir(2):
            root.rename(name.decode(), root, name.decode() + ".bak")
        assert names(root)[2:] == [f"f{number}.bak" for number in range(5)]
