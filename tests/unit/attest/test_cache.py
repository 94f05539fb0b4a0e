"""The cache: bounded, shared by threads, and blind to failures."""

from __future__ import annotations

import threading

import pytest

from enarx.attest import Cache
from enarx.attest.errors import MalformedCollateral


def test_a_fact_is_computed_once() -> None:
    calls: list[bytes] = []

    def compute(data: bytes) -> int:
        calls.append(data)
        return len(data)

    cache = Cache()
    assert [cache.remember(compute, b"abc") for _ in range(3)] == [3, 3, 3]
    assert cache.remember(compute, b"ab") == 2
    assert calls == [b"abc", b"ab"]


def test_two_functions_of_the_same_bytes_are_two_facts() -> None:
    cache = Cache()
    assert cache.remember(len, b"abc") == 3
    assert cache.remember(bytes.hex, b"abc") == "616263"


def test_what_raises_is_tried_again() -> None:
    cache, calls = Cache(), []

    def compute(data: bytes) -> None:
        calls.append(data)
        raise MalformedCollateral("no")

    for _ in range(2):
        with pytest.raises(MalformedCollateral):
            cache.remember(compute, b"a")
    assert len(calls) == 2
    assert len(cache) == 0


def test_the_least_recently_used_goes_first() -> None:
    cache, calls = Cache(max_entries=2), []

    def compute(number: int) -> int:
        calls.append(number)
        return number

    for number in (1, 2, 1, 3, 1, 2):
        cache.remember(compute, number)
    assert calls == [1, 2, 3, 2]
    assert len(cache) == 2


def test_threads_share_it_and_it_stays_bounded() -> None:
    cache = Cache(max_entries=8)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for step in range(300):
            number = (seed * 7 + step) % 20
            if cache.remember(abs, -number) != number:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(cache) == 8
