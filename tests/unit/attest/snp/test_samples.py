"""SNP evidence of real machines gives what the manifest says, field by field, and its negatives fail by name."""

from __future__ import annotations

from typing import Any

import pytest
from tests.evidence import Evidence, Sample, samples

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Cache,
    Claims,
    Collateral,
    EvidenceRejected,
    Policy,
    PolicyDenied,
    Revocation,
    TrustAnchors,
    Verifier,
)
from enarx.attest.snp import VERIFIER, SnpDetail, SnpReport
from enarx.attest.snp._certs import read_endorsement
from enarx.attest.x509 import parse_certificate
from enarx.tcb.errors import EnarxError

pytestmark = pytest.mark.evidence

REPORTS = samples("snp", "snp-report")
CRLS = {"Milan": "roots/amd_crl_milan_2022-05-09.der", "Genoa": "roots/amd_crl_genoa_2022-10-31.der"}

STRICT = """
version = 1
[snp]
measurement = "any"
revocation = "any"
signing_key = "any"
chip_hidden = "any"
vmpl = "any"
provisional_firmware = "any"
"""
"""What the manifest calls the strict policy: it refuses debugging, and leaves the other findings to the
caller."""


def collateral(sample: Sample) -> Collateral:
    return Collateral.from_pem(sample.read("vendor_chain")) | Collateral(
        certificates=(sample.read("endorsement_cert"),)
    )


def judge(sample: Sample, policy: Policy | AuthenticityOnly, extra: Collateral | None = None) -> Claims:
    verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=policy)
    given = collateral(sample) | (extra or Collateral.none())
    return verifier.verify(sample.read("report"), collateral=given, binding=AnyBinding(), now=sample.time)


def manifest_fields(report: SnpReport) -> dict[str, Any]:
    """The fields as the manifest writes them."""
    keys = report.author_key_en | report.mask_chip_key << 1 | (report.signing_key.value == "vlek") << 2
    return {
        "version": report.version,
        "guest_svn": report.guest_svn,
        "policy": hex(report.policy.value),
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "vmpl": report.vmpl,
        "sig_algo": 1,
        "current_tcb": report.current_tcb.hex(),
        "platform_info": hex(report.platform_info.value),
        "key_info": hex(keys),
        "report_data": report.report_data.hex(),
        "measurement": report.measurement.hex(),
        "host_data": report.host_data.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex(),
        "report_id": report.report_id.hex(),
        "report_id_ma": report.report_id_ma.hex(),
        "reported_tcb": report.reported_tcb.hex(),
        "cpuid_fms": bytes(report.cpuid or (0, 0, 0)).hex(),
        "chip_id": report.chip_id.hex(),
        "committed_tcb": report.committed_tcb.hex(),
        "current_ver": ".".join(map(str, report.current_version)),
        "committed_ver": ".".join(map(str, report.committed_version)),
        "launch_tcb": report.launch_tcb.hex(),
        "launch_mit_vector": hex(report.launch_mit_vector or 0),
        "current_mit_vector": hex(report.current_mit_vector or 0),
        "mbz_violations": [],
    }


@pytest.mark.parametrize("sample", REPORTS, ids=lambda sample: sample.id)
def test_report_gives_the_fields_and_verdict_of_the_manifest(sample: Sample) -> None:
    claims = judge(sample, AuthenticityOnly())
    detail = claims.detail
    assert isinstance(detail, SnpDetail)
    assert manifest_fields(detail.report) == sample.expected["fields"]
    assert detail.line.value == sample.expected["product_line"]
    assert detail.signing_key.name == sample.expected["signing_key"]
    assert claims.root.name == f"AMD ARK-{detail.line.value}"
    assert claims.root.is_vendor
    policy = Policy.parse(STRICT, [VERIFIER])
    if sample.expected["verdict_strict_policy"] == "accept":
        assert judge(sample, policy).policy_digest == policy.digest
    else:
        with pytest.raises(PolicyDenied) as refused:
            judge(sample, policy)
        assert [check.name for check in refused.value.failures] == ["policy.snp.debug"]


