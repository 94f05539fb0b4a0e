"""One verifier judges thousands of pieces of evidence in constant memory, and many threads at once."""

from __future__ import annotations

import gc
import resource
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import pytest
from tests.forge import dcap, snp
from tests.forge.pki import NOW, ec_key

from enarx.attest import (
    AuthenticityOnly,
    Cache,
    Collateral,
    EvidenceRejected,
    TrustAnchors,
    Vendor,
    Verifier,
    registry,
)
from enarx.tcb.errors import EnarxError, Malformed
from enarx_emulator.intel.documents import sign

COUNT = 10_000
CHIPS = 200
"""Machines whose certificates the evidence is of: more than the cache has room for."""
CACHE_ENTRIES = 128
RSS_BYTES = 16 * 1024 * 1024
"""What the allocator may keep; 10,000 leaked reports of 1 KiB with their checks would be more than 100 MiB."""
OBJECTS = 2_000
ANCHORS = (
    TrustAnchors.none()
    .adding(snp.ark().der, name="AMD", vendor=Vendor.AMD)
    .adding(dcap.root().der, name="Intel", vendor=Vendor.INTEL)
)


@dataclass(frozen=True)
class Given:
    """Evidence with its collateral, and what must come of it."""

    evidence: bytes
    collateral: Collateral
    binding: bytes
    outcome: type[EnarxError] | None = None


def verifier(entries: int = CACHE_ENTRIES) -> Verifier:
    return Verifier(
        tees=tuple(registry.BUILTIN.values()),
        anchors=ANCHORS,
        policy=AuthenticityOnly(),
        cache=Cache(max_entries=entries),
    )


def challenge(number: int) -> bytes:
    return number.to_bytes(64, "big")


@cache
def quote_parts() -> tuple[bytes, Collateral]:
    """One SGX quote, and what it is verified with."""
    return dcap.sgx().quote.raw, dcap.sgx().collateral


def quote(number: int) -> Given:
    """An SGX quote with report data of its own, signed anew."""
    raw, collateral = quote_parts()
    signed = raw[:368] + challenge(number)
    signature = sign(ec_key("attestation", dcap.P256), signed)
    return Given(signed + raw[432:436] + signature + raw[500:], collateral, challenge(number))


@cache
def chip(number: int) -> tuple[bytes, Collateral]:
    """The id of a machine, and the collateral of its reports."""
    hwid = number.to_bytes(2, "big") + bytes(range(2, 64))
    return hwid, Collateral(certificates=(snp.vcek(hwid=hwid).der, snp.ask().der), crls=(amd_list(),))


@cache
def amd_list() -> bytes:
    return snp.ark().crl()


def report(number: int) -> Given:
    """An SNP report of one of several machines."""
    hwid, collateral = chip(number % CHIPS)
    return Given(
        snp.Report().but(chip_id=hwid, report_data=challenge(number)).raw, collateral, challenge(number)
    )


def changed(number: int) -> Given:
    """A quote in which one byte was changed."""
    given = quote(number)
    raw = bytearray(given.evidence)
    raw[112 + number % 32] ^= 1
    return Given(bytes(raw), given.collateral, given.binding, EvidenceRejected)


def cut(number: int) -> Given:
    """A quote that ends too early."""
    given = quote(number)
    return Given(given.evidence[: 60 + number % 1000], given.collateral, given.binding, Malformed)


KINDS: tuple[Callable[[int], Given], ...] = (quote, report, quote, changed, quote, cut)


def stream() -> Iterator[Given]:
    """Evidence without end, no two pieces alike."""
    number = 0
    while True:
        yield KINDS[number % len(KINDS)](number)
        number += 1


def judge(judging: Verifier, given: Given) -> type[EnarxError] | None:
    """Verify, and see that what comes is what must come, and of this evidence."""
    refused: EnarxError | None = None
    try:
        claims = judging.verify(given.evidence, collateral=given.collateral, binding=given.binding, now=NOW)
    except EnarxError as error:
        refused = error
    if given.outcome is None:
        assert refused is None, refused
        assert claims.report_data == given.binding
    else:
        assert isinstance(refused, given.outcome), refused
    return given.outcome


def rss() -> int:
    """Resident bytes of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.slow
def test_ten_thousand_in_a_row_take_constant_memory() -> None:
    judging, evidence = verifier(), stream()
    outcomes = Counter(judge(judging, given) for given in islice(evidence, COUNT // 5))
    gc.collect()
    before, objects = rss(), len(gc.get_objects())
    outcomes += Counter(judge(judging, given) for given in islice(evidence, COUNT - COUNT // 5))
    gc.collect()
    assert rss() - before < RSS_BYTES
    assert len(gc.get_objects()) - objects < OBJECTS
    assert judging._cache is not None
    assert len(judging._cache) == CACHE_ENTRIES
    assert outcomes.total() == COUNT
    assert outcomes[None] > COUNT / 2
    assert {EvidenceRejected, Malformed} < outcomes.keys()


@pytest.mark.parametrize("entries", [4, CACHE_ENTRIES * 8], ids=["cache that overflows", "cache with room"])
def test_threads_share_a_verifier(entries: int) -> None:
    judging, threads, each = verifier(entries), 8, 48
    evidence = list(islice(stream(), threads * each))
    start = threading.Barrier(threads, timeout=60)

    def work(first: int) -> list[type[EnarxError] | None]:
        start.wait()
        return [judge(judging, given) for given in evidence[first::threads]]

    with ThreadPoolExecutor(threads) as pool:
        outcomes = [pool.submit(work, first) for first in range(threads)]
        found = [one for future in outcomes for one in future.result(120)]
    assert Counter(found) == Counter(given.outcome for given in evidence)


def test_verifiers_share_nothing_but_what_they_are_given() -> None:
    """What one verifier learnt under its roots is nothing to another without them."""
    given = quote(1)
    shared = Cache()
    tees = tuple(registry.BUILTIN.values())
    trusting = Verifier(tees=tees, anchors=ANCHORS, policy=AuthenticityOnly(), cache=shared)
    strict = Verifier(tees=tees, anchors=TrustAnchors.vendor(), policy=AuthenticityOnly(), cache=shared)
    for _ in range(2):
        assert judge(trusting, given) is None
        with pytest.raises(EvidenceRejected) as refused:
            strict.verify(given.evidence, collateral=given.collateral, binding=given.binding, now=NOW)
        assert refused.value.check.name == "dcap.pck.root"
