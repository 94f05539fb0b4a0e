"""Each check of Azure's evidence fails alone: right in all but one thing, made by keys of ours."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.forge import dcap, snp, tpm
from tests.forge.azure import (
    CONFIGURATION,
    NONCE,
    Case,
    ak_certificate,
    by_tools,
    judge,
    jwk,
    name,
    tdx,
    vtpm_root,
)
from tests.forge.pki import EPOCH, NOW, Cert, ec_key, rsa_key

from enarx.attest import (
    AuthenticityOnly,
    Cache,
    Collateral,
    CollateralMissing,
    Document,
    EvidenceRejected,
    Kind,
    Tee,
    TrustAnchors,
    Verifier,
    uncovered,
)
from enarx.attest.azure import VERIFIER, AzureSnpDetail, AzureTdxDetail
from enarx.attest.registry import BUILTIN
from enarx.tcb.errors import EnarxError

THEIRS = rsa_key("ak of an attacker")
LOG = (0).to_bytes(4, "little") + (8).to_bytes(4, "little") + b"\x22" * 20 + bytes(4)
"""One event, which extends PCR0 of the bank of SHA-1."""


HEALTHY = {
    "snp": Case(),
    "tdx 1.0": tdx(),
    "tdx 1.5": tdx(5, body_type=3),
    "hash of 48 bytes": Case(header={"hash_type": 2}),
    "hash of 64 bytes": Case(header={"hash_type": 3}),
    "paravisor of before user data": Case(runtime={"user-data": ...}, header={"version": 1}),
    "certificate of the key": Case(certificate=ak_certificate()),
    "certificate from collateral": Case(collateral_certificates=(ak_certificate(),)),
    "certificate with what its index has behind it": Case(
        items={"tpm-certificate": ak_certificate().der + b"\xff" * 40}
    ),
    "certificate in collateral that is not yet valid": Case(
        collateral_certificates=(ak_certificate(not_before=NOW.replace(year=2026)),)
    ),
}


@pytest.mark.parametrize("what", HEALTHY)
def test_a_healthy_machine_says_what_was_put_in(what: str) -> None:
    case = HEALTHY[what]
    claims = judge(case)
    assert claims.tee is (Tee.AZURE_SNP if case.snp else Tee.AZURE_TDX)
    assert claims.bound
    assert claims.report_data == NONCE
    assert claims.measurement == (snp.MEASUREMENT if case.snp else dcap.MRTD)
    assert claims.measurements["pcr7"] == tpm.PCRS[7]
    assert claims.root.name == "test root"
    assert isinstance(claims.detail, AzureSnpDetail if case.snp else AzureTdxDetail)
    assert claims.detail.ak_certified == (what.startswith("certificate") and "not yet" not in what)
    assert claims.detail.runtime.vm_unique_id == CONFIGURATION["vmUniqueId"]


def test_fields_are_named_as_those_of_what_is_inside() -> None:
    for case, own in ((Case(), "policy.debug"), (tdx(), "td_attributes.debug")):
        fields = VERIFIER.parse(case.raw).fields()
        assert fields["report_data"] == NONCE
        assert fields["hardware_report_data"] != NONCE
        assert {own, "vtpm.pcrs.pcr0", "runtime.vm-configuration.secure-boot", "hcl.version"} <= set(fields)
    assert "hardware_report_data" not in uncovered(fields, judge(tdx()).checks)


def test_no_other_verifier_takes_it_for_its_own() -> None:
    for data in (Case().raw, tdx().raw, Case().hcl_report, by_tools(Case(), "hex")):
        assert [kind for kind, verifier in BUILTIN.items() if verifier.recognise(data)] == ["azure"]


REJECTED = {
    "hardware of another key": (
        "snp.signature",
        Case(snp=snp.Case(report=snp.Report(key=ec_key("another")))),
    ),
    "quote of another key": ("dcap.signature", tdx(signer=ec_key("another", ec.SECP256R1))),
    "report that a guest asked for": (
        "azure.vmpl",
        Case(snp=snp.Case(report=snp.Report().but(vmpl=1))),
    ),
    "configuration replaced": (
        "azure.runtime_data",
        Case(swapped={"vm-configuration": {**CONFIGURATION, "console-enabled": True}}),
    ),
    "user data replaced": ("azure.runtime_data", Case(swapped={"user-data": "00" * 64})),
    "hash of other runtime data": ("azure.runtime_data", Case(report_data=b"\x11" * 32 + bytes(32))),
    "something behind the hash": (
        "azure.runtime_data",
        Case(report_data=hashlib.sha256(Case().vouched).digest() + bytes(31) + b"\x01"),
    ),
    "other TD configuration": ("azure.td_report", tdx().but(td_report_changes={"at_512": b"\x01"})),
    "other TDX module": ("azure.td_report", tdx().but(td_report_changes={"at_280": b"\x01"})),
    "other register": ("azure.td_report", tdx().but(td_report_changes={"at_911": b"\x01"})),
    "other report data in the TD report": (
        "azure.td_report",
        tdx().but(td_report_changes={"at_128": bytes(64)}),
    ),
    "service TD in the TD report alone": (
        "azure.td_report",
        tdx(5, body_type=3).but(td_report_changes={"at_912": b"\x01"}),
    ),
    "certificate of another key": ("azure.ak_certificate.key", Case(certificate=ak_certificate(THEIRS))),
    "certificate of another root": (
        "azure.ak_certificate.chain.root",
        Case(certificate=ak_certificate(issuer=None)),
    ),
    "certificate signed by another": (
        "azure.ak_certificate.chain.signature",
        Case(certificate=ak_certificate(signer=THEIRS)),
    ),
    "certificate that expired": (
        "azure.ak_certificate.chain.not_after",
        Case(certificate=ak_certificate(not_after=EPOCH.replace(month=6))),
    ),
    "certificate of an authority": (
        "azure.ak_certificate.chain.ca",
        Case(certificate=ak_certificate(ca=True, crl_sign=True)),
    ),
    "certificate that is for nothing": (
        "azure.ak_certificate.usage",
        Case(certificate=ak_certificate(ca=None)),
    ),
    "certificate that was withdrawn": (
        "azure.ak_certificate.crl.revoked",
        Case(certificate=ak_certificate(serial=77), more=Collateral(crls=(vtpm_root().crl(77),))),
    ),
    "quote of another virtual TPM": ("tpm.signature", Case(vtpm=tpm.Case(key=THEIRS))),
    "quote by SHA-1": ("tpm.hash", Case(vtpm=tpm.Case(algorithm=4))),
    "PCR changed": ("tpm.pcr_digest", Case(vtpm=tpm.Case(presented={**tpm.PCRS, 3: bytes(32)}))),
    "PCRs in another order": (
        "tpm.pcr_digest",
        Case(vtpm=tpm.Case(presented=dict(reversed(tpm.PCRS.items())))),
    ),
}


@pytest.mark.parametrize("what", REJECTED)
def test_each_check_fails_alone(what: str) -> None:
    check, case = REJECTED[what]
    with pytest.raises(EvidenceRejected) as refused:
        judge(case)
    assert refused.value.check.name == check


def test_a_key_that_was_put_into_the_virtual_tpm_is_refused_even_when_it_is_certified() -> None:
    """CVE-2025-49707: quote, runtime data and certificate agree, but the hardware never saw this key."""
    attack = Case(
        vtpm=tpm.Case(key=THEIRS), swapped={"keys": [jwk(THEIRS)]}, certificate=ak_certificate(THEIRS)
    )
    with pytest.raises(EvidenceRejected) as refused:
        judge(attack)
    assert refused.value.check.name == "azure.runtime_data"


def test_a_certified_or_enrolled_key_does_not_stand_in_for_that_of_the_hardware() -> None:
    attack = Case(vtpm=tpm.Case(key=THEIRS), collateral_certificates=(ak_certificate(THEIRS),))
    enrolled = attack.anchors.adding(tpm.spki(THEIRS), name="enrolled key")
    for anchors in (attack.anchors, enrolled):
        with pytest.raises(EvidenceRejected) as refused:
            judge(attack, anchors=anchors)
        assert refused.value.check.name == "tpm.signature"


def test_the_report_of_one_machine_with_the_quote_of_another_is_refused() -> None:
    theirs = Case(ak=THEIRS, vtpm=tpm.Case(key=THEIRS))
    judge(theirs)
    with pytest.raises(EvidenceRejected) as refused:
        judge(Case(items={"hcl-report": theirs.hcl_report}))
    assert refused.value.check.name == "tpm.signature"


def test_roots_of_hardware_and_of_keys_do_not_mix() -> None:
    """A12: a root of Azure's keys is none of AMD's, nor the reverse; without a root there is nothing."""
    case = Case(certificate=ak_certificate())
    of_keys = TrustAnchors(tuple(one for one in case.anchors.anchors if "keys" in one.name))
    of_hardware = TrustAnchors(tuple(one for one in case.anchors.anchors if "keys" not in one.name))
    for anchors, check in (
        (of_keys, "snp.chain.root"),
        (TrustAnchors.none(), "snp.chain.root"),
    ):
        with pytest.raises(EvidenceRejected) as refused:
            judge(case, anchors=anchors)
        assert refused.value.check.name == check
    with pytest.raises((EvidenceRejected, CollateralMissing)) as without:
        judge(case, anchors=of_hardware)
    assert without.value.check.name.startswith("azure.ak_certificate.chain.")


@pytest.mark.parametrize("binding", [b"", NONCE[:-1], NONCE + b"\x00", NONCE[::-1], snp.REPORT_DATA])
def test_another_challenge_is_refused(binding: bytes) -> None:
    """A1."""
    with pytest.raises(EvidenceRejected) as refused:
        judge(Case(), binding=binding)
    assert refused.value.check.name == "binding.report_data"


@pytest.mark.parametrize("make", [Case, tdx])
def test_an_event_log_is_of_the_virtual_tpm_alone(make: Any) -> None:
    log = Collateral(documents=(Document(Kind.EVENT_LOG, LOG),))
    values = tpm.Case(banks=((4, b"\x01\x00\x00"),), pcrs={0: b"\x11" * 20})
    case = make().but(vtpm=values)
    judge(case)
    with pytest.raises(EvidenceRejected) as refused:
        judge(case.but(more=log))
    assert refused.value.check.name == "tpm.event_log"


@pytest.mark.parametrize("make", [Case, tdx])
def test_no_signed_byte_can_change(make: Any) -> None:
    """Of the collection: all but the envelope's media types, and what no signature is over."""
    case: Case = make()
    parts, collateral = case.parts, case.collateral
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=AuthenticityOnly(), cache=Cache())
    size = int.from_bytes(parts["hcl-report"][8:12], "little")
    of_snp, of_td = range(0x2A0), (0, *range(128, 192), *range(264, 384), *range(512, 912))
    signed = {
        "hcl-report": (*(32 + at for at in (of_snp if case.snp else of_td)), *range(1236, size)),
        "tpm-quote": range(len(parts["tpm-quote"])),
        "tpm-signature": range(len(parts["tpm-signature"])),
        "tpm-pcrs": range(len(parts["tpm-pcrs"])),
        "td-quote": range(48, 632),
    }
    for label, spots in signed.items():
        for at in spots if label in parts else ():
            flipped = bytearray(parts[label])
            flipped[at] ^= 1 << at % 8
            with pytest.raises(EnarxError):
                verifier.verify(
                    tpm.bundle({**parts, label: bytes(flipped)}),
                    collateral=collateral,
                    binding=NONCE,
                    now=NOW,
                )


def test_certificates_of_other_names_are_left_alone() -> None:
    """Collateral is a bag: what is of another machine is not looked at."""
    stranger = Cert(name=name("somebody else"), key=THEIRS, pkcs1=True)
    case = Case(collateral_certificates=(stranger, ak_certificate(THEIRS)))
    claims = judge(case)
    assert isinstance(claims.detail, AzureSnpDetail)
    assert not claims.detail.ak_certified
