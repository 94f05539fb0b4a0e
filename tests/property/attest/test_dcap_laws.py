"""Laws of DCAP: parsers are total, statuses only get worse, levels are monotonic, and quotes survive other quotes."""

from __future__ import annotations

import base64
import contextlib
import gc
import threading
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.forge.dcap import (
    REPORT_DATA,
    Case,
    Forged,
    document,
    module,
    pck,
    pck_ca,
    root,
    sgx,
    sgx_extension,
    tcb_info,
    tcb_level,
    tdx,
)
from tests.forge.pki import NOW

from enarx.attest import AuthenticityOnly, Cache, Claims, EvidenceRejected, Verifier
from enarx.attest.dcap import (
    TcbStatus,
    parse_pck,
    parse_pck_chain,
    parse_qe_identity,
    parse_quote,
    parse_tcb_info,
)
from enarx.attest.dcap._tcb import converge, sgx_level, tdx_level
from enarx.attest.sgx import VERIFIER as SGX
from enarx.attest.tdx import VERIFIER as TDX
from enarx.attest.x509 import parse_certificate
from enarx.tcb.errors import EnarxError

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = [Forged(version=version, tee=tee).raw for version, tee in ((3, "SGX"), (4, "TDX"), (5, "TDX"))]
DOCUMENT = document("tcbInfo", tcb_info("TDX"))
WORSE = list(TcbStatus)
PARTS = [TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE, TcbStatus.REVOKED]
SVNS = st.binary(min_size=16, max_size=16)


@given(st.binary(max_size=2000))
def test_parsers_are_total(data: bytes) -> None:
    for parse in (parse_quote, parse_pck_chain, parse_tcb_info, parse_qe_identity):
        with contextlib.suppress(EnarxError):
            parse(data)


@given(st.sampled_from(SEEDS), st.integers(0, 4000), st.binary(max_size=8), st.integers(0, 8))
def test_quotes_cut_and_spliced_are_refused_or_read(seed: bytes, at: int, put: bytes, drop: int) -> None:
    changed = seed[:at] + put + seed[at + drop :]
    with contextlib.suppress(EnarxError):
        quote = parse_quote(changed)
        assert changed.startswith(quote.signed)
        assert changed.endswith(quote.trailing)
        parse_pck_chain(quote.certification_data)


@given(st.integers(0, len(DOCUMENT)), st.binary(max_size=8), st.integers(0, 8))
def test_documents_cut_and_spliced_are_refused_or_read_as_they_were_sent(
    at: int, put: bytes, drop: int
) -> None:
    changed = DOCUMENT[:at] + put + DOCUMENT[at + drop :]
    with contextlib.suppress(EnarxError):
        assert parse_tcb_info(changed).body in changed


@given(st.sampled_from(WORSE), st.lists(st.sampled_from(PARTS), max_size=3))
def test_parts_only_make_a_status_worse_in_whatever_order(status: TcbStatus, parts: list[TcbStatus]) -> None:
    """OutOfDate and Revoked absorb: no part repairs another."""
    found = status
    for part in parts:
        found = converge(found, part)
    backwards = status
    for part in reversed(parts):
        backwards = converge(backwards, part)
    assert found is backwards
    assert converge(found, TcbStatus.REVOKED) is TcbStatus.REVOKED
    if TcbStatus.REVOKED in parts:
        assert found is TcbStatus.REVOKED
    if TcbStatus.OUT_OF_DATE in parts:
        assert found not in (
            TcbStatus.UP_TO_DATE,
            TcbStatus.SW_HARDENING_NEEDED,
            TcbStatus.CONFIGURATION_NEEDED,
        )


@FEW
@given(SVNS, SVNS, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), SVNS, SVNS)
def test_a_level_fits_exactly_when_no_component_is_below_it(
    have: bytes, need: bytes, have_pce: int, need_pce: int, td: bytes, need_td: bytes
) -> None:
    platform = parse_pck(
        parse_certificate(pck(extension=sgx_extension(components=have, pce_svn=have_pce)).der)
    )
    info = parse_tcb_info(
        document("tcbInfo", tcb_info("TDX", tcb_level(sgx=need, pce_svn=need_pce, tdx=need_td)))
    )
    fits = have_pce >= need_pce and all(a >= b for a, b in zip(have, need, strict=True))
    skip = 2 if td[1] else 0
    fits_td = fits and all(a >= b for a, b in zip(td[skip:], need_td[skip:], strict=True))
    assert (sgx_level(info, platform) is not None) is fits
    assert (tdx_level(info, platform, td) is not None) is fits_td


