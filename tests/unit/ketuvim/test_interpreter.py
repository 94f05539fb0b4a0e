"""The demo's interpreter: seven instructions, and an error for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketuvim import EmulationFailed, Halt, IoOut, Misuse, Registers
from ketuvim.interpreter import Interpreter


def test_it_adds_and_prints() -> None:
    # mov dx, 0x3f8; mov al, 2; mov bl, 2; add al, bl; add al, '0'; out dx, al; mov al, '\n'; out dx, al; hlt
    code = bytes.fromhex("baf803 b002 b302 00d8 0430 ee b00a ee f4")
    machine = Interpreter(code, Registers())
    assert [machine.run() for _ in range(3)] == [IoOut(0x3F8, 1, b"4"), IoOut(0x3F8, 1, b"\n"), Halt()]


@pytest.mark.parametrize("code", ["0f0b", "90", "b0", "ba12", ""])
def test_what_it_does_not_know_is_an_error_with_registers(code: str) -> None:
    with pytest.raises(EmulationFailed, match="does not know the instruction") as caught:
        Interpreter(bytes.fromhex(code), Registers(rbx=5)).run()
    assert caught.value.registers.rbx == 5


def test_a_guest_without_end_is_an_error() -> None:
    with pytest.raises(Misuse, match="within 10 instructions"):
        Interpreter(bytes.fromhex("b001") * 20, Registers()).run(max_instructions=10)


@given(st.binary(max_size=64))
def test_any_code_ends(code: bytes) -> None:
    machine = Interpreter(code, Registers())
    try:
        while machine.run() != Halt():
            pass
    except EmulationFailed as error:
        assert error.registers == machine.registers  # noqa: PT017 (there need not be an error)
