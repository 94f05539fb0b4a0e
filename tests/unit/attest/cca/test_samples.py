"""CCA tokens of emulated platforms give what the manifest says, and its negatives fail by name."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import cbor2
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
    MalformedEvidence,
    Policy,
    PolicyDenied,
    TrustAnchors,
    Vendor,
    Verifier,
)
from enarx.attest.cca import VERIFIER, CcaDetail, parse_token
from enarx.attest.cca._token import parse_realm
from enarx.cli._manifest_fields import cca_fields
from enarx.tcb.errors import EnarxError

pytestmark = pytest.mark.evidence

ALL = samples("cca", "cca-token")
GOOD = [sample for sample in ALL if sample.expected["crypto"] == "valid"]
NOW = datetime(2025, 1, 1, tzinfo=UTC)
"""Tokens carry no time."""
STRICT = Policy.parse(
    'version = 1\n[cca]\nmeasurement = "any"\nsoftware_components = "any"\nvendor_root = "any"', [VERIFIER]
)


def verifier(sample: Sample, policy: Policy | AuthenticityOnly, cache: Cache | None = None) -> Verifier:
    anchors = TrustAnchors.vendor().adding(sample.read("cpak_public"), name="CPAK", vendor=Vendor.ARM_CCA)
    return Verifier(tees=[VERIFIER], anchors=anchors, policy=policy, cache=cache)


def judge(
    sample: Sample, raw: bytes | None = None, binding: bytes | None = None, policy: Policy = STRICT
) -> Claims:
    return verifier(sample, policy).verify(
        sample.read("token") if raw is None else raw,
        collateral=Collateral.none(),
        binding=AnyBinding() if binding is None else binding,
        now=NOW,
    )


@pytest.mark.parametrize("sample", GOOD, ids=lambda sample: sample.id)
def test_token_gives_the_fields_and_verdict_of_the_manifest(sample: Sample) -> None:
    challenge = bytes.fromhex(sample.expected["realm_claims"]["10"])
    claims = judge(sample, binding=challenge)
    assert claims.bound
    found = cca_fields(claims)
    assert found == {name: sample.expected[name] for name in found}


@pytest.mark.parametrize("sample", ALL, ids=lambda sample: sample.id)
def test_every_claim_is_read_as_the_manifest_has_it(sample: Sample) -> None:
    token = parse_token(sample.read("token"))
    assert token.realm.unknown == {}
    assert token.platform.unknown == {}
    assert token.platform.instance_id.hex() == sample.expected["platform_claims"]["256"]
    assert [one.hex() for one in list(token.realm.measurements.values())[1:]] == sample.expected[
        "realm_claims"
    ]["44239"]


def test_a_platform_that_vouches_for_another_key_is_refused(evidence: Evidence) -> None:
    """Both signatures hold."""
    with pytest.raises(EvidenceRejected) as refused:
        judge(evidence.sample("cca/neg-wrong-binding"))
    assert refused.value.check.name == "cca.realm.key"


def test_tokens_of_two_platforms_do_not_mix(evidence: Evidence) -> None:
    ours, theirs = (
        evidence.sample(name) for name in ("cca/rust-ccatoken-draft-ffm-00", "cca/veraison-end-to-end")
    )
    mixed = {**cbor2.loads(ours.read("token")).value, 44241: cbor2.loads(theirs.read("token")).value[44241]}
    with pytest.raises(EvidenceRejected) as refused:
        judge(ours, cbor2.dumps(cbor2.CBORTag(399, mixed)))
    assert refused.value.check.name == "cca.realm.key"
    with pytest.raises(EvidenceRejected) as other:
        judge(theirs, ours.read("token"))
    assert other.value.check.name == "cca.platform.algorithm"


def test_an_instance_that_is_not_enrolled_is_denied() -> None:
    sample = GOOD[0]
    text = f"""
        version = 1
        [cca]
        measurement = "any"
        software_components = "any"
        vendor_root = "any"
        instance_id = ["{"01" + "22" * 32}"]
    """
    with pytest.raises(PolicyDenied) as refused:
        judge(sample, policy=Policy.parse(text, [VERIFIER]))
    assert [check.name for check in refused.value.failures] == ["policy.cca.instance_id"]


def test_a_platform_key_that_is_no_point_is_refused_when_it_is_named(evidence: Evidence) -> None:
    """A21."""
    (entry,) = json.loads(evidence.read("cca/neg-trust-anchor-not-on-curve.json"))
    x, y = (base64.urlsafe_b64decode(entry["pkey"][name] + "=") for name in "xy")
    head = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
    with pytest.raises(MalformedCollateral):
        TrustAnchors.none().adding(head + b"\x04" + x + y, name="CPAK", vendor=Vendor.ARM_CCA)


def realm(evidence: Evidence, name: str) -> bytes:
    """Claims of the parser's own set, in an unsigned message."""
    body = evidence.read(f"cca/claims/{name}.cbor")
    return cbor2.dumps(cbor2.CBORTag(18, [cbor2.dumps({1: -35}), {}, body, bytes(96)]))


def test_claims_for_the_parser(evidence: Evidence) -> None:
    assert parse_realm(realm(evidence, "realm-claims")).unknown == {}
    for name in ("realm-claims+spurious-numeric-key", "realm-claims+spurious-text-key"):
        assert len(parse_realm(realm(evidence, name)).unknown) == 1
    with pytest.raises(MalformedEvidence, match="claim 10 is missing"):
        parse_realm(realm(evidence, "realm-claims-missing-challenge"))


@pytest.mark.parametrize("sample", GOOD, ids=lambda sample: sample.id)
def test_every_byte_flipped_once_is_refused(sample: Sample) -> None:
    judging = verifier(sample, AuthenticityOnly(), Cache())
    raw = sample.read("token")
    judging.verify(raw, collateral=Collateral.none(), binding=AnyBinding(), now=NOW)
    for at in range(len(raw)):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(EnarxError):
            judging.verify(bytes(flipped), collateral=Collateral.none(), binding=AnyBinding(), now=NOW)


@pytest.mark.parametrize("sample", GOOD[:1], ids=lambda sample: sample.id)
def test_every_length_but_the_right_one_is_malformed(sample: Sample) -> None:
    """A9: cut short at every byte, and with something behind it."""
    raw = sample.read("token")
    for wrong in (*(raw[:size] for size in range(len(raw))), raw + b"\x00", raw + raw):
        with pytest.raises(MalformedEvidence):
            judge(sample, wrong)


def test_detail_has_both_tokens() -> None:
    detail: Any = judge(GOOD[0]).detail
    assert isinstance(detail, CcaDetail)
    assert detail.realm.challenge != detail.platform.challenge
