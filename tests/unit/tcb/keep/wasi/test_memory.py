"""Guest memory: every pointer and length of the guest is checked before it is used."""

from __future__ import annotations

import ctypes
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enarx.tcb.keep.wasi._abi import Errno, WasiError
from enarx.tcb.keep.wasi._memory import MAX_VECTORS, GuestMemory

SIZE = 65536
U32 = st.integers(0, 2**32 - 1)


class Backing:
    """Memory that can grow in place, as the engine's does."""

    def __init__(self) -> None:
        self.buffer = ctypes.create_string_buffer(2 * SIZE)
        self.size = SIZE

    def extent(self) -> tuple[int, int]:
        return ctypes.addressof(self.buffer), self.size


@pytest.fixture
def backing() -> Backing:
    return Backing()


@pytest.fixture
def memory(backing: Backing) -> GuestMemory:
    memory = GuestMemory()
    memory.attach(backing.extent)
    return memory


def refused(error: pytest.ExceptionInfo[WasiError]) -> Errno:
    return error.value.errno


@pytest.mark.parametrize(
    ("pointer", "size"),
    [(SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1), (2**32 - 1, 1), (2**32 - 1, 2**32 - 1), (SIZE + 1, 0)],
)
def test_slice_beyond_the_end_is_a_fault(memory: GuestMemory, pointer: int, size: int) -> None:
    with pytest.raises(WasiError) as error:
        memory.slice(pointer, size)
    assert refused(error) is Errno.FAULT


@given(pointer=U32, size=U32)
def test_a_slice_is_either_inside_or_refused(pointer: int, size: int) -> None:
    backing = Backing()
    memory = GuestMemory()
    memory.attach(backing.extent)
    try:
        view = memory.slice(pointer, size)
    except WasiError:
        assert pointer + size > SIZE
    else:
        assert len(view) == size
        assert pointer + size <= SIZE


def test_growth_is_noticed(memory: GuestMemory, backing: Backing) -> None:
    with pytest.raises(WasiError):
        memory.slice(SIZE, 4)
    backing.size = 2 * SIZE
    memory.slice(SIZE, 4)[:] = b"grow"
    assert backing.buffer.raw[SIZE : SIZE + 4] == b"grow"


def test_without_a_memory_every_pointer_is_a_fault() -> None:
    with pytest.raises(WasiError) as error:
        GuestMemory().slice(0, 1)
    assert refused(error) is Errno.FAULT


def test_vectors_are_views_of_the_memory(memory: GuestMemory, backing: Backing) -> None:
    memory.write(0, struct.pack("<IIII", 100, 3, 200, 2))
    first, second = memory.vectors(0, 2)
    first[:] = b"abc"
    second[:] = b"de"
    assert backing.buffer.raw[100:103] == b"abc"
    assert backing.buffer.raw[200:202] == b"de"


@pytest.mark.parametrize("count", [1, 2])
def test_a_vector_outside_is_a_fault(memory: GuestMemory, count: int) -> None:
    memory.write(0, struct.pack("<IIII", SIZE - 1, 2, SIZE - 1, 2))
    with pytest.raises(WasiError) as error:
        memory.vectors(0, count)
    assert refused(error) is Errno.FAULT


def test_the_table_of_vectors_outside_is_a_fault(memory: GuestMemory) -> None:
    with pytest.raises(WasiError) as error:
        memory.vectors(SIZE - 8, 2)
    assert refused(error) is Errno.FAULT


def test_more_vectors_than_the_maximum_are_served_in_part(memory: GuestMemory) -> None:
    memory.write(0, struct.pack("<II", 32768, 1) * (MAX_VECTORS + 1))
    assert len(memory.vectors(0, MAX_VECTORS + 1)) == MAX_VECTORS


def test_overlapping_vectors_of_more_than_32_bits_are_refused(backing: Backing) -> None:
    memory = GuestMemory()
    memory.attach(lambda: (ctypes.addressof(backing.buffer), SIZE))
    entries = MAX_VECTORS
    memory.write(0, struct.pack("<II", 0, SIZE) * entries)
    assert sum(map(len, memory.vectors(0, entries))) == entries * SIZE  # below 2^32: allowed
    # a larger memory would exceed what the guest's 32-bit result can say
    big = ctypes.create_string_buffer(8 * SIZE * 16)
    memory = GuestMemory()
    memory.attach(lambda: (ctypes.addressof(big), len(big)))
    memory.write(0, struct.pack("<II", 0, len(big)) * entries)
    with pytest.raises(WasiError) as error:
        memory.vectors(0, entries)
    assert refused(error) is Errno.INVAL


@pytest.mark.parametrize(
    ("text", "errno"), [(b"\xff\xfe", Errno.ILSEQ), (b"\xed\xa0\x80", Errno.ILSEQ), (b"a\0b", Errno.INVAL)]
)
def test_text_that_is_no_path_is_refused(memory: GuestMemory, text: bytes, errno: Errno) -> None:
    memory.write(0, text)
    with pytest.raises(WasiError) as error:
        memory.text(0, len(text))
    assert refused(error) is errno


def test_numbers_at_the_end(memory: GuestMemory) -> None:
    memory.write_u32(SIZE - 4, 0xDEADBEEF)
    assert bytes(memory.slice(SIZE - 4, 4)) == b"\xef\xbe\xad\xde"
    for write, pointer in ((memory.write_u32, SIZE - 3), (memory.write_u64, SIZE - 7)):
        with pytest.raises(WasiError):
            write(pointer, 1)
