"""Answers of a platform's port that no platform of ours gives."""

from __future__ import annotations

import os
import socket

import pytest

from enarx.tcb.errors import Unavailable
from enarx.tcb.keep.platform import PortTree, find_source
from enarx.tcb.wire import Value, encode, frame


@pytest.mark.parametrize(
    "answer",
    [
        frame(encode([1 << 40, b""])),
        frame(encode([-1, b""])),
        frame(encode([2])),
        frame(b"\xff"),
        (1 << 31).to_bytes(4, "big"),
    ],
    ids=["no error number", "a negative one", "one part", "no CBOR", "too large"],
)
def test_whatever_the_port_says_a_keep_only_finds_no_platform(answer: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        with pytest.raises(Unavailable, match="the platform shows nothing"):
            find_source(PortTree(ours.fileno()))


def test_an_error_of_the_platform_is_that_error() -> None:
    ours, theirs = socket.socketpair()
    answer: Value = [13, b""]
    with ours, theirs:
        theirs.sendall(frame(encode(answer)))
        with pytest.raises(PermissionError, match=os.strerror(13)):
            PortTree(ours.fileno()).read("report/keep/outblob")
