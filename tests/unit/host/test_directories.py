"""Directories of the host: what is copied, what comes back, and what is refused."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from enarx.api.directory_tree import read_tree
from enarx.host.directories import Changes, leads_out, write_changes
from enarx.tcb.errors import EnarxError
from enarx.tcb.workload import Entry, EntryKind, Tree


def entry(path: str, data: bytes = b"", kind: EntryKind = EntryKind.FILE, modified_ns: int = 0) -> Entry:
    return Entry(path=path, kind=kind, data=data, modified_ns=modified_ns)


def directory(path: str) -> Entry:
    return entry(path, kind=EntryKind.DIRECTORY)


def link(path: str, target: bytes) -> Entry:
    return entry(path, target, EntryKind.SYMLINK)


def read(path: Path, max_bytes: int = 1000, max_entries: int = 100) -> Tree:
    return read_tree(str(path), max_bytes=max_bytes, max_entries=max_entries)


def without_times(tree: Tree) -> list[tuple[str, EntryKind, bytes]]:
    return [(it.path, it.kind, it.data) for it in tree.entries]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A directory with a file, a directory, a file in it, and a link that leads out."""
    path = tmp_path / "top"
    (path / "d").mkdir(parents=True)
    (path / "d" / "f").write_bytes(b"inner")
    (path / "f").write_bytes(b"outer")
    (path / "l").symlink_to("/etc/passwd")
    os.utime(path / "f", ns=(5, 7))
    return path


