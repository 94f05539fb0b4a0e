"""Quotes of real platforms give what the manifest says, with each collateral it names; every byte of them matters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dcap_qvl  # type: ignore[import-untyped]
import pytest
from tests.evidence import FOLDER, Evidence, Sample, samples

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Cache,
    Claims,
    Collateral,
    CollateralMissing,
    Document,
    EvidenceRejected,
    Kind,
    MalformedCollateral,
    MalformedEvidence,
    Outcome,
    Policy,
    PolicyDenied,
    Revocation,
    TrustAnchors,
    Verifier,
)
from enarx.attest.dcap import Quote, parse_pck_chain, parse_qe_identity, parse_tcb_info
from enarx.attest.dcap._verify import Platform
from enarx.attest.sgx import VERIFIER as SGX
from enarx.attest.sgx import SgxDetail, SgxQuote
from enarx.attest.tdx import VERIFIER as TDX
from enarx.attest.tdx import TdxDetail, TdxQuote
from enarx.attest.x509 import parse_certificate
from enarx.tcb.errors import EnarxError, Malformed

pytestmark = pytest.mark.evidence

KINDS = ("dcap-quote-v3", "dcap-quote-v4", "dcap-quote-v5")
QUOTES = [*samples("sgx", *KINDS), *samples("tdx", *KINDS)]
TEES = [SGX, TDX]

STRICT = """
version = 1
[sgx]
measurement = "any"
[tdx]
measurement = "any"
service_td = "any"
td_attributes = { sept_ve_disable = "any" }
"""
"""What the manifest calls the strict policy: up to date and not debuggable, the rest left to the caller."""


@dataclass(frozen=True)
class Appraisal:
    """One quote with one set of collateral at one time."""

    sample: Sample
    entry: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.sample.id} at {self.entry['verification_time']} by {self.entry['tcb_evaluation_data_number']}"

    @property
    def time(self) -> datetime:
        return datetime.fromisoformat(self.entry["verification_time"])

    def read(self, role: str) -> bytes:
        path: str = self.entry["collateral"][role]
        return (FOLDER / path).read_bytes()

    @property
    def collateral(self) -> Collateral:
        chains = self.read("tcb_info_and_qe_identity_issuer_chain") + self.read("pck_crl_issuer_chain")
        return Collateral.from_pem(chains) | Collateral(
            crls=(self.read("pck_crl"), self.read("root_ca_crl")),
            documents=(
                Document(Kind.TCB_INFO, self.read("tcb_info")),
                Document(Kind.QE_IDENTITY, self.read("qe_identity")),
            ),
        )


def appraisals(*names: str) -> list[Appraisal]:
    chosen = [sample for sample in QUOTES if not names or sample.id in names]
    return [Appraisal(sample, entry) for sample in chosen for entry in sample.entry["appraisals"]]


def verifier(policy: str | None = None, cache: Cache | None = None) -> Verifier:
    rules = AuthenticityOnly() if policy is None else Policy.parse(policy, TEES)
    return Verifier(tees=TEES, anchors=TrustAnchors.vendor(), policy=rules, cache=cache)


def judge(appraisal: Appraisal, policy: str | None = None) -> Claims:
    raw = appraisal.sample.read("quote")
    return verifier(policy).verify(
        raw, collateral=appraisal.collateral, binding=AnyBinding(), now=appraisal.time
    )


def platform(claims: Claims) -> Platform:
    assert isinstance(claims.detail, SgxDetail | TdxDetail)
    return claims.detail.platform


def quote_of(sample: Sample) -> tuple[Quote, SgxQuote | TdxQuote]:
    raw = sample.read("quote")
    parsed: SgxQuote | TdxQuote = (SGX if SGX.recognise(raw) else TDX).parse(raw)
    return parsed.quote, parsed


def manifest_fields(evidence: SgxQuote | TdxQuote) -> dict[str, Any]:
    if isinstance(evidence, SgxQuote):
        enclave = evidence.report
        return {
            "cpusvn": enclave.cpu_svn.hex(),
            "misc": enclave.misc_select.hex(),
            "attr": enclave.attributes_bytes.hex(),
            "mrenclave": enclave.mrenclave.hex(),
            "mrsigner": enclave.mrsigner.hex(),
            "prodid": enclave.isv_prod_id,
            "isvsvn": enclave.isv_svn,
            "report_data": enclave.report_data.hex(),
        }
    report = evidence.report
    names = {
        "mrsigner_seam": "mrsignerseam",
        "seam_attributes": "seamattributes",
        "mr_config_id": "mrconfigid",
        "mr_owner": "mrowner",
        "mr_owner_config": "mrownerconfig",
        "mr_service_td": "mrservicetd",
    }
    found = {
        names.get(name, name): value.hex()
        for name, value in report.fields().items()
        if isinstance(value, bytes)
    }
    found["tdattributes"] = report.td_attributes.value.to_bytes(8, "little").hex()
    found["xfam"] = report.xfam.to_bytes(8, "little").hex()
    return found


@pytest.mark.parametrize("sample", QUOTES, ids=lambda sample: sample.id)
def test_every_field_is_that_of_the_manifest(sample: Sample) -> None:
    quote, evidence = quote_of(sample)
    expected = sample.expected
    found = manifest_fields(evidence)
    assert {name: found[name] for name in expected["fields"]} == expected["fields"]
    header = {
        "version": quote.version,
        "akt": 2,
        "tee": quote.tee_type,
        "body_type": quote.body_type,
        "qesvn": quote.qe_svn,
        "pcesvn": quote.pce_svn,
    }
    assert header == expected["header"]
    qe = quote.qe_report
    assert {
        "cpusvn": qe.cpu_svn.hex(),
        "misc": qe.misc_select.hex(),
        "attr": qe.attributes_bytes.hex(),
        "mrenclave": qe.mrenclave.hex(),
        "mrsigner": qe.mrsigner.hex(),
        "prodid": qe.isv_prod_id,
        "isvsvn": qe.isv_svn,
    } == expected["qe"]
    trailing = [one for one in expected["policy_findings"] if one.startswith("TRAILING_BYTES_")]
    assert trailing == ([f"TRAILING_BYTES_{len(quote.trailing)}"] if quote.trailing else [])


@pytest.mark.parametrize("appraisal", appraisals(), ids=str)
def test_status_is_that_of_the_manifest(appraisal: Appraisal) -> None:
    expected = appraisal.entry["expected_tcb_status"]
    if expected == "NotSupported":
        with pytest.raises(EvidenceRejected) as refused:
            judge(appraisal)
        assert refused.value.check.name == "dcap.tcb.level"
        return
    claims = judge(appraisal)
    assert claims.tcb_status == expected
    assert claims.revocation is Revocation.CHECKED
    assert claims.root.name == "Intel SGX Root CA"
    assert claims.root.is_vendor
    of_platform = platform(claims)
    assert of_platform.tcb_info.evaluation_number == appraisal.entry["tcb_evaluation_data_number"]
    assert of_platform.tcb_info.version == appraisal.entry["tcb_info_version"]
    assert isinstance(claims.detail, SgxDetail | TdxDetail)
    tcb, parts = claims.detail.tcb, appraisal.entry["status_parts"]
    assert tcb.qe.status.value == parts["qe"]
    assert tcb.level.status.value == parts.get("tdx", parts["sgx"])
    assert (tcb.module.status.value if tcb.module else "UpToDate") == parts.get("module", "UpToDate")
    assert tcb.advisories >= set(appraisal.entry["advisory_ids_of_matched_level"])


@pytest.mark.parametrize(
    "sample", [sample for sample in QUOTES if sample.entry["appraisals"]], ids=lambda sample: sample.id
)
def test_verdict_of_the_strict_policy_is_that_of_the_manifest(sample: Sample) -> None:
    appraisal = Appraisal(sample, sample.entry["appraisals"][-1])
    expected, findings = sample.expected, sample.expected["policy_findings"]
    assert appraisal.time == sample.time
    if expected["verdict_strict_policy"] == "accept":
        assert judge(appraisal, STRICT).policy_digest is not None
        return
    with pytest.raises(EvidenceRejected) as refused:
        judge(appraisal, STRICT)
    tee = "sgx" if sample.id.startswith("sgx") else "tdx"
    if appraisal.entry["expected_tcb_status"] == "NotSupported":
        assert refused.value.check.name == "dcap.tcb.level"
        return
    wanted = {f"policy.{tee}.debug"} if {"DEBUG", "TD_DEBUG"} & set(findings) else set()
    if appraisal.entry["expected_tcb_status"] != "UpToDate":
        wanted.add(f"policy.{tee}.tcb_status")
    assert isinstance(refused.value, PolicyDenied)
    assert {check.name for check in refused.value.failures} == wanted


FINDINGS = {
    "TD_DEBUG": "policy.tdx.debug",
    "DEBUG": "policy.sgx.debug",
    "SEPT_VE_DISABLE=0": "policy.tdx.td_attributes.sept_ve_disable",
    "MR_SERVICE_TD_NONZERO": "policy.tdx.service_td",
}


@pytest.mark.parametrize("appraisal", appraisals(), ids=str)
def test_defaults_of_policy_find_what_the_manifest_finds(appraisal: Appraisal) -> None:
    if appraisal.entry["expected_tcb_status"] == "NotSupported":
        return  # refused before policy; the test above says by what
    policy = 'version = 1\n[sgx]\nmeasurement = "any"\n[tdx]\nmeasurement = "any"'
    wanted = {FINDINGS[one] for one in appraisal.sample.expected["policy_findings"] if one in FINDINGS}
    if appraisal.entry["expected_tcb_status"] != "UpToDate":
        wanted.add(f"policy.{appraisal.sample.id[:3]}.tcb_status")
    try:
        failures = judge(appraisal, policy).checks[:0]
    except PolicyDenied as refused:
        failures = refused.failures
    assert {check.name for check in failures} == wanted


@pytest.mark.parametrize(
    "sample", [sample for sample in QUOTES if sample.entry["appraisals"]], ids=lambda sample: sample.id
)
def test_pck_certificate_is_that_of_the_manifest(sample: Sample) -> None:
    expected = sample.expected["pck"]
    if sample.entry["appraisals"][-1]["expected_tcb_status"] == "NotSupported":
        pck = parse_pck_chain(quote_of(sample)[0].certification_data).pck
    else:
        pck = platform(judge(Appraisal(sample, sample.entry["appraisals"][-1]))).pck
    assert pck is not None
    certificate = pck.certificate
    bits = {".7.1": pck.dynamic_platform, ".7.2": pck.cached_keys, ".7.3": pck.smt}
    assert {
        "fmspc": pck.fmspc.hex(),
        "pceid": pck.pce_id.hex(),
        "pck_cpusvn": pck.cpu_svn.hex(),
        "pck_pcesvn": f"{pck.pce_svn:02x}",
        "sgx_type": f"{('standard', 'scalable', 'scalable-with-integrity').index(pck.sgx_type.value):02x}",
        "plat_inst": pck.platform_instance_id.hex() if pck.platform_instance_id else None,
        "cfg": {name: "ff" if bit else "00" for name, bit in bits.items() if bit is not None},
        "pck_valid": [certificate.not_before.isoformat(), certificate.not_after.isoformat()],
        "pck_issuer": certificate.issuer_common_name,
    } == expected


def test_a_quote_without_collateral_is_authentic_up_to_what_is_missing(evidence: Evidence) -> None:
    sample = evidence.sample("sgx/v3-fortanix-pcs")
    with pytest.raises(CollateralMissing) as refused:
        verifier().verify(
            sample.read("quote"), collateral=Collateral.none(), binding=AnyBinding(), now=sample.time
        )
    assert refused.value.check.name == "dcap.tcb_info"
    passed = {check.name for check in refused.value.checks if check.outcome is Outcome.PASSED}
    assert {"dcap.signature", "dcap.qe.signature", "dcap.qe.report_data", "dcap.pck.root"} <= passed


# Beside another implementation


def peer_collateral(appraisal: Appraisal) -> dcap_qvl.QuoteCollateralV3:
    def split(role: str) -> tuple[str, bytes]:
        text = appraisal.read(role).decode()
        return text[text.index(":") + 1 : text.rindex(',"signature"')], bytes.fromhex(
            json.loads(text)["signature"]
        )

    info, info_signature = split("tcb_info")
    identity, identity_signature = split("qe_identity")
    signing = appraisal.read("tcb_info_and_qe_identity_issuer_chain").decode()
    return dcap_qvl.QuoteCollateralV3(
        pck_crl_issuer_chain=appraisal.read("pck_crl_issuer_chain").decode(),
        root_ca_crl=appraisal.read("root_ca_crl"),
        pck_crl=appraisal.read("pck_crl"),
        tcb_info_issuer_chain=signing,
        tcb_info=info,
        tcb_info_signature=info_signature,
        qe_identity_issuer_chain=signing,
        qe_identity=identity,
        qe_identity_signature=identity_signature,
    )


PEER_STOPS_EARLIER = {
    "Debug mode is enabled": "DEBUG",
    "SEPT_VE_DISABLE is not enabled": "SEPT_VE_DISABLE=0",
    "Invalid MR service TD": "MR_SERVICE_TD_NONZERO",
}


@pytest.mark.parametrize("appraisal", appraisals(), ids=str)
def test_dcap_qvl_gives_the_same_status_and_advisories(appraisal: Appraisal) -> None:
    """Where it gives none, it is for a property that our policy judges, or for TCB info version 2, which it lacks."""
    raw, seconds = appraisal.sample.read("quote"), int(appraisal.time.timestamp())
    try:
        report = dcap_qvl.verify(raw, peer_collateral(appraisal), seconds)
    except ValueError as error:
        why = str(error)
        if "No matching TCB level found" in why:
            with pytest.raises(EvidenceRejected) as refused:
                judge(appraisal)
            assert refused.value.check.name == "dcap.tcb.level"
        elif "missing field `sgxtcbcomponents`" in why:
            assert appraisal.entry["tcb_info_version"] == 2
        else:
            finding = next(found for phrase, found in PEER_STOPS_EARLIER.items() if phrase in why)
            assert any(finding in one for one in appraisal.sample.expected["policy_findings"])
        return
    claims = judge(appraisal)
    assert claims.tcb_status == report.status
    assert isinstance(claims.detail, SgxDetail | TdxDetail)
    assert claims.detail.tcb.advisories == set(report.advisory_ids)


# Negatives


INTEL_SAMPLE = "intel-collateral/negative/intel-sample-untrusted-root"


def test_everything_fits_under_a_root_with_intels_name_but_not_its_key(evidence: Evidence) -> None:
    """A12: Intel's own sample data is refused; with its root passed in it is accepted, and the verdict says so."""
    sample = evidence.sample("sgx/neg-intel-sample-untrusted-root")
    pems = (
        evidence.read(f"{INTEL_SAMPLE}/{name}.pem") for name in ("pckCert", "pckSignChain", "tcbSignChain")
    )
    given = Collateral.from_pem(b"".join(pems)) | Collateral(
        crls=tuple(
            evidence.read(f"{INTEL_SAMPLE}/{name}.der") for name in ("rootCaCrl", "intermediateCaCrl")
        ),
        documents=(
            Document(Kind.TCB_INFO, evidence.read(f"{INTEL_SAMPLE}/tcbInfo.json")),
            Document(Kind.QE_IDENTITY, evidence.read(f"{INTEL_SAMPLE}/qeIdentity.json")),
        ),
    )
    raw = sample.read("quote")
    with pytest.raises(EvidenceRejected) as refused:
        verifier().verify(raw, collateral=given, binding=AnyBinding(), now=sample.time)
    assert refused.value.check.name == "dcap.pck.root"
    anchors = TrustAnchors.none().adding(sample.read("test_root"), name="Intel's test root")
    trusting = Verifier(tees=TEES, anchors=anchors, policy=AuthenticityOnly())
    claims = trusting.verify(raw, collateral=given, binding=AnyBinding(), now=sample.time)
    assert claims.root.name == "Intel's test root"
    assert not claims.root.is_vendor


