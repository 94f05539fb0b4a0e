"""Results as tokens: what they say, who may have signed them, and for whom they count."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import timedelta

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from tests.evidence import Evidence
from tests.forge.pki import NOW, ec_key
from tests.forge.snp import MEASUREMENT, REPORT_DATA, Case, Report

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Claims,
    EvidenceRejected,
    Policy,
    TrustAnchors,
    Verifier,
)
from enarx.attest.ear import (
    PROFILE,
    Ear,
    SigningKey,
    Status,
    TokenRejected,
    ear_of,
    ear_of_refusal,
    to_cwt,
    to_jwt,
    verify_cwt,
    verify_jwt,
)
from enarx.attest.errors import MalformedEvidence
from enarx.attest.snp import VERIFIER
from enarx.tcb.errors import EnarxError

KEYS: list[SigningKey] = [ec_key("ear", ec.SECP256R1), ec_key("ear"), ed25519.Ed25519PrivateKey.generate()]
MINUTE = timedelta(minutes=1)
POLICY = (
    f'version = 1\n[snp]\nmeasurement = ["{MEASUREMENT.hex()}"]\n'
    'revocation = "any"\nvendor_root = "any"\ndebug = "any"'
)


def judge(case: Case, policy: str | None = POLICY, binding: bytes | AnyBinding = REPORT_DATA) -> Claims:
    rules = Policy.parse(policy, [VERIFIER]) if policy else AuthenticityOnly()
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=rules)
    return verifier.verify(case.report.raw, collateral=case.collateral, binding=binding, now=NOW)


EAR = ear_of(judge(Case()), now=NOW)


def test_a_root_that_is_not_a_vendors_is_never_affirming() -> None:
    assert EAR.appraisal.vector["hardware"] == 97
    assert EAR.appraisal.status is Status.CONTRAINDICATED


@pytest.mark.evidence
def test_real_hardware_that_the_policy_accepts_is_affirming(evidence: Evidence) -> None:
    from tests.unit.attest.snp.test_samples import collateral

    sample = evidence.sample("snp/genoa-v5-oak")
    measurement, data = (
        sample.expected["fields"]["measurement"],
        bytes.fromhex(sample.expected["fields"]["report_data"]),
    )
    policy = Policy.parse(
        f'version = 1\n[snp]\nmeasurement = ["{measurement}"]\nrevocation = "any"', [VERIFIER]
    )
    for rules, binding, status in (
        (policy, data, Status.AFFIRMING),
        (policy, AnyBinding(), Status.WARNING),
        (AuthenticityOnly(), data, Status.WARNING),
        (
            Policy.parse('version = 1\n[snp]\nmeasurement = "any"\nrevocation = "any"', [VERIFIER]),
            data,
            Status.WARNING,
        ),
    ):
        verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=rules)
        claims = verifier.verify(
            sample.read("report"), collateral=collateral(sample), binding=binding, now=sample.time
        )
        assert ear_of(claims, now=NOW).appraisal.status is status


def test_a_keep_that_can_be_debugged_is_contraindicated() -> None:
    ear = ear_of(judge(Case(report=Report().but(policy=0xB001F))), now=NOW)
    assert ear.appraisal.vector["runtime-opaque"] == 96
    assert ear.appraisal.vector["configuration"] == 96


def test_refusals_are_contraindicated() -> None:
    with pytest.raises(EvidenceRejected) as forged:
        judge(Case(report=Report(key=ec_key("stranger"))))
    assert set(ear_of_refusal(forged.value, "snp", now=NOW).appraisal.vector.values()) == {99}
    with pytest.raises(EvidenceRejected) as denied:
        judge(Case(report=Report().but(measurement=b"\x01" * 48)))
    ear = ear_of_refusal(denied.value, "snp", now=NOW)
    assert (ear.appraisal.status, ear.appraisal.vector["executables"]) == (Status.CONTRAINDICATED, 33)


@pytest.mark.parametrize("key", KEYS, ids=["ES256", "ES384", "EdDSA"])
def test_what_is_signed_is_read(key: SigningKey) -> None:
    for ear in (
        EAR,
        ear_of(judge(Case(), binding=AnyBinding()), now=NOW),
        ear_of(judge(Case(), None), now=NOW),
    ):
        jwt = verify_jwt(to_jwt(ear, key), key.public_key(), now=NOW, max_age=MINUTE, nonce=ear.nonce)
        cwt = verify_cwt(to_cwt(ear, key), key.public_key(), now=NOW, max_age=MINUTE, nonce=ear.nonce)
        assert jwt == cwt == ear


def test_the_json_form_is_that_of_the_draft() -> None:
    body = json.loads(base64.urlsafe_b64decode(to_jwt(EAR, KEYS[0]).split(".")[1] + "=="))
    about = body["submods"]["snp"]
    assert body["eat_profile"] == PROFILE
    assert body["iat"] == int(NOW.timestamp())
    assert set(body["ear.verifier-id"]) == {"developer", "build"}
    assert about["ear.status"] == "contraindicated"
    assert about["ear.trustworthiness-vector"]["executables"] == 3
    assert about["enarx.claims"]["measurement"] == MEASUREMENT.hex()


def test_the_cbor_form_is_that_of_the_draft() -> None:
    outer = cbor2.loads(to_cwt(EAR, KEYS[0]))
    body = cbor2.loads(outer.value[2])
    assert outer.tag == 18
    assert cbor2.loads(outer.value[0]) == {1: -7}
    assert set(body) == {6, 10, 265, 266, 1004}
    assert body[10] == REPORT_DATA
    assert set(body[1004]) == {0, 1}
    assert body[266]["snp"][1000] == 96
    assert body[266]["snp"][1001] == {0: 2, 1: 2, 2: 3, 4: 97, 5: 2}


Read = Callable[..., Ear]


@pytest.mark.parametrize(("write", "read"), [(to_jwt, verify_jwt), (to_cwt, verify_cwt)], ids=["JWT", "CWT"])
def test_time_challenge_and_key_are_checked(write: Callable[..., object], read: Read) -> None:
    token, key = write(EAR, KEYS[0]), KEYS[0].public_key()
    read(token, key, now=NOW + MINUTE, max_age=MINUTE, nonce=REPORT_DATA)
    for wrong in (
        {"now": NOW + 2 * MINUTE},
        {"now": NOW - MINUTE},
        {"nonce": bytes(64)},
        {"nonce": b""},
        {"key": ec_key("other", ec.SECP256R1).public_key()},
        {"key": KEYS[1].public_key()},
        {"key": KEYS[2].public_key()},
    ):
        arguments = {"key": key, "now": NOW, "max_age": MINUTE, "nonce": REPORT_DATA, **wrong}
        with pytest.raises(TokenRejected):
            read(token, arguments.pop("key"), **arguments)


def test_every_byte_changed_is_refused() -> None:
    key = KEYS[2].public_key()
    jwt, cwt = to_jwt(EAR, KEYS[2]), to_cwt(EAR, KEYS[2])
    for at in range(0, len(jwt), 5):
        changed = jwt[:at] + ("A" if jwt[at] != "A" else "B") + jwt[at + 1 :]
        with pytest.raises(EnarxError):
            verify_jwt(changed, key, now=NOW, max_age=MINUTE, nonce=REPORT_DATA)
    for at in range(0, len(cwt), 5):
        other = bytearray(cwt)
        other[at] ^= 1
        with pytest.raises(EnarxError):
            verify_cwt(bytes(other), key, now=NOW, max_age=MINUTE, nonce=REPORT_DATA)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "head",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES384"},
        {"alg": "ES256", "crit": ["b64"], "b64": False},
        {"typ": "JWT"},
    ],
)
def test_the_token_does_not_choose_its_algorithm(head: dict[str, object]) -> None:
    """A18: nor does a key that it brings along count."""
    _, body, signature = to_jwt(EAR, KEYS[0]).split(".")
    with pytest.raises(TokenRejected):
        verify_jwt(
            f"{part(head)}.{body}.{signature}", KEYS[0].public_key(), now=NOW, max_age=MINUTE, nonce=None
        )


@pytest.mark.parametrize(
    "token", ["", "..", "a.b", "a.b.c.d", "e30=.e30.e30", part([]) + ".e30.e30", "!.e30.e30"]
)
def test_what_is_no_token_is_malformed(token: str) -> None:
    with pytest.raises(MalformedEvidence):
        verify_jwt(token, KEYS[0].public_key(), now=NOW, max_age=MINUTE, nonce=None)


@pytest.mark.parametrize(
    "token", [b"", b"\x00", cbor2.dumps(cbor2.CBORTag(18, [b"", {}, b""])), to_cwt(EAR, KEYS[0]) + b"\x00"]
)
def test_what_is_no_cbor_token_is_malformed(token: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        verify_cwt(token, KEYS[0].public_key(), now=NOW, max_age=MINUTE, nonce=None)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (0, Status.NONE),
        (1, Status.NONE),
        (-1, Status.NONE),
        (2, Status.AFFIRMING),
        (31, Status.AFFIRMING),
        (32, Status.WARNING),
        (95, Status.WARNING),
        (96, Status.CONTRAINDICATED),
        (-2, Status.AFFIRMING),
        (-96, Status.CONTRAINDICATED),
    ],
)
def test_tiers(number: int, status: Status) -> None:
    assert Status.of(number) is status
