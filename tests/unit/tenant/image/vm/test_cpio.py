"""The first file system: the form that the kernel reads, and the same bytes each time."""

from __future__ import annotations

import stat
from typing import NamedTuple

import pytest

from enarx.tcb.errors import Malformed
from enarx.tenant.image.vm._cpio import Entry, character_device, cpio, directory, file


class Member(NamedTuple):
    fields: dict[str, int]
    content: bytes


FIELDS = (
    "inode", "mode", "uid", "gid", "links", "mtime", "size", "major", "minor", "rmajor", "rminor", "namesize", "check",
)  # fmt: skip


def read(archive: bytes) -> dict[str, Member]:
    """Read an archive as Documentation/driver-api/early-userspace/buffer-format.rst says."""
    members: dict[str, Member] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        numbers = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        fields = dict(zip(FIELDS, numbers, strict=True))
        name = archive[at + 110 : at + 110 + fields["namesize"]]
        assert name.endswith(b"\0")
        start = at + 110 + fields["namesize"]
        start += -start % 4
        end = start + fields["size"]
        assert not any(archive[end : end + -end % 4])
        if name == b"TRAILER!!!\0":
            assert not any(archive[end:])
            return members
        members[name[:-1].decode()] = Member(fields, archive[start:end])
        at = end + -end % 4


def test_files_directories_and_devices_come_back() -> None:
    archive = cpio(
        {
            "usr/bin/x": file(b"abc", executable=True),
            "dev/null": character_device(1, 3, mode=0o666),
            "proc": directory(),
        }
    )
    members = read(archive)
    assert list(members) == ["dev", "dev/null", "proc", "usr", "usr/bin", "usr/bin/x"]
    assert members["usr/bin/x"].content == b"abc"
    assert members["usr/bin/x"].fields["mode"] == stat.S_IFREG | 0o555
    assert members["usr"].fields["mode"] == stat.S_IFDIR | 0o755
    null = members["dev/null"].fields
    assert (null["mode"], null["rmajor"], null["rminor"]) == (stat.S_IFCHR | 0o666, 1, 3)
    assert len(archive) % 512 == 0


def test_nothing_of_the_builder_is_in_it() -> None:
    for member in read(cpio({"a": file(b"1"), "b/c": file(b"")})).values():
        fields = member.fields
        assert (fields["uid"], fields["gid"], fields["mtime"], fields["major"], fields["minor"]) == (
            0,
            0,
            0,
            0,
            0,
        )


def test_order_of_entries_does_not_matter() -> None:
    entries = {"b": file(b"2"), "a/x": file(b"1"), "a": directory()}
    assert cpio(entries) == cpio(dict(reversed(entries.items())))


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "../a", "a/./b", "a\0b", "x" * 4096])
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(Malformed, match="path is"):
        cpio({path: Entry(mode=stat.S_IFREG)})