def test_a_chain_that_is_not_in_pem_is_refused(evidence: Evidence) -> None:
    """The other sample of Intel's has certificates in DER where the specification says PEM."""
    sample = evidence.sample("sgx/neg-intel-sample-untrusted-root")
    with pytest.raises(MalformedCollateral, match="PCK chain"):
        verifier().verify(
            sample.read("tdx_quote"), collateral=Collateral.none(), binding=AnyBinding(), now=sample.time
        )


def test_evidence_that_open_enclave_refuses_is_refused(evidence: Evidence) -> None:
    """Two certificates with evidence in them, and a quote in an envelope; then the quote without it."""
    sample = evidence.sample("sgx/neg-openenclave")
    judging, nothing = verifier(), Collateral.none()
    for role in ("sgx_cert_ec_bad.der", "sgx_cert_rsa_bad.der", "sgx_report_bad.bin"):
        with pytest.raises(MalformedEvidence, match="looks like no evidence"):
            judging.verify(sample.read(role), collateral=nothing, binding=AnyBinding(), now=sample.time)
    quote = sample.read("sgx_report_bad.bin")[16:]
    with pytest.raises(EvidenceRejected) as refused:
        judging.verify(quote, collateral=nothing, binding=AnyBinding(), now=sample.time)
    assert refused.value.check.name == "dcap.pck.order"


