"""The demos' interpreter: a few instructions, and an error for everything else."""

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


@pytest.mark.parametrize("code", ["0f0b", "90", "b0", "ba12", "f7f1", "e800", ""])
def test_what_it_does_not_know_is_an_error_with_registers(code: str) -> None:
    with pytest.raises(EmulationFailed, match="does not know the instruction") as caught:
        Interpreter(bytes.fromhex(code), Registers(rbx=5)).run()
    assert caught.value.registers.rbx == 5


def test_a_guest_without_end_is_an_error() -> None:
    with pytest.raises(Misuse, match="within 10 instructions"):
        Interpreter(bytes.fromhex("b001") * 20, Registers()).run(max_instructions=10)


@given(st.binary(max_size=64))
def test_any_code_ends(code: bytes) -> None:
    machine = Interpreter(bytearray(code), Registers())
    try:
        for _ in range(100):
            machine.run(max_instructions=100)
    except EmulationFailed as error:
        assert error.registers == machine.registers  # noqa: PT017 (there need not be an error)
    except Misuse as error:
        assert "within 100 instructions" in str(error)  # noqa: PT017 (it may jump in a circle)


# mov sp, 0x60; call add; mov bx, 10; xor cx, cx; next: xor dx, dx; div bx; push dx; inc cx; test ax, ax; jne next;
# print: pop ax; add al, '0'; out dx, al; loop print; hlt; add: mov ax, LEFT; mov bx, RIGHT; add ax, bx; ret
DECIMAL = "bc6000 e81600 bb0a00 31c9 31d2 f7f3 52 41 85c0 75f6 58 0430 ee e2fa f4 b8{} bb{} 01d8 c3"


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_it_divides_calls_and_keeps_a_stack(left: int, right: int) -> None:
    code = DECIMAL.format(left.to_bytes(2, "little").hex(), right.to_bytes(2, "little").hex())
    machine = Interpreter(bytearray(bytes.fromhex(code).ljust(0x60, b"\0")), Registers())
    output = b""
    while isinstance(event := machine.run(), IoOut):
        output += event.data
    assert (event, int(output)) == (Halt(), (left + right) % 0x10000)


@pytest.mark.parametrize(
    ("code", "what"),
    [("bb0000 f7f3", "divide error at f7f3"), ("ba0100 bb0100 f7f3", "divide error at f7f3")],
)
def test_a_division_that_a_processor_refuses(code: str, what: str) -> None:
    with pytest.raises(EmulationFailed, match=what):
        Interpreter(bytearray.fromhex(code), Registers()).run()


@pytest.mark.parametrize("code", ["50", "58", "c3", "e80000"])
def test_a_stack_outside_memory_is_an_error(code: str) -> None:
    with pytest.raises(EmulationFailed, match="no memory for the stack"):
        Interpreter(bytearray.fromhex(code), Registers(rsp=0xFFF0)).run()
    with pytest.raises(EmulationFailed):
        Interpreter(bytes.fromhex(code), Registers(rsp=0)).run()  # memory that cannot be written
