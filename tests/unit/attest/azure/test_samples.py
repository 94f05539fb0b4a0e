"""Evidence of real machines of Azure gives what the manifest says, and its negatives fail by name."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from tests.evidence import FOLDER, Evidence, Sample, samples
from tests.forge.tpm import bundle

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Cache,
    Claims,
    Collateral,
    CollateralMissing,
    EvidenceRejected,
    Policy,
    PolicyDenied,
    TrustAnchors,
    Verifier,
)
from enarx.attest.azure import VERIFIER, AzureSnpDetail, AzureTdxDetail, parse_evidence, parse_hcl_report
from enarx.attest.material import recognise_collateral
from enarx.attest.snp import VERIFIER as SNP
from enarx.attest.snp import SnpEvidence, parse_report
from enarx.cli._manifest import STRICT
from enarx.cli._manifest_fields import azure_fields, different
from enarx.tcb.errors import EnarxError, Malformed

pytestmark = pytest.mark.evidence

ALL = samples("azure", "azure-vtpm-snp", "azure-vtpm-tdx")
ON_SNP = [sample for sample in ALL if sample.entry["kind"] == "azure-vtpm-snp"]
ON_TDX = [sample for sample in ALL if sample.entry["kind"] == "azure-vtpm-tdx"]
APPRAISALS = [(sample, entry) for sample in ON_TDX for entry in sample.entry["appraisals"]]
SECTIONS = "\n".join(f'[{name}]\nmeasurement = "any"\n{STRICT[name]}' for name in ("azure-snp", "azure-tdx"))
POLICY = Policy.parse(f"version = 1\n{SECTIONS}", [VERIFIER])
AK_ROLES = ("ak_certificate", "ak_intermediates")


def collateral(sample: Sample, entry: dict[str, Any] | None = None, *, of_key: bool = True) -> Collateral:
    found = Collateral.none()
    for role in ("vendor_chain", *(AK_ROLES if of_key else ())):
        if sample.has(role):
            found |= recognise_collateral(sample.read(role))
    for path in (entry or {}).get("collateral", {}).values():
        found |= recognise_collateral((FOLDER / path).read_bytes())
    return found


def moment(sample: Sample, entry: dict[str, Any] | None = None) -> datetime:
    return datetime.fromisoformat(entry["verification_time"]) if entry else sample.time


def last(sample: Sample) -> dict[str, Any] | None:
    entries: list[dict[str, Any]] = sample.entry.get("appraisals") or []
    return entries[-1] if entries else None


def judge(
    sample: Sample,
    raw: bytes | None = None,
    *,
    entry: dict[str, Any] | None = None,
    policy: Policy | AuthenticityOnly | None = None,
    binding: bytes | None = None,
) -> Claims:
    entry = entry or last(sample)
    verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=policy or AuthenticityOnly())
    return verifier.verify(
        sample.read("evidence") if raw is None else raw,
        collateral=collateral(sample, entry),
        binding=AnyBinding() if binding is None else binding,
        now=moment(sample, entry),
    )


@pytest.mark.parametrize("sample", ALL, ids=lambda sample: sample.id)
def test_evidence_gives_the_fields_of_the_manifest(sample: Sample) -> None:
    claims = judge(sample, binding=bytes.fromhex(sample.expected["tpm"]["extra_data"]))
    found = azure_fields(claims)
    assert different(found, sample.expected) == []
    assert found["hcl"] == sample.expected["hcl"]
    assert found["tpm"].items() <= sample.expected["tpm"].items()
    hardware = "snp" if sample in ON_SNP else "tdx"
    fields = sample.expected[hardware]["fields"]
    assert found[hardware]["fields"].items() <= fields.items()
    assert len(found[hardware]["fields"]) >= len(fields) - 1
    assert claims.root.is_vendor


@pytest.mark.parametrize("sample", ALL, ids=lambda sample: sample.id)
def test_evidence_gives_the_verdict_of_the_manifest(sample: Sample) -> None:
    if sample.expected["verdict_strict_policy"] == "accept":
        assert judge(sample, policy=POLICY).policy_digest == POLICY.digest
        return
    with pytest.raises(PolicyDenied) as refused:
        judge(sample, policy=POLICY)
    assert [check.name for check in refused.value.failures] == ["policy.azure-tdx.tcb_status"]


@pytest.mark.parametrize(
    ("sample", "entry"),
    APPRAISALS,
    ids=[f"{one.id} at {entry['verification_time']}" for one, entry in APPRAISALS],
)
def test_status_is_that_of_the_manifest_at_each_time(sample: Sample, entry: dict[str, Any]) -> None:
    claims = judge(sample, entry=entry)
    assert claims.tcb_status == entry["expected_tcb_status"]
    assert isinstance(claims.detail, AzureTdxDetail)
    assert claims.detail.tcb.advisories >= frozenset(entry["advisory_ids_of_matched_level"])


def test_certificate_of_the_key_leads_to_the_pinned_root_of_azure(evidence: Evidence) -> None:
    sample = evidence.sample("azure/tdx-flashbots-ak-chain")
    detail = judge(sample).detail
    assert isinstance(detail, AzureTdxDetail)
    assert detail.ak_certified
    intel = TrustAnchors(tuple(one for one in TrustAnchors.vendor().anchors if "Azure" not in one.name))
    verifier = Verifier(tees=[VERIFIER], anchors=intel, policy=AuthenticityOnly())
    with pytest.raises(CollateralMissing) as refused:  # the root did not come along, and nobody knows it
        verifier.verify(
            sample.read("evidence"),
            collateral=collateral(sample, last(sample)),
            binding=AnyBinding(),
            now=moment(sample, last(sample)),
        )
    assert refused.value.check.name == "azure.ak_certificate.chain.issuer"


def test_a_certified_key_does_not_stand_in_for_the_hardware(evidence: Evidence) -> None:
    """CVE-2025-49707: the certificate is genuine, but hardware is not asked, or vouches for another key."""
    sample = evidence.sample("azure/tdx-flashbots-ak-chain")
    other = evidence.sample("azure/tdx-trustee-v0")
    mixed = {**_document(other), "tpm_quote": _document(sample)["tpm_quote"]}
    entry = last(other)
    verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly())
    with pytest.raises(EvidenceRejected) as refused:
        verifier.verify(
            json.dumps(mixed).encode(),
            collateral=collateral(other, entry) | collateral(sample),
            binding=AnyBinding(),
            now=moment(other, entry),
        )
    assert refused.value.check.name == "tpm.signature"


def _document(sample: Sample) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sample.read("evidence"))
    return found


def test_the_vcek_of_another_machine_does_not_fit(evidence: Evidence) -> None:
    sample, other = (evidence.sample(f"azure/snp-{name}") for name in ("trustee-v0", "lunal-v1"))
    document = {**_document(sample), "vcek": list(other.read("endorsement_cert"))}
    with pytest.raises(EvidenceRejected) as refused:
        judge(sample, json.dumps(document).encode())
    assert refused.value.check.name == "snp.signature"


def test_the_report_of_one_machine_with_the_quote_of_another_is_refused(evidence: Evidence) -> None:
    one, other = (evidence.sample(f"azure/snp-{name}") for name in ("lunal-v1", "trustee-v2"))
    document = {**_document(other), "tpm_quote": _document(one)["evidence"]["tpm_quote"]}
    with pytest.raises(EvidenceRejected) as refused:
        judge(other, json.dumps(document).encode())
    assert refused.value.check.name == "tpm.signature"


def test_the_td_quote_of_another_machine_is_refused(evidence: Evidence) -> None:
    one, other = (evidence.sample(f"azure/tdx-{name}") for name in ("flashbots-ak-chain", "trustee-v0"))
    document = {**_document(one), "td_quote": _document(other)["td_quote"]}
    with pytest.raises(EvidenceRejected) as refused:
        judge(other, json.dumps(document).encode())
    assert refused.value.check.name == "azure.td_report"


@pytest.mark.parametrize("sample", ALL, ids=lambda sample: sample.id)
def test_every_signed_byte_flipped_once_is_refused(sample: Sample) -> None:
    """Of the paravisor's report, its runtime data, the quote of its virtual TPM and the signature and PCRs of that."""
    entry, given = last(sample), collateral(sample, last(sample))
    verifier = Verifier(
        tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly(), cache=Cache()
    )
    parsed = parse_evidence(sample.read("evidence"))
    report, signature = sample.read("hcl_report"), sample.read("tpm_signature_raw")
    is_snp = isinstance(parsed.hardware, SnpEvidence)
    parts = {
        "hcl-report": report,
        "tpm-quote": sample.read("tpm_attest"),
        "tpm-signature": b"\x00\x14\x00\x0b" + len(signature).to_bytes(2, "big") + signature,
        "tpm-pcrs": b"".join(parsed.quote.pcrs.values()),
        "vcek" if is_snp else "td-quote": sample.read("endorsement_cert" if is_snp else "td_quote"),
    }

    def refused(changed: dict[str, bytes]) -> bool:
        raw = bundle({**parts, **changed})
        try:
            verifier.verify(raw, collateral=given, binding=AnyBinding(), now=moment(sample, entry))
        except EnarxError:
            return True
        return False

    assert not refused({})
    area = range(0x2A0) if is_snp else (0, *range(128, 192), *range(264, 384), *range(512, 912))
    spots = {
        "hcl-report": (*(32 + at for at in area), *range(1236, int.from_bytes(report[8:12], "little"))),
        **{label: range(len(parts[label])) for label in ("tpm-quote", "tpm-signature", "tpm-pcrs")},
    }
    accepted = []
    for label, where in spots.items():
        for at in where:
            flipped = bytearray(parts[label])
            flipped[at] ^= 1 << at % 8
            if not refused({label: bytes(flipped)}):
                accepted.append((label, at))
    assert accepted == []


