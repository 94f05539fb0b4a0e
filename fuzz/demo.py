"""Fuzz target: what tenant and host of the attested demos send each other, and a guest's code in the interpreter."""

from __future__ import annotations

import contextlib

from enarx.api.demo import MESSAGES
from enarx.api.demo_guest import CODE, ENTRY, STUB
from enarx.tcb.errors import EnarxError
from ketuvim import EmulationFailed, Halt, Misuse, Registers
from ketuvim.interpreter import Interpreter

MEMORY_BYTES = 0x3000
MAX_EVENTS = 64


def one(data: bytes) -> None:
    """Read ``data`` as a message, which is written as it was, and run it as the code of a tenant."""
    with contextlib.suppress(EnarxError):
        assert MESSAGES.encode(MESSAGES.decode(data)) == data
    memory = bytearray(MEMORY_BYTES)
    memory[ENTRY : ENTRY + len(STUB)] = STUB
    code = data[: MEMORY_BYTES - CODE]
    memory[CODE : CODE + len(code)] = code
    guest = Interpreter(memory, Registers(rip=ENTRY))
    with contextlib.suppress(EmulationFailed, Misuse):
        for _ in range(MAX_EVENTS):
            if guest.run(max_instructions=1000) == Halt():
                break
    assert len(memory) == MEMORY_BYTES
