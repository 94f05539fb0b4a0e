"""Sealed code opens for exactly what it was made from, and for nothing that a host could do to it."""

from __future__ import annotations

import pytest

from enarx.tcb.keep.code_cache import MAC_BYTES, CodeCache
from enarx.tcb.wire import Value

KEY = bytes(range(32))
MADE_FROM: list[Value] = [b"module digest", "wasmtime 1", 1, "x86_64"]
CODE = bytearray(b"machine code" * 10)


def sealed(key: bytes = KEY, made_from: list[Value] = MADE_FROM) -> bytes:
    cache = CodeCache(key=key, sealed=b"", made_from=made_from)
    cache.seal(lambda: CODE)
    assert cache.fresh is not None
    return cache.fresh


def opened(data: bytes, key: bytes = KEY, made_from: list[Value] = MADE_FROM) -> bytes | None:
    return CodeCache(key=key, sealed=data, made_from=made_from).open()


def test_what_was_sealed_opens() -> None:
    assert opened(sealed()) == bytes(CODE)


def test_no_flipped_bit_opens() -> None:
    data = sealed()
    for at in range(len(data)):
        assert opened(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) is None


@pytest.mark.parametrize("size", [0, 1, MAC_BYTES - 1, MAC_BYTES, MAC_BYTES + 1, -1])
def test_nothing_truncated_opens(size: int) -> None:
    assert opened(sealed()[:size]) is None


def test_nothing_extended_opens() -> None:
    assert opened(sealed() + b"\0") is None


def test_another_key_does_not_open() -> None:
    assert opened(sealed(), key=bytes(32)) is None


@pytest.mark.parametrize("place", range(len(MADE_FROM)))
def test_code_for_something_else_does_not_open(place: int) -> None:
    other = list(MADE_FROM)
    other[place] = b"other" if isinstance(other[place], bytes) else "other"
    assert opened(sealed(made_from=other)) is None


def test_fields_cannot_flow_into_each_other() -> None:
    assert opened(sealed(made_from=["ab", "c"]), made_from=["a", "bc"]) is None


def test_without_a_key_nothing_is_sealed_or_opened() -> None:
    cache = CodeCache(key=b"", sealed=sealed(), made_from=MADE_FROM)
    cache.seal(lambda: CODE)
    assert cache.fresh is None
    assert cache.open() is None