def test_reports_of_older_paravisors_are_read_and_their_chip_is_asked(evidence: Evidence) -> None:
    """The signature of this one does not hold, as the manifest says; its runtime data are bound all the same."""
    sample = evidence.sample("azure/kinvolk-hcl")
    of_snp, of_tdx = (parse_hcl_report(sample.read(f"hcl_report_{kind}")) for kind in ("snp", "tdx"))
    report = parse_report(of_snp.hardware)
    assert report.report_data == of_snp.expected_report_data
    assert report.measurement.hex() == sample.expected["fields"]["measurement"]
    assert of_tdx.runtime.secure_boot is False
    verifier = Verifier(tees=[SNP], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly())
    with pytest.raises(EvidenceRejected) as refused:
        verifier.verify(
            of_snp.hardware,
            collateral=recognise_collateral(sample.read("certs")),
            binding=AnyBinding(),
            now=sample.time,
        )
    assert refused.value.check.name == "snp.signature"


def test_every_length_but_the_right_one_of_the_report_is_refused(evidence: Evidence) -> None:
    """A9; zeros behind it are what its index has."""
    report = evidence.sample("azure/snp-lunal-v1").read("hcl_report")
    end = int.from_bytes(report[8:12], "little")
    assert parse_hcl_report(report[:end]) == parse_hcl_report(report)
    for size in range(0, end, 3):
        with pytest.raises(Malformed):
            parse_hcl_report(report[:size])


def test_detail_tells_how_the_machine_is_set_up() -> None:
    for sample in ON_SNP:
        detail = judge(sample).detail
        assert isinstance(detail, AzureSnpDetail)
        assert detail.runtime.secure_boot is True
        assert detail.report.vmpl == 0