class TestReading:
    def test_a47_links_are_copied_and_not_followed(self, top: Path) -> None:
        tree = read(top)
        assert without_times(tree) == [
            ("d", EntryKind.DIRECTORY, b""),
            ("d/f", EntryKind.FILE, b"inner"),
            ("f", EntryKind.FILE, b"outer"),
            ("l", EntryKind.SYMLINK, b"/etc/passwd"),
        ]
        assert tree.entries[2].modified_ns == 7

    def test_a_link_to_a_directory_is_not_entered(self, top: Path) -> None:
        (top / "up").symlink_to("..")
        assert ("up", EntryKind.SYMLINK, b"..") in without_times(read(top))

    def test_the_directory_itself_may_be_named_by_a_link(self, top: Path) -> None:
        other = top.parent / "other"
        other.symlink_to(top)
        assert read(other) == read(top)

    def test_a47_a_fifo_is_refused_without_waiting(self, top: Path) -> None:
        os.mkfifo(top / "d" / "fifo")
        with pytest.raises(EnarxError, match="d/fifo: neither file"):
            read(top)

    def test_a47_a_socket_is_refused(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(top)
        with socket.socket(socket.AF_UNIX) as it:
            it.bind("s")
        with pytest.raises(EnarxError, match="s: neither file"):
            read(top)

    def test_a47_a_device_is_refused(self) -> None:
        with pytest.raises(EnarxError, match=r"/dev/[^:]*: neither file"):
            read_tree("/dev", max_bytes=1, max_entries=10_000)

    def test_a47_an_endless_file_is_refused_before_it_is_read(self, top: Path) -> None:
        os.truncate(top / "f", 1 << 40)
        with pytest.raises(EnarxError, match="more than 1000 bytes"):
            read(top)

    def test_a48_a_file_that_grows_while_it_is_read_is_refused(
        self, top: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        genuine = os.read

        def growing(fd: int, size: int) -> bytes:
            with (top / "f").open("ab") as file:
                file.write(b"x")
            return genuine(fd, size)

        monkeypatch.setattr(os, "read", growing)
        (top / "d" / "f").unlink()
        with pytest.raises(EnarxError, match="f: changed while it was read"):
            read(top)

    def test_limits_hold_for_all_files_together(self, top: Path) -> None:
        assert read(top, max_bytes=10, max_entries=4).size == 10
        with pytest.raises(EnarxError, match="more than 9 bytes"):
            read(top, max_bytes=9)
        with pytest.raises(EnarxError, match="more than 3 files"):
            read(top, max_entries=3)

    def test_depth_is_limited(self, top: Path) -> None:
        os.makedirs(str(top) + 101 * "/x")
        assert len(read(top, max_entries=1000).entries) == 105
        (top / ("x/" * 101) / "y").mkdir()
        with pytest.raises(EnarxError, match="deeper than 100"):
            read(top, max_entries=1000)

    def test_a_name_that_is_not_utf8_is_refused(self, top: Path) -> None:
        (Path(os.fsdecode(os.fsencode(top) + b"/\xff"))).touch()
        with pytest.raises(EnarxError, match="UTF-8"):
            read(top)

    @pytest.mark.parametrize("name", ["gone", "top/f"])
    def test_what_is_no_directory_is_an_error(self, top: Path, name: str) -> None:
        with pytest.raises(EnarxError, match=f"{name}: n"):
            read(top.parent / name)


class TestWriting:
    def test_nothing_changed_means_nothing_is_touched(self, top: Path) -> None:
        before, status = read(top), os.stat(top / "f")
        assert write_changes(str(top), before, before) == Changes()
        assert os.stat(top / "f") == status

    def test_changes_come_back_and_the_rest_stays(self, top: Path) -> None:
        before = read(top)
        os.chmod(top / "f", 0o640)
        untouched = os.stat(top / "d" / "f").st_ino
        after = Tree(
            (
                before.entries[0],
                before.entries[1],
                entry("f", b"changed", modified_ns=123_456_789),
                directory("n"),
                directory("n/m"),
                entry("n/m/new", b"new"),
                link("n/up", b"../f"),
            )
        )
        assert write_changes(str(top), before, after) == Changes(
            written=("f", "n", "n/m", "n/m/new", "n/up"), deleted=("l",)
        )
        assert without_times(read(top)) == without_times(after)
        status = os.stat(top / "f")
        assert (status.st_mtime_ns, stat.S_IMODE(status.st_mode)) == (123_456_789, 0o640)
        assert os.stat(top / "n" / "m").st_mtime_ns == 0
        assert os.stat(top / "d" / "f").st_ino == untouched
        assert Path("/etc/passwd").exists()

    def test_a_time_alone_is_set_without_rewriting(self, top: Path) -> None:
        before, inode = read(top), os.stat(top / "f").st_ino
        changed = [it if it.path != "f" else entry("f", b"outer", modified_ns=99) for it in before.entries]
        write_changes(str(top), before, Tree(tuple(changed)))
        assert (os.stat(top / "f").st_ino, os.stat(top / "f").st_mtime_ns) == (inode, 99)

    def test_kinds_may_change(self, top: Path) -> None:
        before = read(top)
        after = Tree((entry("d", b"now a file"), directory("f"), entry("f/x", b"x"), entry("l", b"no link")))
        write_changes(str(top), before, after)
        assert without_times(read(top)) == without_times(after)

    def test_the_last_time_there_is_does_not_overflow(self, top: Path) -> None:
        after = Tree((*read(top).entries, entry("z", modified_ns=(1 << 64) - 1)))
        write_changes(str(top), read(top), after)
        assert (top / "z").exists()

    @pytest.mark.parametrize("target", [b"/etc", b"..", b"../x", b"d/../../x", b"d/../f", b"./../x"])
    def test_links_that_lead_out_are_refused_and_reported(self, top: Path, target: bytes) -> None:
        before = read(top)
        after = Tree(
            (*before.entries, link("d/out", b"../../" + target), link("m", target), entry("n", b"n"))
        )
        changes = write_changes(str(top), before, after)
        assert (changes.refused, changes.written) == (("d/out", "m"), ("n",))
        assert not os.path.lexists(top / "m")

    @pytest.mark.parametrize(
        ("path", "target", "out"),
        [
            ("l", b"f", False),
            ("l", b".", False),
            ("d/l", b"..", False),
            ("d/l", b"../d/./f", False),
            ("d/e/l", b"../..", False),
            ("d/e/l", b"../../..", True),
            ("d/l", b"../..", True),
            ("l", b"..", True),
            ("l", b"/", True),
            ("l", b"s/s/s/../..", True),
        ],
    )
    def test_what_leads_out(self, path: str, target: bytes, out: bool) -> None:
        assert leads_out(link(path, target)) is out

    def test_links_of_the_host_are_replaced_and_not_followed(self, top: Path) -> None:
        victim = top.parent / "victim"
        victim.write_bytes(b"precious")
        (top / "l").unlink()
        (top / "l").symlink_to(victim)
        before = read(top)
        after = Tree((*before.entries[:3], entry("l", b"overwritten")))
        write_changes(str(top), before, after)
        assert (top / "l").read_bytes() == b"overwritten"
        assert not (top / "l").is_symlink()
        assert victim.read_bytes() == b"precious"

    def test_a_directory_that_became_a_link_is_not_followed(self, top: Path) -> None:
        outside = top.parent / "outside"
        outside.mkdir()
        before = read(top)
        (top / "d" / "f").unlink()
        (top / "d").rmdir()
        (top / "d").symlink_to(outside)
        after = Tree((*before.entries[:1], entry("d/new", b"x"), *before.entries[1:]))
        with pytest.raises(EnarxError, match="d/new: changed both"):
            write_changes(str(top), before, after)
        assert list(outside.iterdir()) == []

    @pytest.mark.parametrize(
        "meddle",
        [
            "printf OUTER >f",
            "printf 'longer than before' >f",
            "rm f",
            "rm f; mkdir f",
            "rm f; mkfifo f",
            "rm f; ln -s d/f f",
            "printf mine >new",
            "printf mine >d/extra",
            "ln -sf /dev/null l",
        ],
    )
    def test_what_both_changed_is_a_conflict_and_nothing_is_written(self, top: Path, meddle: str) -> None:
        before = read(top)
        subprocess.run(["sh", "-c", meddle], cwd=top, check=True)
        names = sorted(str(it) for it in top.rglob("*"))
        after = Tree((entry("a", b"first"), entry("f", b"theirs"), entry("new", b"theirs")))
        with pytest.raises(EnarxError, match="changed both by the workload and on the host"):
            write_changes(str(top), before, after)
        assert sorted(str(it) for it in top.rglob("*")) == names

    def test_what_only_the_host_changed_stays(self, top: Path) -> None:
        before = read(top)
        (top / "d" / "f").write_bytes(b"the host's")
        (top / "more").write_bytes(b"the host's")
        write_changes(str(top), before, Tree((*before.entries, entry("n", b"theirs"))))
        assert (top / "d" / "f").read_bytes() == (top / "more").read_bytes() == b"the host's"
        assert (top / "n").read_bytes() == b"theirs"

    def test_a_failed_write_leaves_no_temporary_file(
        self, top: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = read(top)

        def refuse(*_: object, **__: object) -> None:
            raise OSError(28, "full")

        monkeypatch.setattr(os, "utime", refuse)
        with pytest.raises(EnarxError, match="n: no space left"):
            write_changes(str(top), before, Tree((*before.entries, entry("n", b"x"))))
        assert sorted(it.name for it in top.iterdir()) == ["d", "f", "l"]
