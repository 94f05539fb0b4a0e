"""The enclave of the SGX demo, a program of the tenant's: one challenge, one sum, and nothing in the clear.

The platform measures it and starts it with the host behind descriptor 3 and the platform behind 4. It is run on the
host and trusts nothing that comes from there.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from enarx.tcb.errors import Malformed
from enarx.tcb.keep.platform import PortTree
from enarx.tcb.wire import FrameDecoder, Value, decode, encode, frame
from enarx.tenant.demo.sealing import OPERANDS, SUM, public_bytes, report_data, seal, unseal

HOST: Final = 3
PLATFORM: Final = 4
MAX_MESSAGE_BYTES: Final = 1 << 16
_NONCE_BYTES: Final = 32
_LARGEST: Final = (1 << 32) - 1


def rehearse() -> None:
    """Do once what will be done, so that all that it takes is loaded, and therefore listed and measured."""
    key = X25519PrivateKey.generate()
    sealed = seal([0, b""], key=public_bytes(key), purpose=SUM, binding=report_data(b"", b""))
    unseal(sealed, key=key, purpose=SUM, binding=report_data(b"", b""))


def main() -> None:
    """Answer one tenant."""
    rehearse()
    sys.meta_path.clear()  # what is not loaded now was not measured
    messages = FrameDecoder(max_bytes=MAX_MESSAGE_BYTES)
    key = X25519PrivateKey.generate()
    binding = report_data(_nonce(_receive(messages)), public_bytes(key))
    platform = PortTree(PLATFORM)
    platform.write("attestation/user_report_data", binding)
    _send([platform.read("attestation/quote"), public_bytes(key)])
    match _receive(messages):
        case bytes(sealed):
            a, b, reply = _operands(unseal(sealed, key=key, purpose=OPERANDS, binding=binding))
            _send(seal(a + b, key=reply, purpose=SUM, binding=binding))
        case _:
            raise Malformed("operands: expected bytes")


def _nonce(value: Value) -> bytes:
    if not isinstance(value, bytes) or len(value) != _NONCE_BYTES:
        raise Malformed(f"challenge: expected {_NONCE_BYTES} bytes")
    return value


def _operands(value: Value) -> tuple[int, int, bytes]:
    match value:
        case [int(a), int(b), bytes(reply)] if len(reply) == _NONCE_BYTES and all(
            0 <= one <= _LARGEST for one in (a, b)
        ):
            return a, b, reply
    raise Malformed("operands: expected two numbers of 32 bits and a key")


def _send(value: Value) -> None:
    left = memoryview(frame(encode(value)))
    while left:
        left = left[os.write(HOST, left) :]


def _receive(messages: FrameDecoder) -> Value:
    while True:
        for body in messages.frames():
            return decode(body, max_bytes=MAX_MESSAGE_BYTES)
        data = os.read(HOST, MAX_MESSAGE_BYTES)
        if not data:
            sys.exit(1)
        messages.feed(data)
