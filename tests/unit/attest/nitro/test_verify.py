"""Each check of a Nitro document fails alone: right in all but one thing, signed under a root of ours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from tests.forge.nitro import NONCE, PCRS, Case, chain
from tests.forge.pki import NOW, ec_key

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Claims,
    Collateral,
    CollateralMissing,
    EvidenceRejected,
    MalformedEvidence,
    Policy,
    PolicyDenied,
    PolicyError,
    Revocation,
    Tee,
    Verifier,
)
from enarx.attest.nitro import VERIFIER
from enarx.tcb.errors import EnarxError


def judge(
    case: Case,
    *,
    now: datetime = NOW,
    binding: bytes | AnyBinding = NONCE,
    policy: Policy | AuthenticityOnly | None = None,
) -> Claims:
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=policy or AuthenticityOnly())
    return verifier.verify(case.raw, collateral=Collateral.none(), binding=binding, now=now)


def test_a_healthy_document_says_what_was_put_in() -> None:
    for case in (Case(), Case(tag=18)):
        claims = judge(case)
        assert claims.tee is Tee.NITRO
        assert claims.bound
        assert claims.measurement == PCRS[0]
        assert claims.measurements["pcr4"] == PCRS[4]
        assert claims.signer == PCRS[8]
        assert claims.revocation is Revocation.NOT_PUBLISHED
        assert not claims.debug
        assert not claims.root.is_vendor


def bundle(*order: int) -> Case:
    certs = chain()
    return Case(payload={"cabundle": [certs[index].der for index in order]})


def at(moment: datetime) -> Case:
    return Case(payload={"timestamp": int(moment.timestamp() * 1000)})


REJECTED: dict[str, tuple[str, Callable[[], Case]]] = {
    "ES256 announced": ("nitro.algorithm", lambda: Case(header={1: -7})),
    "from the future": ("nitro.timestamp", lambda: at(NOW + timedelta(seconds=61))),
    "look-alike root": (
        "nitro.chain.root",
        lambda: Case(trusted=chain(root={"key": ec_key("another-root")})[0].der),
    ),
    "intermediate of another key": (
        "nitro.chain.signature",
        lambda: Case(certs=chain(zonal={"signer": ec_key("another")})),
    ),
    "leaf expired when it was made": (
        "nitro.chain.not_after",
        lambda: Case(certs=chain(leaf={"not_after": NOW - timedelta(1 / 48)})),
    ),
    "leaf not yet valid": ("nitro.chain.not_before", lambda: at(NOW - timedelta(hours=2))),
    "leaf is a CA": (
        "nitro.chain.ca",
        lambda: Case(certs=chain(leaf={"ca": True, "crl_sign": True}, zonal={"path_length": None})),
    ),
    "intermediate is no CA": (
        "nitro.chain.ca",
        lambda: Case(certs=chain(zonal={"ca": False, "path_length": None})),
    ),
    "intermediate without constraints": (
        "nitro.chain.ca",
        lambda: Case(certs=chain(zonal={"ca": None, "path_length": None})),
    ),
    "intermediate may not sign": (
        "nitro.chain.key_usage",
        lambda: Case(certs=chain(zonal={"cert_sign": False}, root={})),
    ),
    "path too long": ("nitro.chain.path_length", lambda: Case(certs=chain(root={"path_length": 0}))),
    "critical extension": (
        "nitro.chain.critical",
        lambda: Case(certs=chain(leaf={"extensions": [("1.2.3.4", True, b"\x05\x00")]})),
    ),
    "bundle reversed": ("nitro.cabundle", lambda: bundle(1, 0)),
    "root left out of the bundle": ("nitro.cabundle", lambda: bundle(1)),
    "a certificate too many": ("nitro.cabundle", lambda: bundle(0, 0, 1)),
    "SHA-256 in the chain": (
        "nitro.chain.algorithm",
        lambda: Case(certs=chain(zonal={"digest": hashes.SHA256()})),
    ),
    "leaf that does not sign": ("nitro.certificate.usage", lambda: Case(certs=chain(leaf={"ca": None}))),
    "leaf of another curve": (
        "nitro.certificate.key",
        lambda: Case(certs=chain(leaf={"key": ec_key("p256", ec.SECP256R1)})),
    ),
    "signed by another key": ("nitro.signature", lambda: Case(key=ec_key("another"))),
}


@pytest.mark.parametrize("what", REJECTED)
def test_each_check_fails_alone(what: str) -> None:
    check, make = REJECTED[what]
    with pytest.raises(EvidenceRejected) as refused:
        judge(make())
    assert refused.value.check.name == check


def test_a_missing_intermediate_is_missing() -> None:
    with pytest.raises(CollateralMissing) as refused:
        judge(bundle(0))
    assert refused.value.check.name == "nitro.chain.issuer"


@pytest.mark.parametrize("binding", [b"", NONCE[:-1], NONCE + b"\x00", bytes(len(NONCE))])
def test_another_challenge_is_refused(binding: bytes) -> None:
    with pytest.raises(EvidenceRejected) as refused:
        judge(Case(), binding=binding)
    assert refused.value.check.name == "binding.report_data"


def test_user_data_does_not_stand_in_for_a_nonce_that_is_absent() -> None:
    for absent in (None, ...):
        with pytest.raises(EvidenceRejected) as refused:
            judge(Case(payload={"nonce": absent, "user_data": NONCE}))
        assert refused.value.check.name == "binding.report_data"


def test_an_empty_challenge_binds_nothing_even_where_the_nonce_is_absent() -> None:
    with pytest.raises(EvidenceRejected) as refused:
        judge(Case(payload={"nonce": None}), binding=b"")
    assert refused.value.check.name == "binding.report_data"


MALFORMED: dict[str, Case] = {
    "no algorithm": Case(header={}),
    "algorithm that is text": Case(header={1: "ES384"}),
    "further protected header": Case(header={1: -35, 2: [1]}),
    "unprotected header": Case(unprotected={1: -35}),
    "signature in DER": Case(der_signature=True),
    "signature too short": Case(key=ec_key("p256", ec.SECP256R1)),
    "COSE_Mac0": Case(tag=17),
    "digest": Case(payload={"digest": "SHA256"}),
    "no PCRs": Case(payload={"pcrs": {}}),
    "PCR32": Case(payload={"pcrs": {**PCRS, 32: bytes(48)}}),
    "PCR of true": Case(payload={"pcrs": {0: PCRS[0], True: PCRS[1], 2: PCRS[2]}}),
    "PCR of 47 bytes": Case(payload={"pcrs": {**PCRS, 4: bytes(47)}}),
    "no PCR2": Case(payload={"pcrs": {0: PCRS[0], 1: PCRS[1]}}),
    "time of zero": Case(payload={"timestamp": 0}),
    "time past every calendar": Case(payload={"timestamp": 2**63}),
    "time that is a float": Case(payload={"timestamp": 1.0e12}),
    "no module": Case(payload={"module_id": ""}),
    "unknown field": Case(payload={"extra": 1}),
    "field left out": Case(payload={"cabundle": ...}),
    "null certificate": Case(payload={"certificate": None}),
    "empty bundle": Case(payload={"cabundle": []}),
    "long certificate": Case(payload={"certificate": bytes(1025)}),
    "long user data": Case(payload={"user_data": bytes(1025)}),
    "text for a nonce": Case(payload={"nonce": "nonce"}),
    "empty public key": Case(payload={"public_key": b""}),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_not_in_form_is_malformed(what: str) -> None:
    with pytest.raises(MalformedEvidence):
        VERIFIER.parse(MALFORMED[what].raw)


def test_cbor_is_read_strictly() -> None:
    """A9: a key twice, lengths left open, bytes behind, and depth."""
    raw = Case().raw
    twice = b"\xa2\x01\x38\x22\x01\x38\x22"
    open_array = b"\x9f" + raw[1:] + b"\xff"
    parts = [twice, {}, Case().body, bytes(96)]
    for wrong in (raw + b"\x00", open_array, cbor2.dumps(parts), b"\x81" * 5000, b""):
        with pytest.raises(MalformedEvidence):
            VERIFIER.parse(wrong)


BASE = 'version = 1\n[nitro]\nvendor_root = "any"\n'


def section(text: str, case: Case | None = None, now: datetime = NOW) -> list[str]:
    """The policy checks that fail."""
    measured = "" if "measurement" in text else 'measurement = "any"\n'
    try:
        judge(case or Case(), policy=Policy.parse(BASE + measured + text, [VERIFIER]), now=now)
    except PolicyDenied as refused:
        return [check.name for check in refused.failures]
    return []


def written(value: bytes) -> str:
    return f'["{value.hex()}"]'


KEYS = [
    ("measurement", written(PCRS[0]), written(PCRS[1]), "measurement"),
    ("user_data", written(b"data"), written(b"dat"), "user_data"),
    ("public_key", written(b"key"), written(b"keys"), "public_key"),
    ("module_id", '["i-0-enc0"]', '["i-0-enc1"]', "module_id"),
    ("pcrs", "{ pcr3 = " + written(PCRS[3]) + " }", "{ pcr3 = " + written(PCRS[4]) + " }", "pcrs.pcr3"),
    ("pcrs", "{ pcr4 = " + written(PCRS[4]) + " }", "{ pcr31 = " + written(bytes(48)) + " }", "pcrs.pcr31"),
    ("debug", "false", "true", "debug"),
]


@pytest.mark.parametrize(("name", "met", "broken", "check"), KEYS)
def test_each_policy_key_decides_alone(name: str, met: str, broken: str, check: str) -> None:
    assert section(f"{name} = {met}") == []
    assert section(f"{name} = {broken}") == [f"policy.nitro.{check}"]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_zero_register_of_the_image_is_debugging(index: int) -> None:
    assert section("", Case(payload={"pcrs": {**PCRS, index: bytes(48)}})) == ["policy.nitro.debug"]


def test_age_is_limited_by_default_and_by_the_key() -> None:
    assert section("", now=NOW + timedelta(seconds=300)) == []
    assert section("", now=NOW + timedelta(seconds=301)) == ["policy.nitro.max_age_s"]
    assert section("max_age_s = 10", now=NOW + timedelta(seconds=11)) == ["policy.nitro.max_age_s"]
    assert section('max_age_s = "any"', now=NOW + timedelta(days=900)) == []


@pytest.mark.parametrize(
    "text", ["pcrs = {}", "pcrs = { pcr32 = [] }", "pcrs = 1", "max_age_s = -1", "max_age_s = true"]
)
def test_a_wrong_key_is_an_error_of_the_policy(text: str) -> None:
    with pytest.raises(PolicyError):
        section(text)


def test_no_signed_byte_can_change() -> None:
    case = Case()
    raw, verifier = case.raw, Verifier(tees=[VERIFIER], anchors=case.anchors, policy=AuthenticityOnly())
    for spot in range(0, len(raw), 7):
        flipped = bytearray(raw)
        flipped[spot] ^= 1 << spot % 8
        with pytest.raises(EnarxError):
            verifier.verify(bytes(flipped), collateral=Collateral.none(), binding=NONCE, now=NOW)