def paths(pattern: str) -> list[str]:
    return [str(path.relative_to(FOLDER)) for path in sorted(FOLDER.glob(pattern))]


@pytest.mark.parametrize("path", paths("intel-collateral/negative/openenclave/*.json"))
def test_identities_without_a_member_are_refused(evidence: Evidence, path: str) -> None:
    raw = evidence.read(path)
    if "missing" not in path:
        assert parse_qe_identity(raw).id in ("QE", "QVE")
        return
    with pytest.raises(Malformed):
        parse_qe_identity(raw)


@pytest.mark.parametrize(
    "path", [*paths("intel-collateral/tcb-info/*"), *paths("intel-collateral/qe-identity/*")]
)
def test_every_document_of_intels_is_read(evidence: Evidence, path: str) -> None:
    """The files' names tell what is in them."""
    raw, name = evidence.read(path), path.rpartition("/")[2]
    if "tcb-info" in path:
        info = parse_tcb_info(raw)
        start = f"{info.id}_v{info.version}_{info.fmspc.hex()}_eval{info.evaluation_number}_"
        assert name == f"{start}{info.issue_date:%Y%m%dT%H%M%SZ}.json"
    else:
        identity = parse_qe_identity(raw)
        assert (
            name
            == f"{identity.id}_v2_eval{identity.evaluation_number}_{identity.issue_date:%Y%m%dT%H%M%SZ}.json"
        )