FINDINGS = {
    "PROVISIONAL_FIRMWARE(committed_tcb!=current_tcb)": "policy.snp.provisional_firmware",
    "VMPL_1": "policy.snp.vmpl",
    "CHIP_ID_ZERO": "policy.snp.chip_hidden",
    "POLICY_DEBUG": "policy.snp.debug",
}


@pytest.mark.parametrize("sample", REPORTS, ids=lambda sample: sample.id)
def test_a_policy_with_all_defaults_finds_what_the_manifest_finds(sample: Sample) -> None:
    policy = Policy.parse('version = 1\n[snp]\nmeasurement = "any"\nrevocation = "any"', [VERIFIER])
    wanted = {FINDINGS[finding] for finding in sample.expected["policy_findings"] if finding in FINDINGS}
    if sample.expected["signing_key"] == "VLEK":
        wanted.add("policy.snp.signing_key")
    try:
        failures = judge(sample, policy).checks[:0]
    except PolicyDenied as refused:
        failures = refused.failures
    assert {check.name for check in failures} == wanted


@pytest.mark.parametrize("sample", samples("snp", "snp-report", "cert-chain"), ids=lambda sample: sample.id)
def test_certificate_extensions_are_those_of_the_manifest(sample: Sample) -> None:
    endorsement = read_endorsement(parse_certificate(sample.read("endorsement_cert")))
    expected = sample.expected["cert_extensions"]
    assert endorsement is not None
    assert endorsement.product == expected["product"]
    assert endorsement.csp_id == expected.get("csp_id")
    assert (endorsement.tcb.bootloader, endorsement.tcb.tee, endorsement.tcb.fmc) == (
        expected["bl"],
        expected["tee"],
        expected.get("fmc"),
    )
    assert (endorsement.tcb.snp, endorsement.tcb.microcode) == (expected["snp"], expected["ucode"])
    if "hwid" in expected:
        assert endorsement.hwid is not None
        assert endorsement.hwid.hex() == expected["hwid"]


def test_forged_chain_with_amd_names_is_refused_because_its_root_is_not_pinned(evidence: Evidence) -> None:
    """A12: every signature holds, and the names are AMD's; only the root key is not."""
    with pytest.raises(EvidenceRejected) as refused:
        judge(evidence.sample("snp/neg-forged-chain-milan"), AuthenticityOnly())
    assert refused.value.check.name == "snp.chain.root"


@pytest.mark.parametrize("role", ["negative_endorsement_cert_1", "negative_endorsement_cert_2"])
def test_certificates_that_amd_did_not_sign_are_refused(evidence: Evidence, role: str) -> None:
    sample = evidence.sample("snp/milan-v2-trustee")
    given = Collateral.from_pem(sample.read("vendor_chain")) | Collateral(certificates=(sample.read(role),))
    verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly())
    with pytest.raises(EvidenceRejected) as refused:
        verifier.verify(sample.read("report"), collateral=given, binding=AnyBinding(), now=sample.time)
    assert refused.value.check.name == "snp.chain.signature"


def test_vcek_of_another_machine_is_refused_by_the_signature(evidence: Evidence) -> None:
    one, other = evidence.sample("snp/milan-v2-trustee"), evidence.sample("snp/milan-azure-aci")
    verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly())
    with pytest.raises(EvidenceRejected) as refused:
        verifier.verify(one.read("report"), collateral=collateral(other), binding=AnyBinding(), now=one.time)
    assert refused.value.check.name == "snp.signature"


def test_vlek_in_place_of_a_vcek_and_the_reverse_are_refused(evidence: Evidence) -> None:
    """A13."""
    one, other = evidence.sample("snp/milan-v2-trustee"), evidence.sample("snp/milan-v3-vlek-aws-trustee")
    verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly())
    for report, given in ((one, other), (other, one)):
        with pytest.raises(EvidenceRejected) as refused:
            verifier.verify(
                report.read("report"), collateral=collateral(given), binding=AnyBinding(), now=other.time
            )
        assert refused.value.check.name == "snp.signing_key"


