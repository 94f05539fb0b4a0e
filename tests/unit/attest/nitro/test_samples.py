"""Nitro documents of real enclaves give what the manifest says, and its negatives fail by name."""

from __future__ import annotations

import hashlib
from datetime import timedelta
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
    MalformedCollateral,
    Policy,
    PolicyDenied,
    TrustAnchors,
    Verifier,
)
from enarx.attest.nitro import VERIFIER, NitroDocument
from enarx.tcb.errors import EnarxError

pytestmark = pytest.mark.evidence

ALL = samples("nitro", "nitro-attestation-document")
GENUINE = [sample for sample in ALL if sample.expected.get("root_is_aws_g1") and "neg-" not in sample.id]
STRICT = Policy.parse('version = 1\n[nitro]\nmeasurement = "any"', [VERIFIER])


def judge(sample: Sample, policy: Policy | AuthenticityOnly, late: timedelta = timedelta(0)) -> Claims:
    verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=policy)
    return verifier.verify(
        sample.read("document"), collateral=Collateral.none(), binding=AnyBinding(), now=sample.time + late
    )


def abridged(value: bytes | None) -> str | None:
    return value.hex() if value is not None else None


def manifest_fields(document: NitroDocument) -> dict[str, Any]:
    """The fields as the manifest writes them."""
    return {
        "module_id": document.module_id,
        "digest": document.digest,
        "timestamp_ms": round(document.timestamp.timestamp() * 1000),
        "pcrs": {str(index): value.hex() for index, value in document.pcrs.items()},
        "public_key": abridged(document.public_key),
        "user_data": abridged(document.user_data),
        "nonce": abridged(document.nonce),
        "cabundle_len": len(document.cabundle),
        "cose_protected": document.message.protected.hex(),
    }


@pytest.mark.parametrize("sample", GENUINE, ids=lambda sample: sample.id)
def test_document_gives_the_fields_and_verdict_of_the_manifest(sample: Sample) -> None:
    claims = judge(sample, AuthenticityOnly())
    assert isinstance(claims.evidence, NitroDocument)
    found = manifest_fields(claims.evidence)
    assert found == {name: sample.expected["fields"][name] for name in found}
    assert claims.root.certificate is not None
    digest = hashlib.sha256(claims.root.certificate.der).hexdigest()
    assert digest == sample.expected["root_certificate_sha256"]
    if sample.expected["verdict_strict_policy"] == "accept":
        assert judge(sample, STRICT).policy_digest == STRICT.digest
        assert not claims.debug
        return
    with pytest.raises(PolicyDenied) as refused:
        judge(sample, STRICT)
    assert [check.name for check in refused.value.failures] == ["policy.nitro.debug"]


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("nitro/neg-forged-root", "nitro.chain.root"),
        ("nitro/neg-marlin-custom-root", "nitro.chain.root"),
        ("nitro/neg-fortanix-tampered-signature", "nitro.signature"),
    ],
)
def test_negative_is_refused_by_name(evidence: Evidence, name: str, check: str) -> None:
    """A12."""
    with pytest.raises(EvidenceRejected) as refused:
        judge(evidence.sample(name), AuthenticityOnly())
    assert refused.value.check.name == check


def test_a_certificate_that_is_no_longer_der_is_malformed(evidence: Evidence) -> None:
    sample = evidence.sample("nitro/neg-fortanix-tampered-certificate")
    late = timedelta(days=365)  # the manifest judges it before it was made
    with pytest.raises(MalformedCollateral):
        judge(sample, AuthenticityOnly(), late)


@pytest.mark.parametrize("sample", GENUINE[:1], ids=lambda sample: sample.id)
def test_an_old_document_is_authentic_but_denied(sample: Sample) -> None:
    """The certificates have expired by then; the document is judged at its own time, its age by policy."""
    late = timedelta(days=200)
    judge(sample, AuthenticityOnly(), late)
    with pytest.raises(PolicyDenied) as refused:
        judge(sample, STRICT, late)
    assert "policy.nitro.max_age_s" in {check.name for check in refused.value.failures}


def test_no_root_verifies_nothing() -> None:
    """A12: an empty set of anchors is not a licence."""
    sample = GENUINE[0]
    verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.none(), policy=AuthenticityOnly())
    with pytest.raises(EvidenceRejected) as refused:
        verifier.verify(
            sample.read("document"), collateral=Collateral.none(), binding=AnyBinding(), now=sample.time
        )
    assert refused.value.check.name == "nitro.chain.root"


@pytest.mark.slow
@pytest.mark.parametrize("sample", GENUINE, ids=lambda sample: sample.id)
def test_every_byte_flipped_once_is_refused(sample: Sample) -> None:
    verifier = Verifier(
        tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly(), cache=Cache()
    )
    raw = sample.read("document")
    for at in range(len(raw)):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(EnarxError):
            verifier.verify(
                bytes(flipped), collateral=Collateral.none(), binding=AnyBinding(), now=sample.time
            )


@pytest.mark.parametrize("sample", GENUINE[:1], ids=lambda sample: sample.id)
def test_every_length_but_the_right_one_is_refused(sample: Sample) -> None:
    """A9: cut short at every byte, and with something behind it."""
    verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly())
    raw = sample.read("document")
    for wrong in (*(raw[:size] for size in range(len(raw))), raw + b"\x00", raw + raw):
        with pytest.raises(EnarxError):
            verifier.verify(wrong, collateral=Collateral.none(), binding=AnyBinding(), now=sample.time)