def test_tcb_info_of_another_platform_is_refused(evidence: Evidence) -> None:
    one = appraisals("sgx/v3-icelake-automata-a")[-1]
    other = evidence.read("intel-collateral/tcb-info/SGX_v3_90806f000000_eval19_20250808T004501Z.json")
    given = one.collateral
    changed = Collateral(
        certificates=given.certificates,
        crls=given.crls,
        documents=(Document(Kind.TCB_INFO, other), given.documents[1]),
    )
    with pytest.raises(EvidenceRejected) as refused:
        verifier().verify(one.sample.read("quote"), collateral=changed, binding=AnyBinding(), now=one.time)
    assert refused.value.check.name == "dcap.tcb_info.fmspc"


# Bytes


def flips(raw: bytes) -> Iterator[bytes]:
    for at in range(len(raw)):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << at % 8
        yield bytes(flipped)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sample", [sample for sample in QUOTES if sample.entry["appraisals"]], ids=lambda sample: sample.id
)
def test_every_byte_of_a_quote_flipped_once_is_refused(sample: Sample) -> None:
    """All are signed, or say how to read what is, or are padding that must be zero."""
    appraisal = Appraisal(sample, sample.entry["appraisals"][-1])
    judging, given, raw = verifier(cache=Cache()), appraisal.collateral, sample.read("quote")
    whole = len(raw) - len(quote_of(sample)[0].trailing)
    unsupported = appraisal.entry["expected_tcb_status"] == "NotSupported"
    for at, flipped in enumerate(flips(raw)):
        with pytest.raises(EnarxError) as refused:
            judging.verify(flipped, collateral=given, binding=AnyBinding(), now=appraisal.time)
        if unsupported and at < whole:  # which is refused in any case, but later
            assert "dcap.tcb.level" not in str(refused.value)


