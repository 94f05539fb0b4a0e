"""The one entry: what it recognises, what it is made of, and that many threads may use it."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from datetime import timedelta

import pytest
from tests.forge.pki import NOW
from tests.forge.snp import REPORT_DATA, Case, Report, ark

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Cache,
    Claims,
    Collateral,
    EvidenceRejected,
    MalformedCollateral,
    MalformedEvidence,
    PolicyError,
    TrustAnchors,
    Verifier,
    snp,
)
from enarx.attest import __all__ as exported
from enarx.attest._verifier import MAX_EVIDENCE_BYTES
from enarx.attest.collateral import MAX_ITEMS
from enarx.attest.registry import BUILTIN, select


def verifier(case: Case, cache: Cache | None = None) -> Verifier:
    return Verifier(tees=[snp.VERIFIER], anchors=case.anchors, policy=AuthenticityOnly(), cache=cache)


def test_a_verifier_needs_a_kind_of_evidence() -> None:
    with pytest.raises(ValueError, match="accept nothing"):
        Verifier(tees=[], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly())


@pytest.mark.parametrize("data", [b"", b"x", bytes(1184), b"\x02" * 5000, bytes(MAX_EVIDENCE_BYTES + 1)])
def test_what_is_no_evidence_is_malformed(data: bytes) -> None:
    from enarx.tcb.errors import Malformed

    with pytest.raises(Malformed):
        verifier(Case()).verify(data, collateral=Collateral.none(), binding=AnyBinding(), now=NOW)


def test_evidence_of_a_kind_that_is_not_enabled_is_malformed() -> None:
    judge = Verifier(tees=[BUILTIN["tdx"]], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly())
    with pytest.raises(MalformedEvidence, match="no evidence that is enabled"):
        judge.verify(Report().raw, collateral=Collateral.none(), binding=AnyBinding(), now=NOW)


def test_names_become_verifiers_only_when_they_exist() -> None:
    assert select(["snp"]) == (snp.VERIFIER,)
    with pytest.raises(PolicyError, match="no verifier is called"):
        select(["snp", "sev-snp"])


def test_the_binding_that_is_left_out_shows_in_the_claims() -> None:
    case = Case()
    claims = verifier(case).verify(case.report.raw, collateral=case.collateral, binding=AnyBinding(), now=NOW)
    assert not claims.bound
    assert any(
        check.name == "binding.report_data" and check.outcome.value == "noted" for check in claims.checks
    )


def test_replayed_evidence_does_not_answer_another_challenge() -> None:
    """A1, A3: evidence of yesterday, or of a parallel session, against the challenge of this one."""
    case = Case()
    judge = verifier(case)
    judge.verify(case.report.raw, collateral=case.collateral, binding=REPORT_DATA, now=NOW)
    with pytest.raises(EvidenceRejected) as refused:
        judge.verify(case.report.raw, collateral=case.collateral, binding=bytes(64), now=NOW)
    assert refused.value.check.name == "binding.report_data"


def test_the_cache_remembers_no_verdict() -> None:
    """A11, A15: time and revocation are judged every time, whatever was verified before."""
    cache, case = Cache(), Case()
    judge = verifier(case, cache)
    judge.verify(case.report.raw, collateral=case.collateral, binding=REPORT_DATA, now=NOW)
    with pytest.raises(EvidenceRejected) as late:
        judge.verify(
            case.report.raw,
            collateral=case.collateral,
            binding=REPORT_DATA,
            now=NOW + timedelta(days=365 * 20),
        )
    assert late.value.check.name == "snp.chain.not_after"
    revoked = case.but(crls=(ark().crl(0x10001),))
    with pytest.raises(EvidenceRejected) as withdrawn:
        judge.verify(case.report.raw, collateral=revoked.collateral, binding=REPORT_DATA, now=NOW)
    assert withdrawn.value.check.name == "snp.crl.revoked"
    stranger = Verifier(
        tees=[snp.VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly(), cache=cache
    )
    with pytest.raises(EvidenceRejected) as rootless:
        stranger.verify(case.report.raw, collateral=case.collateral, binding=REPORT_DATA, now=NOW)
    assert rootless.value.check.name == "snp.chain.root"


def test_many_threads_share_one_verifier() -> None:
    good, bad = Case(), Case(report=Report().but(reported_tcb=bytes(8)))
    judge = verifier(good, Cache())
    wrong: list[object] = []

    def work(case: Case, raw: bytes, expected: bool) -> None:
        for _ in range(25):
            try:
                judge.verify(raw, collateral=case.collateral, binding=REPORT_DATA, now=NOW)
                accepted = True
            except EvidenceRejected:
                accepted = False
            if accepted is not expected:
                wrong.append(case)

    threads = [
        threading.Thread(target=work, args=(case, case.report.raw, case is good))
        for case in (good, bad)
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_does_not_grow_with_the_number_of_verifications() -> None:
    case = Case()
    judge, raw, given = verifier(case, Cache()), case.report.raw, case.collateral

    def some(count: int) -> int:
        for _ in range(count):
            judge.verify(raw, collateral=given, binding=REPORT_DATA, now=NOW)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    before = some(100)
    after = some(400)
    tracemalloc.stop()
    assert after - before < 400 * 40, "a verification leaves nothing behind; a report alone has 1184 bytes"


def test_collateral_is_bounded() -> None:
    with pytest.raises(MalformedCollateral, match="items"):
        Collateral(certificates=(b"x",) * (MAX_ITEMS + 1))
    with pytest.raises(MalformedCollateral, match="bytes"):
        Collateral(crls=(bytes(4 * 1024 * 1024 + 1),))


def test_claims_are_frozen() -> None:
    case = Case()
    claims = verifier(case).verify(case.report.raw, collateral=case.collateral, binding=REPORT_DATA, now=NOW)
    assert isinstance(claims, Claims)
    with pytest.raises(AttributeError):
        claims.debug = True  # type: ignore[misc]


def test_the_public_names_are_these() -> None:
    assert sorted(exported) == exported
    assert len(exported) == 27
