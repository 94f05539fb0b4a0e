"""Counting the tables of a module."""

import pytest
import wasmtime

from enarx.tcb.keep.tables import count_tables


@pytest.mark.parametrize("tables", [0, 1, 2, 127, 128, 300])
def test_tables_are_counted_wherever_their_section_stands(tables: int) -> None:
    text = f'(module (memory 1) (func (export "_start")) {"(table 1 funcref)" * tables})'
    module = bytes(wasmtime.wat2wasm(text))
    custom = bytes([0, 0x85, 0x01, 4, *b"name"]) + bytes(128)
    assert count_tables(module) == tables
    assert count_tables(module[:8] + custom + module[8:]) == tables


def test_nothing_has_no_tables() -> None:
    assert count_tables(b"") == 0
