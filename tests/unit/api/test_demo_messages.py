"""The demos' vocabulary: one encoding for each message, and nothing that is out of limits."""

from __future__ import annotations

import pytest

from enarx.api.demo import (
    MESSAGES,
    CertificateChain,
    ChainRequest,
    CheckFailed,
    EnclaveRequest,
    LaunchStart,
    Measurement,
    Message,
    Printed,
    Quote,
    Refusal,
    Sealed,
    Secret,
    expect,
)
from enarx.api.demo_guest import CODE, ENTRY, REGION_BYTES, STUB, assemble, measured_memory
from enarx.tcb.errors import Malformed, ProtocolViolation
from enarx.tcb.wire import encode

VERSION = {"api_major": 1, "api_minor": 55, "build": 29}
EVERY: list[Message] = [
    Refusal(check="sev.measure", reason=""),
    ChainRequest(),
    CertificateChain(certificates=b"c", **VERSION),
    LaunchStart(policy=bytes(4), certificate=bytes(2084), session=bytes(128)),
    Measurement(measure=bytes(48), **VERSION),
    Secret(header=bytes(52), payload=bytes(16)),
    Printed(output=b"4\n", interpreted=False),
    EnclaveRequest(image=b"i", argv=["python", "-I"], nonce=bytes(32)),
    Quote(quote=b"q", key=bytes(32), certificates=[b"c"], crls=[], documents=[["tcb-info", b"{}"]]),
    Sealed(data=b"s"),
]


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_every_message_has_one_encoding(message: Message) -> None:
    assert MESSAGES.decode(MESSAGES.encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        [1, 0],
        [2, b"c", 1, 55, 256],
        [3, bytes(3), bytes(2084), bytes(128)],
        [4, bytes(47), 1, 55, 29],
        [5, bytes(52), bytes(15)],
        [6, b"4\n", 1],
        [16, b"i", ["python\n"], bytes(32)],
        [16, b"i", [b"python"], bytes(32)],
        [17, b"q", bytes(32), [b"c"] * 65, [], []],
        [17, b"q", bytes(32), [], [], [[b"tcb-info", b""]]],
        [18, bytes(4097)],
        [99],
    ],
)
def test_what_is_out_of_limits_is_no_message(message: list[object]) -> None:
    with pytest.raises(Malformed):
        MESSAGES.decode(encode(message))  # type: ignore[arg-type]


def test_a_message_out_of_turn_is_named() -> None:
    assert expect(ChainRequest, ChainRequest()) == ChainRequest()
    with pytest.raises(ProtocolViolation, match="expected Sealed, found ChainRequest"):
        expect(Sealed, ChainRequest())


def test_a_failed_check_is_in_the_message() -> None:
    assert str(CheckFailed("firmware.launch_start", "no")) == "firmware.launch_start: no"


def test_the_measured_memory_holds_the_stub_and_room_for_the_code() -> None:
    memory = measured_memory()
    assert len(memory) == REGION_BYTES
    assert memory.rstrip(b"\0") == STUB
    assert len(STUB) <= CODE - ENTRY
    assert len(assemble(0xFFFF, 0)) == 9
