"""What would be asked for evidence of real machines, held against the collateral that was recorded with it."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from tests.evidence import FOLDER, Evidence, Sample, samples
from tests.forge.pki import NOW
from tests.forge.services import Reply, Service

from enarx.attest import AnyBinding, AuthenticityOnly, Collateral, TrustAnchors, Verifier, registry
from enarx.attest.fetch import Services, fetch_collateral
from enarx.attest.fetch._fetch import plan
from enarx.attest.material import recognise_collateral
from enarx.attest.snp import SigningKey
from enarx.attest.snp._certs import read_endorsement
from enarx.attest.x509 import parse_certificate
from enarx.tcb.errors import EnarxError

pytestmark = pytest.mark.evidence
REPORTS = [one for one in samples("snp", "snp-report") if one.has("report") and one.has("endorsement_cert")]
QUOTES = [
    one for one in [*samples("sgx"), *samples("tdx")] if one.entry.get("appraisals") and one.has("quote")
]
_SPL = {"fmcSPL": "fmc", "blSPL": "bootloader", "teeSPL": "tee", "snpSPL": "snp", "ucodeSPL": "microcode"}


def test_there_are_samples() -> None:
    assert len(REPORTS) >= 8
    assert len(QUOTES) >= 15


@pytest.mark.parametrize("sample", REPORTS, ids=lambda one: one.id)
def test_address_names_what_the_recorded_certificate_says(sample: Sample) -> None:
    (der,) = recognise_collateral(sample.read("endorsement_cert")).certificates
    endorsement = read_endorsement(parse_certificate(der))
    assert endorsement is not None
    urls = [urlsplit(choice[0].url) for choice in plan(sample.read("report"), Services()).choices]
    if endorsement.kind is SigningKey.VLEK:
        assert [url.path for url in urls] == [f"/vlek/v1/{endorsement.line.value}/cert_chain"]
        return
    assert endorsement.hwid is not None
    path = f"/vcek/v1/{endorsement.line.value}/{endorsement.hwid.hex()}"
    (url,) = [one for one in urls if one.path == path]
    levels = {_SPL[name]: int(level) for name, level in parse_qsl(url.query)}
    assert levels == endorsement.tcb.components()


@pytest.mark.parametrize(
    ("sample", "path"),
    [
        ("azure/snp-trustee-genoa", "/vcek/v1/Genoa/cert_chain"),
        ("azure/snp-trustee-v2", "/vcek/v1/Milan/cert_chain"),
        ("azure/tdx-trustee-v0", "/tdx/certification/v4/tcb"),
    ],
)
def test_evidence_that_wraps_a_report_needs_what_the_report_does(sample: str, path: str) -> None:
    (choice,) = plan(Evidence().sample(sample).read("evidence"), Services()).choices
    assert urlsplit(choice[0].url).path == path


@pytest.mark.parametrize("sample", [*samples("nitro"), *samples("cca")], ids=lambda one: one.id)
def test_evidence_without_a_service_needs_nothing(sample: Sample) -> None:
    role = "document" if sample.has("document") else "token"
    fetched = fetch_collateral([sample.read(role)], now=NOW)
    assert fetched.files == ()
    assert "there is no service to ask" in fetched.notes[0]


def outcome(evidence: bytes, collateral: Collateral, now: datetime) -> str:
    """The status, or why it is refused."""
    verifier = Verifier(
        tees=tuple(registry.BUILTIN.values()), anchors=TrustAnchors.vendor(), policy=AuthenticityOnly()
    )
    try:
        claims = verifier.verify(evidence, collateral=collateral, binding=AnyBinding(), now=now)
    except EnarxError as error:
        return str(error)
    return f"{claims.tcb_status} {claims.revocation}"


@pytest.mark.parametrize("sample", QUOTES, ids=lambda one: one.id)
def test_recorded_answers_give_the_recorded_verdict(sample: Sample) -> None:
    """The service answers with what Intel's did, in the form in which it does."""
    appraisal = sample.entry["appraisals"][-1]
    given = {name: (FOLDER / path).read_bytes() for name, path in appraisal["collateral"].items()}
    signers = {
        name: quote(given["tcb_info_and_qe_identity_issuer_chain"])
        for name in ("TCB-Info-Issuer-Chain", "SGX-Enclave-Identity-Issuer-Chain")
    }
    issuers = {"SGX-PCK-CRL-Issuer-Chain": quote(given["pck_crl_issuer_chain"])}
    tee, authority = sample.id.partition("/")[0], _authority(given["pck_crl_issuer_chain"])
    fmspc = (
        sample.expected.get("fields", {}).get("fmspc") or appraisal["collateral"]["tcb_info"].split("_")[2]
    )
    routes = {
        f"/{tee}/certification/v4/tcb?fmspc={fmspc.lower()}": Reply(body=given["tcb_info"], headers=signers),
        f"/{tee}/certification/v4/qe/identity": Reply(body=given["qe_identity"], headers=signers),
        f"/sgx/certification/v4/pckcrl?ca={authority}&encoding=der": Reply(
            body=given["pck_crl"], headers=issuers
        ),
        "/sgx/certification/v4/rootcacrl": Reply(body=given["root_ca_crl"].hex().encode()),
    }
    now, evidence = datetime.fromisoformat(appraisal["verification_time"]), sample.read("quote")
    recorded = Collateral.none()
    for data in given.values():
        recorded |= recognise_collateral(data)
    with Service(routes) as service:
        fetched = fetch_collateral([evidence], now=now, services=Services(pcs=service.url))
    assert set(fetched.collateral.documents) == set(recorded.documents)
    assert set(fetched.collateral.crls) == set(recorded.crls)
    assert set(fetched.collateral.certificates) == set(recorded.certificates)
    assert outcome(evidence, fetched.collateral, now) == outcome(evidence, recorded, now)


def _authority(chain: bytes) -> str:
    return "platform" if b"Platform" in recognise_collateral(chain).certificates[0] else "processor"
