"""From evidence to collateral under which it verifies, and everything that services and caches do wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from tests.forge import dcap, snp
from tests.forge.pki import NOW
from tests.forge.services import REPORTS, Reply, Service, kds, pcs

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Claims,
    Kind,
    TrustAnchors,
    Verifier,
    registry,
)
from enarx.attest.dcap import parse_qe_identity
from enarx.attest.fetch import Client, CollateralUnavailable, Fetched, Origin, Services, fetch_collateral
from enarx.attest.fetch._fetch import plan
from enarx.tcb.errors import Malformed, Unavailable

LATER = NOW + timedelta(days=2)
"""Lists and documents are asked for again, and are still good."""


@pytest.fixture
def amd() -> Iterator[Service]:
    with Service(kds("Milan", "Genoa", "Turin")) as service:
        yield service


@pytest.fixture
def intel() -> Iterator[Service]:
    with Service({**pcs("SGX"), **pcs("TDX")}) as service:
        yield service


def fetch(service: Service, *evidence: bytes, now: datetime = NOW, **options: Any) -> Fetched:
    services = Services(kds=service.url, pcs=service.url, with_qve=options.pop("with_qve", False))
    client = options.pop("client", Client(sleep=lambda _: None))
    return fetch_collateral(evidence, now=now, services=services, client=client, **options)


def verify(evidence: bytes, fetched: Fetched, anchors: TrustAnchors) -> Claims:
    verifier = Verifier(tees=tuple(registry.BUILTIN.values()), anchors=anchors, policy=AuthenticityOnly())
    return verifier.verify(evidence, collateral=fetched.collateral, binding=AnyBinding(), now=NOW)


def origins(fetched: Fetched) -> set[Origin]:
    return {file.origin for file in fetched.files}


MILAN = REPORTS["Milan"].report.raw


@pytest.mark.parametrize("line", REPORTS)
def test_what_was_fetched_for_a_report_verifies_it(amd: Service, line: str) -> None:
    case = REPORTS[line]
    fetched = fetch(amd, case.report.raw)
    claims = verify(case.report.raw, fetched, case.anchors)
    assert claims.revocation.value == "checked"
    assert len(amd.asked) == len(fetched.files) == 3
    assert {path.split("/")[3] for path in amd.paths} == {line}


@pytest.mark.parametrize(
    "case",
    [dcap.sgx(), dcap.tdx(), dcap.tdx(version=5, body_type=3)],
    ids=["sgx v3", "tdx v4", "tdx v5"],
)
def test_what_was_fetched_for_a_quote_verifies_it(intel: Service, case: dcap.Case) -> None:
    fetched = fetch(intel, case.quote.raw)
    claims = verify(case.quote.raw, fetched, case.anchors)
    assert claims.revocation.value == "checked"
    assert claims.tcb_status == "UpToDate"
    assert len(intel.asked) == 4


def test_names_of_the_files_tell_what_they_are(amd: Service, intel: Service) -> None:
    assert [file.name for file in fetch(amd, REPORTS["Turin"].report.raw).files] == [
        f"vcek-turin-{snp.HWID[:8].hex()}-2-4-1-24-213.der",
        "vcek-turin-chain.pem",
        "vcek-turin.crl",
    ]
    assert [file.name for file in fetch(intel, dcap.tdx().quote.raw).files] == [
        "tcb-info-tdx-00a06d080000.json",
        "tcb-info-tdx-00a06d080000-chain.pem",
        "qe-identity-tdx.json",
        "qe-identity-tdx-chain.pem",
        "pck-platform.crl",
        "pck-platform-chain.pem",
        "root-ca.crl",
    ]


def test_documents_stay_as_they_were_sent(intel: Service) -> None:
    fetched = fetch(intel, dcap.sgx().quote.raw)
    sent = intel.routes["/sgx/certification/v4/tcb?fmspc=00a06d080000"]
    assert isinstance(sent, Reply)
    assert list(fetched.collateral.of(Kind.TCB_INFO)) == [sent.body]


def test_each_certificate_is_given_once(intel: Service) -> None:
    certificates = fetch(intel, dcap.sgx().quote.raw, dcap.tdx().quote.raw).collateral.certificates
    assert len(certificates) == len(set(certificates))


def test_identity_of_the_verification_enclave_is_fetched_when_wanted(intel: Service) -> None:
    fetched = fetch(intel, dcap.sgx().quote.raw, with_qve=True)
    assert {parse_qe_identity(one).id for one in fetched.collateral.of(Kind.QE_IDENTITY)} == {"QE", "QVE"}
    verify(dcap.sgx().quote.raw, fetched, dcap.sgx().anchors)


def test_processor_authority_has_a_list_of_its_own() -> None:
    ca = dcap.pck_ca(name=dcap.intel_name("Intel SGX PCK Processor CA"))
    quote = dcap.sgx(chain=(dcap.pck(ca), ca, dcap.root())).quote.raw
    urls = [item.url for item in plan(quote, Services()).choices[0]]
    assert urls == [
        "https://api.trustedservices.intel.com/sgx/certification/v4/tcb?fmspc=00a06d080000",
        "https://api.trustedservices.intel.com/sgx/certification/v4/qe/identity",
        "https://api.trustedservices.intel.com/sgx/certification/v4/pckcrl?ca=processor&encoding=der",
        "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
    ]


def test_address_of_a_caching_service_may_be_in_the_form_of_its_configuration() -> None:
    services = Services(pcs="https://localhost:8081/sgx/certification/v4/")
    urls = [item.url for item in plan(dcap.tdx().quote.raw, services).choices[0]]
    assert urls[0] == "https://localhost:8081/tdx/certification/v4/tcb?fmspc=00a06d080000"
    assert urls[3] == "https://localhost:8081/sgx/certification/v4/rootcacrl"


def test_amd_itself_is_asked_by_default() -> None:
    urls = [item.url for item in plan(MILAN, Services()).choices[0]]
    assert urls == [
        f"https://kdsintf.amd.com/vcek/v1/Milan/{snp.HWID.hex()}?blSPL=04&teeSPL=01&snpSPL=24&ucodeSPL=213",
        "https://kdsintf.amd.com/vcek/v1/Milan/cert_chain",
        "https://kdsintf.amd.com/vcek/v1/Milan/crl",
    ]


@pytest.mark.parametrize("line", ["Milan", "Genoa"])
def test_report_that_does_not_name_its_line_is_tried_as_both(amd: Service, line: str) -> None:
    amd.routes = {**kds(line)}
    case = REPORTS[line]
    report = snp.Report(version=2).raw
    verify(report, fetch(amd, report), case.anchors)


def test_report_that_no_line_knows_is_unknown(amd: Service) -> None:
    amd.routes = {}
    with pytest.raises(CollateralUnavailable) as caught:
        fetch(amd, snp.Report(version=2).raw)
    assert caught.value.status == 404


def extended(report: bytes, guid: str, der: bytes) -> bytes:
    """A report with one certificate attached."""
    from uuid import UUID

    entry = UUID(guid).bytes_le + (48).to_bytes(4, "little") + len(der).to_bytes(4, "little")
    return report + entry + bytes(24) + der


VLEK = snp.Report().but(key_info=0b100)
VLEK_GUID = "a8074bc2-a25a-483e-aae6-39c045a0b8a1"
VCEK_GUID = "63da758d-e664-4564-adc5-f4b93be8accd"


def test_certificate_of_a_provider_comes_with_the_report_and_the_rest_from_the_service(amd: Service) -> None:
    evidence = extended(VLEK.raw, VLEK_GUID, snp.vlek().der)
    verify(evidence, fetch(amd, evidence), REPORTS["Milan"].anchors)
    assert sorted(amd.paths) == ["/vlek/v1/Milan/cert_chain", "/vlek/v1/Milan/crl"]


def test_certificate_of_a_provider_that_is_missing_is_told(amd: Service) -> None:
    fetched = fetch(amd, VLEK.raw)
    assert len(fetched.files) == 2
    assert "the cloud provider hands it to its guests" in fetched.notes[0]


@pytest.mark.parametrize(
    "report",
    [snp.Report(), snp.Report().but(chip_id=bytes(64)), snp.Report(version=2)],
    ids=["", "hidden chip", "v2"],
)
def test_attached_certificate_is_not_asked_for_again(amd: Service, report: snp.Report) -> None:
    evidence = extended(report.raw, VCEK_GUID, snp.vcek().der)
    verify(evidence, fetch(amd, evidence), REPORTS["Milan"].anchors)
    assert sorted(amd.paths) == ["/vcek/v1/Milan/cert_chain", "/vcek/v1/Milan/crl"]


@pytest.mark.parametrize(
    "other",
    [
        snp.vcek(hwid=bytes(64)).der,
        snp.vcek(tcb={**snp.TCB, "snp": 23}).der,
        REPORTS["Turin"].leaf.der,  # type: ignore[union-attr]
        snp.ask().der,
        b"no certificate",
    ],
    ids=["other chip", "other firmware", "other line", "no endorsement", "garbage"],
)
def test_attached_certificate_that_does_not_fit_is_passed_over(amd: Service, other: bytes) -> None:
    fetched = fetch(amd, extended(MILAN, VCEK_GUID, other))
    assert len(fetched.files) == 3
    verify(MILAN, fetched, REPORTS["Milan"].anchors)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (snp.Report().but(chip_id=bytes(64)), "chip_id is zero"),
        (snp.Report().but(key_info=0b11100), "did not sign"),
        (snp.Report().but(cpuid=bytes([0x30, 1, 1])), "no product line"),
        (snp.Report(version=2).but(key_info=0b100), "does not say of which product line"),
    ],
)
def test_report_for_which_nothing_can_be_asked(amd: Service, report: snp.Report, message: str) -> None:
    with pytest.raises(Unavailable, match=message):
        fetch(amd, report.raw)
    assert amd.asked == []


def test_quote_that_only_names_its_platform_cannot_be_asked_for(intel: Service) -> None:
    quote = dcap.sgx(certification_type=1, certification=bytes(36)).quote.raw
    with pytest.raises(Unavailable, match="of type 1, which does not say"):
        fetch(intel, quote)


def test_quote_without_a_platform_certificate_is_malformed(intel: Service) -> None:
    quote = dcap.sgx(chain=(dcap.tcb_signing(), dcap.pck_ca(), dcap.root())).quote.raw
    with pytest.raises(Malformed, match="expected a PCK certificate"):
        fetch(intel, quote)


def test_what_is_no_evidence_is_malformed(intel: Service) -> None:
    with pytest.raises(Malformed):
        fetch(intel, b"no evidence")


# What services answer


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>please log in</html>",
        b"{}",
        snp.ark().crl(),
        b'{"tcbInfo":{}}',
        snp.vcek().der[:-1],
        b"\x30\x00",
    ],
    ids=["empty", "page", "json", "list", "document", "truncated", "nothing"],
)
def test_answer_of_another_kind_is_refused_with_its_type(amd: Service, body: bytes) -> None:
    path = next(path for path in amd.routes if path.startswith("/vcek/v1/Milan/4"))
    amd.routes[path] = Reply(body=body, headers={"Content-Type": "text/html"})
    with pytest.raises(
        CollateralUnavailable, match=r"the answer \(text/html, \d+ bytes\) is not what"
    ) as caught:
        fetch(amd, MILAN)
    assert path in caught.value.url
    assert "login page" in caught.value.hint


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("%-----BEGIN", "is not percent-encoded"),
        ("%2", "is not percent-encoded"),
        ("%zz", "is not percent-encoded"),
        ("nothing", "holds no certificates"),
        ("%2D%2D", "holds no certificates"),
        (None, "is missing"),
    ],
)
def test_bad_percent_encoding_of_issuers_is_refused(intel: Service, header: str | None, message: str) -> None:
    path = "/sgx/certification/v4/qe/identity"
    route = intel.routes[path]
    assert isinstance(route, Reply)
    headers = {} if header is None else {"SGX-Enclave-Identity-Issuer-Chain": header}
    intel.routes[path] = replace(route, headers=headers)
    with pytest.raises(CollateralUnavailable, match=message):
        fetch(intel, dcap.sgx().quote.raw)


def test_one_failure_ends_the_whole(intel: Service) -> None:
    intel.routes["/sgx/certification/v4/rootcacrl"] = Reply(status=500)
    with pytest.raises(CollateralUnavailable) as caught:
        fetch(intel, dcap.sgx().quote.raw)
    assert caught.value.url.endswith("/rootcacrl")


def test_service_that_gives_what_has_ended_is_told_of(intel: Service) -> None:
    fetched = fetch(intel, dcap.sgx().quote.raw, now=NOW + timedelta(days=400))
    assert any(
        note.startswith("tcb-info-sgx-00a06d080000.json: the service gave what ended")
        for note in fetched.notes
    )


# The cache


def test_second_time_asks_nobody(amd: Service, intel: Service, tmp_path: Path) -> None:
    first = fetch(amd, MILAN, cache=tmp_path)
    quotes = fetch(intel, dcap.sgx().quote.raw, cache=tmp_path)
    amd.asked.clear()
    intel.asked.clear()
    again = fetch(amd, MILAN, cache=tmp_path)
    assert origins(again) == {Origin.CACHE}
    assert [file.data for file in again.files] == [file.data for file in first.files]
    assert fetch(intel, dcap.sgx().quote.raw, cache=tmp_path).collateral == quotes.collateral
    assert amd.asked == intel.asked == []


def with_etags(service: Service) -> None:
    """Let every answer have an ETag, and 304 come for those who have it."""
    for path, reply in service.routes.items():
        assert isinstance(reply, Reply)
        service.routes[path] = Tagged(replace(reply, headers={**reply.headers, "ETag": '"7"'}))


class Tagged:
    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        known = handler.headers.get("If-None-Match") == '"7"'
        (Reply(status=304) if known else self.reply)(handler)


def test_lists_and_documents_are_confirmed_after_a_day_and_certificates_are_not(
    amd: Service, tmp_path: Path
) -> None:
    with_etags(amd)
    fetch(amd, MILAN, cache=tmp_path)
    amd.asked.clear()
    again = fetch(amd, MILAN, cache=tmp_path, now=LATER)
    assert amd.paths == ["/vcek/v1/Milan/crl"]
    assert {file.name: file.origin for file in again.files}["vcek-milan.crl"] is Origin.CONFIRMED
    amd.asked.clear()
    assert origins(fetch(amd, MILAN, cache=tmp_path, now=LATER)) == {Origin.CACHE}
    assert amd.asked == []


def test_newer_list_takes_the_place_of_the_cached_one(amd: Service, tmp_path: Path) -> None:
    fetch(amd, MILAN, cache=tmp_path)
    newer = snp.ark().crl(0x10001)
    amd.routes["/vcek/v1/Milan/crl"] = Reply(body=newer)
    assert newer in fetch(amd, MILAN, cache=tmp_path, now=LATER).collateral.crls


def test_expired_entry_is_fetched_anew(amd: Service, tmp_path: Path) -> None:
    ended = NOW + timedelta(days=20)
    fetch(amd, MILAN, cache=tmp_path)
    fresh = snp.ark().crl(this_update=ended, next_update=ended + timedelta(days=9))
    amd.routes["/vcek/v1/Milan/crl"] = Reply(body=fresh)
    assert fetch(amd, MILAN, cache=tmp_path, now=ended).collateral.crls == (fresh,)


def test_without_the_service_a_cached_list_counts_until_its_end(amd: Service, tmp_path: Path) -> None:
    """A73: what is cached serves while the service is down, and no longer than it says itself."""
    fetch(amd, MILAN, cache=tmp_path)
    amd.routes = {"/vcek/v1/Milan/crl": Reply(status=503)}
    assert Origin.CACHE_ALONE in origins(fetch(amd, MILAN, cache=tmp_path, now=LATER))
    with pytest.raises(CollateralUnavailable):
        fetch(amd, MILAN, cache=tmp_path, now=NOW + timedelta(days=20))


def test_entry_from_the_future_is_not_used(amd: Service, tmp_path: Path) -> None:
    fetch(amd, MILAN, cache=tmp_path, now=LATER)
    amd.asked.clear()
    fetch(amd, MILAN, cache=tmp_path, now=NOW)
    assert len(amd.asked) == 3


@pytest.mark.parametrize(
    "spoil", [bytes.upper, lambda data: data[:-1], lambda data: b"", lambda data: data + b"x"]
)
def test_corrupt_cache_is_fetched_anew(amd: Service, tmp_path: Path, spoil: Any) -> None:
    with_etags(amd)
    before = fetch(amd, MILAN, cache=tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(spoil(path.read_bytes()))
    amd.asked.clear()
    again = fetch(amd, MILAN, cache=tmp_path)
    assert origins(again) == {Origin.SERVICE}
    assert again.collateral == before.collateral
    assert all("if-none-match" not in headers for _, headers in amd.asked)
    assert origins(fetch(amd, MILAN, cache=tmp_path)) == {Origin.CACHE}


def test_entry_under_the_name_of_another_address_is_not_used(amd: Service, tmp_path: Path) -> None:
    fetch(amd, MILAN, cache=tmp_path)
    paths = sorted(tmp_path.iterdir())
    contents = [path.read_bytes() for path in paths]
    for path, data in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(data)
    assert origins(fetch(amd, MILAN, cache=tmp_path)) == {Origin.SERVICE}


def test_spoilt_answer_is_not_cached(amd: Service, tmp_path: Path) -> None:
    amd.routes["/vcek/v1/Milan/crl"] = Reply(body=b"<html>")
    with pytest.raises(CollateralUnavailable):
        fetch(amd, MILAN, cache=tmp_path)
    amd.routes = kds("Milan")
    verify(MILAN, fetch(amd, MILAN, cache=tmp_path), REPORTS["Milan"].anchors)


def test_cache_that_cannot_be_written_is_no_error(amd: Service, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    verify(MILAN, fetch(amd, MILAN, cache=tmp_path / "file" / "cache"), REPORTS["Milan"].anchors)


# Many at once


def test_twenty_fetches_at_once_share_a_cache(tmp_path: Path) -> None:
    with Service({**kds("Milan", "Genoa", "Turin"), **pcs("SGX"), **pcs("TDX")}) as service:
        evidence = [
            *(case.report.raw for case in REPORTS.values()),
            dcap.sgx().quote.raw,
            dcap.tdx().quote.raw,
        ]
        with ThreadPoolExecutor(20) as pool:
            found = list(pool.map(lambda _: fetch(service, *evidence, cache=tmp_path), range(20)))
        assert all(one.collateral == found[0].collateral for one in found)
        service.asked.clear()
        assert origins(fetch(service, *evidence, cache=tmp_path)) == {Origin.CACHE}
        assert service.asked == []
    assert not list(tmp_path.glob(".*"))


def test_many_pieces_of_one_platform_ask_for_each_address_once(amd: Service) -> None:
    fetch(amd, *(snp.Report().but(guest_svn=number).raw for number in range(50)))
    assert len(amd.paths) == len(set(amd.paths)) == 3


def test_answers_are_waited_for_at_the_same_time(intel: Service) -> None:
    together = threading.Barrier(4, timeout=30)
    for path, route in list(intel.routes.items()):

        def meet(handler: BaseHTTPRequestHandler, route: Any = route) -> None:
            together.wait()
            route(handler)

        intel.routes[path] = meet
    assert len(fetch(intel, dcap.sgx().quote.raw).files) == 7


def test_failure_does_not_wait_for_answers_that_are_of_no_use_any_more(amd: Service) -> None:
    def silent(handler: BaseHTTPRequestHandler) -> None:
        amd.ended.wait(30)

    amd.routes["/vcek/v1/Milan/cert_chain"] = silent
    amd.routes["/vcek/v1/Milan/crl"] = Reply(status=404)
    with pytest.raises(CollateralUnavailable, match="404"):
        fetch(amd, MILAN, client=Client(exchange_s=30))
    workers = [thread for thread in threading.enumerate() if thread.name == "enarx-fetch"]
    assert workers, "one still waits, and nobody for it"
    assert all(thread.daemon for thread in workers)


def test_progress_is_told_when_it_takes_long(amd: Service) -> None:
    told = threading.Event()
    route = amd.routes["/vcek/v1/Milan/crl"]

    def late(handler: BaseHTTPRequestHandler) -> None:
        assert told.wait(30)
        route(handler)

    amd.routes["/vcek/v1/Milan/crl"] = late
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        if "2 of 3" in line:
            told.set()

    fetch(amd, MILAN, progress=tell, client=Client(exchange_s=60))
    assert lines[-1] == "fetching: 2 of 3 answers are there"
