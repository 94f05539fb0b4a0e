"""Quotes of real TPMs give what the manifest says; the key that signed them must be trusted first."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.evidence import Evidence, Sample, samples
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
    TrustAnchors,
    Verifier,
)
from enarx.attest.collateral import Document, Kind
from enarx.attest.tpm import VERIFIER, TpmDetail, TpmQuote
from enarx.tcb.errors import EnarxError

pytestmark = pytest.mark.evidence

QUOTES = [(sample, quote) for sample in samples("tpm", "tpm2-quote") for quote in sample.expected["quotes"]]
IDS = [f"{sample.id}-{quote['name']}" for sample, quote in QUOTES]
GCE = "tpm/gce-cos85-nonce"


def pcrs(evidence: Evidence, sample: Sample, quote: dict[str, Any]) -> bytes:
    if "pcrs" in quote["files"]:
        values = json.loads(evidence.read(quote["files"]["pcrs"]))["pcrs"]
        return b"".join(bytes.fromhex(values[index]) for index in sorted(values, key=int))
    raw = sample.read(
        "pcr_file_tpm2_tools"
    )  # a selection of 132 bytes, and lists of eight digests of 64 bytes
    return b"".join(raw[142 + 66 * at : 142 + 66 * at + 32] for at in range(3))


def evidence_of(evidence: Evidence, sample: Sample, quote: dict[str, Any], **more: bytes) -> bytes:
    files = quote["files"]
    return bundle(
        {
            "quote": evidence.read(files["attest"]),
            "signature": evidence.read(files["signature"]),
            "pcrs": pcrs(evidence, sample, quote),
            **more,
        }
    )


def enrolled(sample: Sample) -> TrustAnchors:
    return TrustAnchors.none().adding(sample.read("ak_public"), name="enrolled key")


def judge(
    raw: bytes, anchors: TrustAnchors, now: datetime, collateral: Collateral | None = None, policy: str = ""
) -> Claims:
    chosen = Policy.parse(f"version = 1\n[tpm]\n{policy}", [VERIFIER]) if policy else AuthenticityOnly()
    verifier = Verifier(tees=[VERIFIER], anchors=anchors, policy=chosen)
    return verifier.verify(raw, collateral=collateral or Collateral.none(), binding=AnyBinding(), now=now)


@pytest.mark.parametrize(("sample", "quote"), QUOTES, ids=IDS)
def test_quote_gives_the_fields_of_the_manifest(
    evidence: Evidence, sample: Sample, quote: dict[str, Any]
) -> None:
    claims = judge(evidence_of(evidence, sample, quote), enrolled(sample), sample.time)
    read, expected = claims.evidence, quote["fields"]
    assert isinstance(read, TpmQuote)
    assert read.qualified_signer.hex() == expected["qualified_signer"]
    assert read.extra_data.hex() == expected["extra_data"]
    assert (read.clock, read.reset_count) == (expected["clock"], expected["reset_count"])
    assert (read.restart_count, int(read.safe)) == (expected["restart_count"], expected["safe"])
    assert hex(read.firmware_version) == expected["firmware_version"]
    assert [[read.bank.value, list(read.selection)]] == expected["pcr_selection"]
    assert read.pcr_digest.hex() == expected["pcr_digest"]
    assert (hex(read.signature.scheme), read.signature.algorithm) == (
        quote["signature_scheme"],
        quote["hash_alg"],
    )


@pytest.mark.parametrize(("sample", "quote"), QUOTES, ids=IDS)
def test_a_key_that_merely_exists_is_not_trusted(
    evidence: Evidence, sample: Sample, quote: dict[str, Any]
) -> None:
    """The roots of vendors say nothing about a key without certificate, and collateral is no anchor."""
    given = Collateral.from_pem(sample.read("ak_public"))
    with pytest.raises(CollateralMissing) as refused:
        judge(evidence_of(evidence, sample, quote), TrustAnchors.vendor(), sample.time, given)
    assert refused.value.check.name == "tpm.ak"


@pytest.mark.parametrize("index", range(3))
def test_event_log_explains_the_registers_of_firmware_and_boot(evidence: Evidence, index: int) -> None:
    sample = evidence.sample(GCE)
    log = Collateral(documents=(Document(Kind.EVENT_LOG, sample.read("event_log")),))
    raw = evidence_of(evidence, sample, sample.expected["quotes"][index])
    detail = judge(raw, enrolled(sample), sample.time, log).detail
    assert isinstance(detail, TpmDetail)
    assert detail.replayed >= set(range(8))


def test_certificate_leads_to_the_pinned_root_of_google(evidence: Evidence) -> None:
    sample = evidence.sample(GCE)
    between = Collateral(certificates=(evidence.read("roots/google_tpm_ek_intermediate_2.crt"),))
    raw = evidence_of(
        evidence, sample, sample.expected["quotes"][1], certificate=sample.read("ak_certificate")
    )
    claims = judge(raw, TrustAnchors.vendor(), sample.time, between)
    assert claims.root.name == "Google TPM EK Root 1"
    with pytest.raises(EvidenceRejected) as refused:
        judge(raw, TrustAnchors.none(), sample.time, between)
    assert refused.value.check.name == "tpm.chain.root"
    with pytest.raises(EvidenceRejected) as expired:
        judge(raw, TrustAnchors.vendor(), datetime(2019, 1, 1, tzinfo=UTC), between)
    assert expired.value.check.name == "tpm.chain.not_before"


@pytest.mark.parametrize(("sample", "quote"), QUOTES, ids=IDS)
def test_every_byte_flipped_once_is_refused(
    evidence: Evidence, sample: Sample, quote: dict[str, Any]
) -> None:
    raw = evidence_of(evidence, sample, quote)
    verifier = Verifier(tees=[VERIFIER], anchors=enrolled(sample), policy=AuthenticityOnly(), cache=Cache())
    accepted = []
    for at in range(len(raw)):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << at % 8
        try:
            verifier.verify(
                bytes(flipped), collateral=Collateral.none(), binding=AnyBinding(), now=sample.time
            )
            accepted.append(at)
        except EnarxError:
            continue
    name = b"application/octet-stream"
    envelope = [
        at
        for start in range(len(raw))
        if raw.startswith(name, start)
        for at in range(start, start + len(name))
    ]
    assert set(accepted) <= set(envelope), "only the media types, which are hints, may change"