ONE_OF_EACH = ("sgx/v3-icelake-automata-a", "tdx/v4-dcapqvl-b0c06f")


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("index", [0, 1])
def test_every_signed_byte_of_a_document_flipped_once_is_refused(name: str, index: int) -> None:
    appraisal = appraisals(name)[-1]
    judging, given, raw = verifier(cache=Cache()), appraisal.collateral, appraisal.sample.read("quote")
    document = given.documents[index]
    end = document.data.rindex(b',"signature"')
    for flipped in flips(document.data[:end]):
        documents = list(given.documents)
        documents[index] = Document(document.kind, flipped + document.data[end:])
        changed = Collateral(certificates=given.certificates, crls=given.crls, documents=tuple(documents))
        with pytest.raises(EnarxError):
            judging.verify(raw, collateral=changed, binding=AnyBinding(), now=appraisal.time)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("index", [0, 1])
def test_no_byte_of_a_revocation_list_can_be_flipped(name: str, index: int) -> None:
    """It is refused, or it is no longer a list of this authority, and then the answer says so."""
    appraisal = appraisals(name)[-1]
    judging, given, raw = verifier(cache=Cache()), appraisal.collateral, appraisal.sample.read("quote")
    for flipped in flips(given.crls[index]):
        crls = (flipped, given.crls[1]) if index == 0 else (given.crls[0], flipped)
        changed = Collateral(certificates=given.certificates, crls=crls, documents=given.documents)
        try:
            claims = judging.verify(raw, collateral=changed, binding=AnyBinding(), now=appraisal.time)
        except EnarxError:
            continue
        assert claims.revocation is Revocation.MISSING


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_byte_of_the_signing_certificate_flipped_once_is_refused(name: str) -> None:
    appraisal = appraisals(name)[-1]
    judging, given, raw = verifier(cache=Cache()), appraisal.collateral, appraisal.sample.read("quote")
    signing = next(
        der for der in given.certificates if parse_certificate(der).common_name == "Intel SGX TCB Signing"
    )
    rest = tuple(der for der in given.certificates if der != signing)
    for flipped in flips(signing):
        changed = Collateral(certificates=(flipped, *rest), crls=given.crls, documents=given.documents)
        with pytest.raises(EnarxError):
            judging.verify(raw, collateral=changed, binding=AnyBinding(), now=appraisal.time)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_length_but_the_right_one_is_refused(name: str) -> None:
    """A9: cut short at every byte."""
    appraisal = appraisals(name)[-1]
    judging, given, raw = verifier(cache=Cache()), appraisal.collateral, appraisal.sample.read("quote")
    whole = len(raw.rstrip(b"\0")) + 1  # the chain ends in one zero byte
    judging.verify(raw[:whole], collateral=given, binding=AnyBinding(), now=appraisal.time)
    for size in range(whole):
        with pytest.raises(EnarxError):
            judging.verify(raw[:size], collateral=given, binding=AnyBinding(), now=appraisal.time)
