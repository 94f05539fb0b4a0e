"""Add two digits in a virtual machine: ``python examples/ketuvim/add.py A B``.

The guest is sixteen bytes of real-mode code with the operands in it. It prints the sum and a line feed through port
0x3f8, where a PC has its serial line, and halts. Without ``/dev/kvm`` a tiny interpreter runs it and says so.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ketuvim import Bus, Console, Halt, IoOut, Kvm, KvmUnavailable, Registers, boot
from ketuvim.interpreter import NOTICE, Interpreter
from ketuvim.system import DEVICE

PORT = 0x3F8
LARGEST = 4
"""So that the sum is one digit."""


def assemble(a: int, b: int) -> bytes:
    """Write the guest's code."""
    return b"".join(
        (
            b"\xba" + PORT.to_bytes(2, "little"),  # mov dx, PORT
            bytes((0xB0, a)),  # mov al, a
            bytes((0xB3, b)),  # mov bl, b
            bytes((0x00, 0xD8)),  # add al, bl
            bytes((0x04, ord("0"))),  # add al, '0'
            bytes((0xEE,)),  # out dx, al
            bytes((0xB0, ord("\n"))),  # mov al, '\n'
            bytes((0xEE,)),  # out dx, al
            bytes((0xF4,)),  # hlt
        )
    )


def on_kvm(code: bytes) -> bytes:
    """Run the guest on the machine's KVM, and give what it printed."""
    console, bus = Console(), Bus()
    bus.attach_ports(range(PORT, PORT + 1), console)
    with Kvm.open() as kvm, boot(kvm, code) as machine:
        event = bus.serve(machine.vcpu, timeout_s=10)
    if event != Halt():
        raise SystemExit(f"add: the guest ended with {event}")
    return bytes(console.output)


def interpreted(code: bytes) -> bytes:
    """Run the guest without KVM."""
    machine, output = Interpreter(code, Registers()), b""
    while isinstance(event := machine.run(), IoOut):
        output += event.data
    return output


def main(arguments: list[str]) -> int:
    """Check the operands, run, print."""
    if len(arguments) != 2:
        print("usage: add NUMBER NUMBER", file=sys.stderr)
        return 2
    if not all(text.isascii() and text.isdecimal() and int(text) <= LARGEST for text in arguments):
        print(f"add: each number is between 0 and {LARGEST}", file=sys.stderr)
        return 2
    code = assemble(int(arguments[0]), int(arguments[1]))
    try:
        if Path(DEVICE).exists():
            output = on_kvm(code)
        else:
            print(f"add: {NOTICE}", file=sys.stderr)
            output = interpreted(code)
    except KvmUnavailable as error:
        print(f"add: {error}", file=sys.stderr)
        return 4
    print(output.decode(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
