"""Emulated machines whose vendors answer over HTTP: what is fetched from them verifies their evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl, urlsplit

import pytest
from tests.forge import amd, intel, pki
from tests.forge.services import Reply, Service

from enarx.attest.fetch import CollateralUnavailable, Fetched, Services, fetch_collateral
from enarx_emulator.amd.chip import PRODUCTS
from enarx_emulator.amd.vendor import kds_answer
from enarx_emulator.answer import Answer
from enarx_emulator.intel.pcs import pcs_answer


@contextmanager
def serving(answer: Callable[[str, Mapping[str, str]], Answer]) -> Iterator[Service]:
    """A server that carries a vendor's answers."""

    def route(handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        made = answer(parts.path, dict(parse_qsl(parts.query)))
        Reply(status=made.status, headers=made.headers, body=made.body)(handler)

    with Service({}, otherwise=route) as service:
        yield service


@pytest.mark.parametrize("product", PRODUCTS)
def test_report_is_verified_with_what_amd_answers(product: str) -> None:
    machine = amd.snp(product)
    report, _ = amd.report(machine, amd.launched(machine))
    with serving(lambda path, query: kds_answer(amd.vendor(), path, query)) as service:
        fetched = fetch_collateral([report], now=pki.NOW, services=Services(kds=service.url))
    claims = amd.judge(report, fetched.collateral, amd.anchors(machine))
    assert claims.revocation.value == "checked"


def test_provider_of_a_vlek_hands_over_its_certificate() -> None:
    machine = amd.snp()
    machine.command("vlek_load", {})
    report, table = amd.report(machine, amd.launched(machine))
    with serving(lambda path, query: kds_answer(amd.vendor(), path, query)) as service:
        fetched = fetch_collateral([report + table], now=pki.NOW, services=Services(kds=service.url))
    assert amd.judge(report + table, fetched.collateral, amd.anchors(machine)).revocation.value == "checked"


@pytest.mark.parametrize("fault", ["snp-missing-vcek", "snp-missing-crl"])
def test_what_amd_does_not_have_is_named(fault: str) -> None:
    machine = amd.snp()
    report, _ = amd.report(machine, amd.launched(machine))
    with (
        serving(lambda path, query: kds_answer(amd.vendor(fault), path, query)) as service,
        pytest.raises(CollateralUnavailable) as caught,
    ):
        fetch_collateral([report], now=pki.NOW, services=Services(kds=service.url))
    assert caught.value.status == 404


@pytest.mark.parametrize("kind", ["sgx", "tdx"])
def test_quote_is_verified_with_what_intel_answers(kind: str) -> None:
    store = intel.vendor_store()
    machine = intel.machine(kind, store=store)
    guest, _ = intel.launch(machine)
    quote = intel.quote(machine, guest)
    vendor = intel.vendor(store)

    def answer(path: str, query: Mapping[str, str]) -> Answer:
        return pcs_answer(vendor, path, query, now=intel.NOW)

    with serving(answer) as service:
        fetched: Fetched = fetch_collateral([quote], now=intel.NOW, services=Services(pcs=service.url))
    claims = intel.verify(quote, fetched.collateral)
    assert claims.revocation.value == "checked"
