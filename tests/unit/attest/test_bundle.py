"""Files of one piece of evidence: told apart, packed and unpacked; what travels along is trusted no more."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.evidence import Evidence
from tests.forge.pki import NOW
from tests.forge.snp import REPORT_DATA, Case, ark

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Claims,
    Collateral,
    CollateralMissing,
    EvidenceRejected,
    Kind,
    MalformedEvidence,
    TrustAnchors,
    Verifier,
    bundle,
    cmw,
    snp,
)
from enarx.attest.registry import BUILTIN
from enarx.attest.tpm import TpmDetail, read_tpm2_pcrs

TEES = tuple(BUILTIN.values())
GCE = "tpm/gce-cos85-nonce"


def judge(case: Case, evidence: bytes) -> Claims:
    verifier = Verifier(tees=[snp.VERIFIER], anchors=case.anchors, policy=AuthenticityOnly())
    return verifier.verify(evidence, collateral=Collateral.none(), binding=REPORT_DATA, now=NOW)


def test_a_report_travels_with_its_certificates() -> None:
    case = Case()
    certificates = case.collateral.certificates
    for files in ((case.report.raw, *certificates), (*certificates, case.report.raw)):
        packed = bundle.pack(files, TEES)
        assert judge(case, packed).bound
        evidence, carried = bundle.unpack(packed)
        assert (evidence, carried) == (case.report.raw, Collateral(certificates=certificates))
    with pytest.raises(CollateralMissing):
        judge(case, bundle.pack([case.report.raw], TEES))


def test_a_list_that_travels_along_revokes() -> None:
    case = Case()
    files = (case.report.raw, *case.collateral.certificates, ark().crl(0x10001))
    with pytest.raises(EvidenceRejected) as refused:
        judge(case, bundle.pack(files, TEES))
    assert refused.value.check.name == "snp.crl.revoked"


def test_a_root_that_travels_along_is_not_trusted() -> None:
    """A12."""
    case = Case()
    packed = bundle.pack((case.report.raw, *case.collateral.certificates, case.root.der), TEES)
    verifier = Verifier(tees=TEES, anchors=TrustAnchors.vendor(), policy=AuthenticityOnly())
    with pytest.raises(EvidenceRejected) as refused:
        verifier.verify(packed, collateral=Collateral.none(), binding=AnyBinding(), now=NOW)
    assert refused.value.check.name == "snp.chain.root"


def test_files_of_several_pieces_or_of_none_are_refused() -> None:
    report, other = Case().report.raw, Case().report.but(guest_svn=7).raw
    certificates = Case().collateral.certificates
    for files in ((report, other), certificates, (report, b"notes"), (report, report)):
        with pytest.raises(MalformedEvidence):
            bundle.pack(files, TEES)
    assert bundle.each_is_evidence([report, other], TEES)
    assert not bundle.each_is_evidence([report, *certificates], TEES)


@pytest.mark.parametrize(
    "items",
    [
        {"report": cmw.Record(1, b"x")},
        {"evidence": cmw.Record(1, b"x"), "more": cmw.Record(1, b"nothing that is known")},
        {"evidence": cmw.Record(1, b"x"), "more": cmw.Collection({"a": cmw.Record(1, b"x")})},
    ],
)
def test_a_collection_of_our_type_in_another_form_is_malformed(
    items: dict[str, cmw.Record | cmw.Collection],
) -> None:
    from enarx.tcb.errors import Malformed

    with pytest.raises(Malformed):
        bundle.unpack(cmw.to_cbor(cmw.Collection(items, bundle.TYPE)))


def test_what_is_no_envelope_comes_back() -> None:
    for data in (
        b"",
        b"{",
        b"report",
        Case().report.raw,
        cmw.to_cbor(cmw.Collection({"a": cmw.Record(1, b"x")})),
    ):
        assert bundle.unpack(data) == (data, None)
    assert bundle.unpack(bundle.envelop(b"report")) == (b"report", None)
    assert bundle.envelop(bundle.envelop(b"report")) == bundle.envelop(b"report")


def gce(evidence: Evidence, *paths: str) -> list[bytes]:
    return [evidence.read(f"{GCE}/{path}") for path in paths]


@pytest.mark.evidence
def test_the_parts_of_a_quote_are_told_by_their_content(evidence: Evidence) -> None:
    import json

    values = json.loads(evidence.read(f"{GCE}/sha256.pcrs.json"))["pcrs"]
    pcrs = b"".join(bytes.fromhex(values[index]) for index in sorted(values, key=int))
    parts = gce(evidence, "sha256.attest", "sha256.sig", "ak_cert.der", "event_log.bin")
    between = evidence.read("roots/google_tpm_ek_intermediate_2.crt")
    packed = bundle.pack([pcrs, between, *parts], TEES)
    verifier = Verifier(tees=TEES, anchors=TrustAnchors.vendor(), policy=AuthenticityOnly())
    now = datetime(2021, 9, 15, tzinfo=UTC)
    claims = verifier.verify(packed, collateral=Collateral.none(), binding=bytes.fromhex("9009"), now=now)
    assert claims.root.name == "Google TPM EK Root 1"
    assert isinstance(claims.detail, TpmDetail)
    assert claims.detail.replayed >= set(range(8))
    carried = bundle.unpack(packed)[1]
    assert carried is not None
    assert len(list(carried.of(Kind.EVENT_LOG))) == 1
    for files in (parts, [*parts, pcrs, b"notes"], [*parts, pcrs, parts[0]], [pcrs, parts[0]]):
        with pytest.raises(MalformedEvidence):
            bundle.pack(files, TEES)


@pytest.mark.evidence
def test_the_file_of_tpm2_tools_is_read(evidence: Evidence) -> None:
    raw = evidence.read("tpm/keylime/quotepcr.out")
    values = read_tpm2_pcrs(raw)
    assert values is not None
    assert len(values) == 96
    files = [evidence.read(f"tpm/keylime/quote.{end}") for end in ("attest", "sig")]
    anchors = TrustAnchors.none().adding(evidence.read("tpm/keylime/ak_pub.pem"), name="enrolled")
    verifier = Verifier(tees=TEES, anchors=anchors, policy=AuthenticityOnly())
    packed = bundle.pack([raw, *files], TEES)
    claims = verifier.verify(packed, collateral=Collateral.none(), binding=AnyBinding(), now=NOW)
    assert set(claims.measurements) == {"pcr15", "pcr16", "pcr22"}
    for bad in (raw[:-1], raw + b"\0", bytes(len(raw)), b""):
        assert read_tpm2_pcrs(bad) is None
    at = 136
    assert read_tpm2_pcrs(raw[:at] + (9).to_bytes(4, "little") + raw[at + 4 :]) is None
    assert read_tpm2_pcrs(raw[: at + 4] + (65).to_bytes(2, "little") + raw[at + 6 :]) is None