def verify(case: Case, cache: Cache | None = None, binding: bytes = REPORT_DATA) -> Claims:
    verifier = Verifier(tees=[SGX, TDX], anchors=case.anchors, policy=AuthenticityOnly(), cache=cache)
    return verifier.verify(case.quote.raw, collateral=case.collateral, binding=binding, now=NOW)


@FEW
@given(st.binary(min_size=64, max_size=64), st.booleans())
def test_every_report_data_is_bound(data: bytes, is_td: bool) -> None:
    case = tdx(body={"report_data": data}) if is_td else sgx(body={"report_data": data})
    assert verify(case, binding=data).report_data == data
    with pytest.raises(EvidenceRejected) as refused:
        verify(case, binding=data[:-1] + bytes([data[-1] ^ 1]))
    assert refused.value.check.name == "binding.report_data"


def test_a_warm_cache_changes_no_verdict() -> None:
    """What was remembered of good evidence accepts no bad one, and the reverse."""
    cache = Cache()
    stranger = tdx(chain=(pck(), pck_ca(), root())).but(crls=(root().crl(), pck_ca().crl(0x3000)))
    for _ in range(3):
        good = verify(tdx(), cache)
        assert good.tcb_status == "UpToDate"
        assert [check[:3] for check in good.checks] == [check[:3] for check in verify(tdx()).checks]
        for bad, name in (
            (stranger, "dcap.crl.revoked"),
            (tdx(unsigned_change={100: 1}), "dcap.signature"),
            (tdx().but(info=tcb_info("TDX", tdxModuleIdentities=[module("TDX_02")])), "tdx.module.known"),
        ):
            with pytest.raises(EvidenceRejected) as refused:
                verify(bad, cache)
            assert refused.value.check.name == name


def test_thousand_quotes_take_constant_memory() -> None:
    """With a cache: of one platform, and each of a platform of its own."""
    case = sgx()
    collateral, raw, cache = case.collateral, case.quote.raw, Cache(max_entries=64)
    place = raw.rindex(b"\n-----END") - 16
    verifier = Verifier(tees=[SGX], anchors=case.anchors, policy=AuthenticityOnly(), cache=cache)

    def spend(rounds: int) -> int:
        for turn in range(rounds):
            mark = base64.b64encode(
                turn.to_bytes(3, "big")
            )  # in the root's signature: read, remembered, refused
            other = raw[:place] + mark + raw[place + len(mark) :]
            verifier.verify(raw, collateral=collateral, binding=REPORT_DATA, now=NOW)
            with pytest.raises(EvidenceRejected) as refused:
                verifier.verify(other, collateral=collateral, binding=REPORT_DATA, now=NOW)
            assert refused.value.check.name == "dcap.pck.root_certificate"
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = spend(200)
        after = spend(800)
    finally:
        tracemalloc.stop()
    assert after - before < 64 * 1024
    assert len(cache) <= 64


def test_many_threads_share_a_verifier() -> None:
    cases = [sgx(), tdx(), tdx(5), sgx(signer=Forged().qe_signer, unsigned_change={60: 1})]
    given_to = [(case.quote.raw, case.collateral) for case in cases]
    verifier = Verifier(
        tees=[SGX, TDX], anchors=cases[0].anchors, policy=AuthenticityOnly(), cache=Cache(max_entries=8)
    )
    found: list[list[str | None]] = []

    def work() -> None:
        statuses: list[str | None] = []
        for _ in range(10):
            for raw, collateral in given_to:
                try:
                    statuses.append(
                        verifier.verify(raw, collateral=collateral, binding=REPORT_DATA, now=NOW).tcb_status
                    )
                except EvidenceRejected as refused:
                    statuses.append(refused.check.name)
        found.append(statuses)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["UpToDate", "UpToDate", "UpToDate", "dcap.signature"] * 10] * 6