def test_amd_revocation_list_is_checked_and_then_stale(evidence: Evidence) -> None:
    """A15."""
    sample = evidence.sample("snp/milan-v2-enarx-csr")
    crl = Collateral(crls=(evidence.read(CRLS["Milan"]),))
    assert judge(sample, AuthenticityOnly(), crl).revocation is Revocation.CHECKED
    later = Sample({**sample.entry, "verification_time": "2023-05-10T00:00:00Z"})
    assert judge(later, AuthenticityOnly(), crl).revocation is Revocation.STALE
    assert judge(sample, AuthenticityOnly()).revocation is Revocation.MISSING


def test_genuine_genoa_revocation_list_is_read(evidence: Evidence) -> None:
    """It lists the first ASK of Genoa, 0x20001; the ASK in use is 0x20002."""
    sample = evidence.sample("snp/genoa-v5-oak")
    claims = judge(sample, AuthenticityOnly(), Collateral(crls=(evidence.read(CRLS["Genoa"]),)))
    assert claims.revocation is Revocation.STALE


def test_no_root_verifies_nothing(evidence: Evidence) -> None:
    """A12: an empty set of anchors is not a licence."""
    sample = evidence.sample("snp/genoa-v5-oak")
    verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.none(), policy=AuthenticityOnly())
    with pytest.raises(EvidenceRejected) as refused:
        verifier.verify(
            sample.read("report"), collateral=collateral(sample), binding=AnyBinding(), now=sample.time
        )
    assert refused.value.check.name == "snp.chain.root"


@pytest.mark.parametrize("sample", REPORTS, ids=lambda sample: sample.id)
def test_every_byte_flipped_once_is_refused(sample: Sample) -> None:
    """The signature, and the bytes behind it that it does not cover."""
    verifier = Verifier(
        tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly(), cache=Cache()
    )
    raw, given = sample.read("report"), collateral(sample)
    verifier.verify(raw, collateral=given, binding=AnyBinding(), now=sample.time)
    for at in range(len(raw)):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(EnarxError):
            verifier.verify(bytes(flipped), collateral=given, binding=AnyBinding(), now=sample.time)


@pytest.mark.parametrize("sample", REPORTS[:1], ids=lambda sample: sample.id)
@pytest.mark.parametrize("index", [0, 1])
def test_every_byte_of_a_certificate_flipped_once_is_refused(sample: Sample, index: int) -> None:
    """Of the leaf and of who issued it; of the root it is the key that is pinned."""
    judging = Verifier(
        tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly(), cache=Cache()
    )
    raw, given = sample.read("report"), collateral(sample)
    chain = {one.common_name: one.der for one in map(parse_certificate, given.certificates)}
    names = [name for name in chain if not name.startswith("ARK")]
    der = chain[sorted(names, key=lambda name: name not in ("SEV-VCEK", "SEV-VLEK"))[index]]
    rest = tuple(one for one in given.certificates if one != der)
    for at in range(len(der)):
        flipped = bytearray(der)
        flipped[at] ^= 1 << at % 8
        changed = Collateral(certificates=(bytes(flipped), *rest), crls=given.crls)
        with pytest.raises(EnarxError):
            judging.verify(raw, collateral=changed, binding=AnyBinding(), now=sample.time)


@pytest.mark.parametrize("sample", REPORTS[:1], ids=lambda sample: sample.id)
def test_every_length_but_the_right_one_is_refused(sample: Sample) -> None:
    """A9: cut short at every byte, and with something behind it."""
    verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly())
    raw, given = sample.read("report"), collateral(sample)
    for wrong in (*(raw[:size] for size in range(len(raw))), raw + b"\x00", raw + raw, raw + bytes(23)):
        with pytest.raises(EnarxError):
            verifier.verify(wrong, collateral=given, binding=AnyBinding(), now=sample.time)
