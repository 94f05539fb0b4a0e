"""The secret of an SEV launch, found in memory that the firmware reserved: a file stands for memory here."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from tests.unit.tcb.keep.vm.test_tree_server import REPORT_DATA
from tests.unit.tcb.keep.vm.tree_port import served

from enarx.attest.sev import build_secret_table
from enarx.tcb.errors import Unavailable
from enarx.tcb.keep.platform import find_source
from enarx.tcb.keep.vm._launch_secret import AREA_BYTES, PAGE_BYTES, SecretTree, take_secret
from enarx.tcb.session import LAUNCH_GUID, launch_proof
from enarx.tcb.wire import encode

SECRET = bytes(range(32))
TABLE = build_secret_table({UUID(LAUNCH_GUID): SECRET})
AREA = 0x810000
NOISE = bytes(range(1, 256)) * 17
"""What a guest sees of memory that nobody has encrypted for it is no zeros."""


class Memory:
    """A machine's memory and its map, with the ranges that OVMF gives."""

    def __init__(self, place: Path) -> None:
        self.file, self.map = place / "mem", place / "memmap"
        self.map.mkdir()
        with self.file.open("wb") as file:
            file.truncate(0x1000000)
        self.range(0x100000, 0x80FFFF, "System RAM")
        self.range(AREA, AREA + 0xFFF, "Reserved")
        self.range(AREA + 0x1000, AREA + 0x1FFF, "System RAM")
        self.range(AREA + 0x2000, AREA + 0x2FFF, "Reserved")
        self.range(0xE0000000, 0xEFFFFFFF, "Reserved")

    def range(self, first: int, last: int, kind: str) -> None:
        entry = self.map / str(len(list(self.map.iterdir())))
        entry.mkdir()
        for name, text in (("start", f"{first:#x}"), ("end", f"{last:#x}"), ("type", kind)):
            (entry / name).write_text(f"{text}\n")

    def put(self, at: int, data: bytes) -> None:
        with self.file.open("r+b") as file:
            file.seek(at)
            file.write(data)

    def page(self, at: int = AREA) -> bytes:
        with self.file.open("rb") as file:
            file.seek(at)
            return file.read(PAGE_BYTES)

    def take(self) -> SecretTree | None:
        return take_secret(str(self.file), str(self.map))


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    made = Memory(tmp_path)
    made.put(AREA, NOISE[:PAGE_BYTES])
    return made


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_the_secret_of_a_launch_is_proved_and_is_nowhere_any_more(memory: Memory) -> None:
    memory.put(AREA, TABLE)
    before = open_descriptors() + 1  # the map, which the process keeps that ends with the secret
    tree = memory.take()
    assert tree is not None
    assert open_descriptors() == before
    assert memory.page() == bytes(PAGE_BYTES)
    for port in served(tree):
        proof = encode([REPORT_DATA, launch_proof(SECRET, REPORT_DATA)])
        evidence = find_source(port).evidence(REPORT_DATA)
        assert evidence == encode(["application/vnd.enarx.evidence.launch-proof", proof])
        with pytest.raises(Unavailable, match="No such file"):
            find_source(port)
    assert memory.take() is None


def test_it_is_found_beside_others_and_wherever_the_firmware_reserves_a_page(memory: Memory) -> None:
    place = AREA + 0x2000
    memory.put(place, build_secret_table({uuid4(): b"of another", UUID(LAUNCH_GUID): SECRET}))
    tree = memory.take()
    assert tree is not None
    for port in served(tree):
        find_source(port)
    assert memory.page(place) == bytes(PAGE_BYTES)
    assert memory.page() == NOISE[:PAGE_BYTES]


@pytest.mark.parametrize(
    ("place", "content"),
    [
        (AREA, b""),
        (AREA, uuid4().bytes + TABLE[16:]),
        (AREA + 16, TABLE),
        (AREA + 0x1000, TABLE),
    ],
    ids=["no table", "another guid", "not at the beginning", "in memory that is not reserved"],
)
def test_memory_without_a_table_is_left_alone(memory: Memory, place: int, content: bytes) -> None:
    memory.put(place, content)
    whole = memory.file.read_bytes()
    assert memory.take() is None
    assert memory.file.read_bytes() == whole


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (TABLE[:16] + (AREA_BYTES + 1).to_bytes(4, "little") + TABLE[20:], "Bad message"),
        (TABLE[:16] + (19).to_bytes(4, "little") + TABLE[20:], "Bad message"),
        (TABLE[:36] + (53).to_bytes(4, "little") + TABLE[40:], "Bad message"),
        (TABLE[:-1] + b"\1", "Bad message"),
        (build_secret_table({uuid4(): SECRET}), "No such file"),
        (build_secret_table({UUID(LAUNCH_GUID): SECRET[1:]}), "31 bytes, expected 32"),
    ],
    ids=[
        "longer than its area",
        "shorter than its head",
        "an entry beyond the end",
        "no padding",
        "no secret of ours",
        "a short secret",
    ],
)
def test_a_table_that_does_not_hold_the_secret_gives_no_evidence(
    memory: Memory, table: bytes, reason: str
) -> None:
    memory.put(AREA, table)
    tree = memory.take()
    assert tree is not None
    for port in served(tree):
        with pytest.raises(Unavailable, match=reason):
            find_source(port)
    assert memory.page() == bytes(PAGE_BYTES)


def test_a_keep_gets_nothing_else_and_changes_nothing(memory: Memory) -> None:
    memory.put(AREA, TABLE)
    tree = memory.take()
    assert tree is not None
    for port in served(tree):
        with pytest.raises(FileNotFoundError):
            port.read(f"coco/{uuid4()}")
        with pytest.raises(PermissionError):
            port.write(f"coco/{LAUNCH_GUID}", b"mine")
        with pytest.raises(PermissionError):
            port.make("coco/mine")
        find_source(port)


def test_a_machine_that_shows_no_memory_is_told_by_the_system(memory: Memory) -> None:
    memory.file.unlink()
    with pytest.raises(FileNotFoundError):
        memory.take()
