"""The guest of the SEV demo: what is measured, and where the tenant's code goes.

The measured part is public and prints whatever the tenant's code leaves in AX. docs/how-to/attested-demo.md lists it.
"""

from __future__ import annotations

from typing import Final

ENTRY: Final = 0x1000
"""Where the measured memory begins, and where the processor starts in real mode."""
CODE: Final = 0x2000
"""Where the firmware puts the tenant's code; it ends with a near return."""
REGION_BYTES: Final = 0x2000
"""Two pages: the measured code, and zeros for the tenant's code with the stack above it."""
PORT: Final = 0x3F8
LARGEST: Final = 0xFFFF
"""Operands and their sum are words."""

STUB: Final = b"".join(
    (
        bytes.fromhex("bc 00 30"),  # 1000         mov sp, 0x3000    ; the end of the second page
        bytes.fromhex("e8 fa 0f"),  # 1003         call 0x2000       ; leaves its result in ax
        bytes.fromhex("bb 0a 00"),  # 1006         mov bx, 10
        bytes.fromhex("31 c9"),  #    1009         xor cx, cx        ; digits on the stack
        bytes.fromhex("31 d2"),  #    100b  digit: xor dx, dx
        bytes.fromhex("f7 f3"),  #    100d         div bx            ; ax = dx:ax / 10, dx = the digit
        bytes.fromhex("52"),  #       100f         push dx
        bytes.fromhex("41"),  #       1010         inc cx
        bytes.fromhex("85 c0"),  #    1011         test ax, ax
        bytes.fromhex("75 f6"),  #    1013         jne digit
        bytes.fromhex("ba f8 03"),  # 1015         mov dx, 0x3f8     ; the serial line
        bytes.fromhex("58"),  #       1018  print: pop ax
        bytes.fromhex("04 30"),  #    1019         add al, '0'
        bytes.fromhex("ee"),  #       101b         out dx, al
        bytes.fromhex("e2 fa"),  #    101c         loop print
        bytes.fromhex("b0 0a"),  #    101e         mov al, '\n'
        bytes.fromhex("ee"),  #       1020         out dx, al
        bytes.fromhex("f4"),  #       1021         hlt
    )
)


def measured_memory() -> bytes:
    """Give the memory that LAUNCH_UPDATE_DATA measures (8192 bytes): its SHA-256 is the launch digest."""
    return STUB.ljust(REGION_BYTES, b"\0")


def assemble(a: int, b: int) -> bytes:
    """Write the tenant's code (9 bytes) with two operands of 16 bits in it."""
    return b"".join(
        (
            b"\xb8" + a.to_bytes(2, "little"),  # mov ax, A
            b"\xbb" + b.to_bytes(2, "little"),  # mov bx, B
            bytes.fromhex("01 d8"),  #            add ax, bx
            bytes.fromhex("c3"),  #               ret
        )
    )
