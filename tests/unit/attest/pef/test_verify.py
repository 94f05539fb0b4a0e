"""Proofs of a secret that was sealed for a machine of PEF: what is accepted, and each check that fails alone."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.forge.launch import DIGESTS, REPORT_DATA, machine_anchors, machine_pem, proof, released, sealed
from tests.forge.pki import NOW, Cert, amd_name, ec_key, rsa_key
from tests.forge.sev import Launch

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
    Revocation,
    Tee,
    TrustAnchors,
    Vendor,
    Verifier,
    cmw,
    launch_proof,
    uncovered,
)
from enarx.attest.launch import PreBoot, parse_launch
from enarx.attest.pef import (
    OAEP,
    VERIFIER,
    PefDetail,
    SealedLaunch,
    parse_digests,
    parse_esm_blob,
    parse_sealed,
    write_sealed,
)
from enarx.attest.registry import BUILTIN
from enarx.attest.sev import write_session
from enarx.tcb.errors import Malformed
from enarx.tcb.session import LAUNCH_GUID

MACHINE = sealed().machine_sha256
AUTHORITY = Cert(name=amd_name("an authority"), key=rsa_key("machine")).der
"""A certificate of the machine's own key: what may certify keys is not named as a machine."""
ANY = 'measurement = "any"\nvendor_root = "any"\n'


def judge(
    *,
    raw: bytes | None = None,
    launch: PreBoot | None = None,
    anchors: TrustAnchors | None = None,
    policy: str = "",
    binding: bytes | AnyBinding = REPORT_DATA,
) -> Claims:
    chosen = Policy.parse(f"version = 1\n{policy}", [VERIFIER]) if policy else AuthenticityOnly()
    return Verifier(tees=[VERIFIER], anchors=anchors or machine_anchors(), policy=chosen).verify(
        proof(sealed().secret) if raw is None else raw,
        collateral=Collateral.none(),
        binding=binding,
        now=NOW,
        launch=launch or sealed(),
    )


def test_a_proof_that_is_right_is_accepted() -> None:
    measurement = f'measurement = ["{DIGESTS.measurement.hex()}"]'
    claims = judge(policy=f'[pef]\n{measurement}\nvendor_root = "any"\nmachines = ["{MACHINE.hex()}"]')
    assert (claims.tee, claims.measurement, claims.bound) == (Tee.PEF, DIGESTS.measurement, True)
    assert (claims.report_data, claims.debug, claims.chip_id) == (REPORT_DATA, False, MACHINE)
    assert claims.measurements["kernel"] == DIGESTS.kernel
    assert claims.revocation is Revocation.NOT_PUBLISHED
    assert not claims.root.is_vendor
    assert claims.detail == PefDetail(digests=DIGESTS)
    assert uncovered(claims.evidence.fields(), claims.checks) == ()


def test_it_comes_in_the_envelope_of_the_keep() -> None:
    record = cmw.Record(launch_proof.MEDIA_TYPE, proof(sealed().secret))
    assert judge(raw=cmw.to_cbor(record)).bound


def test_no_other_kind_takes_it() -> None:
    assert [name for name, verifier in BUILTIN.items() if verifier.recognise(proof())] == ["pef"]


def test_blob_and_session_are_of_each_other() -> None:
    blob, launch = SealedLaunch.seal(DIGESTS, machine=machine_pem(), random=os.urandom)
    parsed = parse_esm_blob(blob)
    (box,) = parsed.lockboxes
    assert box.fingerprint == sha256(machine_pem()).digest()
    key = rsa_key("machine").decrypt(box.encrypted_key, OAEP)
    assert parse_digests(parsed.digests.open(key)) == launch.digests == DIGESTS
    assert {name: part.open(key) for name, part in parsed.files.items()} == {LAUNCH_GUID: launch.secret}


@pytest.mark.parametrize("launch", [None, "sev"])
def test_without_the_session_nothing_can_be_said(launch: str | None) -> None:
    verifier = Verifier(tees=[VERIFIER], anchors=machine_anchors(), policy=AuthenticityOnly())
    given = released(Launch()) if launch else None
    with pytest.raises(CollateralMissing) as missing:
        verifier.verify(proof(), collateral=Collateral.none(), binding=REPORT_DATA, now=NOW, launch=given)
    assert missing.value.check.name == "pef.session"


@pytest.mark.parametrize(
    ("raw", "anchors", "name"),
    [
        (proof(), None, "launch.proof"),
        (proof(sealed("stranger").secret), None, "launch.proof"),
        (proof(sealed().secret, bytes(64)), None, "binding.report_data"),
        (None, machine_anchors("stranger"), "pef.machine"),
        (None, TrustAnchors.none().adding(machine_pem(), name="AMD's", vendor=Vendor.AMD), "pef.machine"),
        (None, TrustAnchors.vendor(), "pef.machine"),
        (None, TrustAnchors.none().adding(AUTHORITY, name="authority"), "pef.machine"),
    ],
)
def test_each_check_refuses_alone(raw: bytes | None, anchors: TrustAnchors | None, name: str) -> None:
    with pytest.raises(EvidenceRejected) as refused:
        judge(raw=raw, anchors=anchors)
    assert [check.name for check in refused.value.checks if check.outcome.value == "failed"] == [name]


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (f'measurement = ["{"ab" * 48}"]\nvendor_root = "any"', "policy.pef.measurement"),
        ('measurement = "any"', "policy.pef.vendor_root"),
        (f"{ANY}debug = true", "policy.pef.debug"),
        (f'{ANY}revocation = ["checked"]', "policy.pef.revocation"),
        (f'{ANY}machines = ["{"ab" * 32}"]', "policy.pef.machines"),
        (f'{ANY}denied_machines = ["{MACHINE.hex()}"]', "policy.pef.denied_machines"),
    ],
)
def test_each_rule_of_a_policy_decides_alone(section: str, name: str) -> None:
    with pytest.raises(PolicyDenied) as denied:
        judge(policy=f"[pef]\n{section}")
    assert [check.name for check in denied.value.failures] == [name]


def test_a_section_of_another_kind_does_not_accept_it() -> None:
    tees = [VERIFIER, BUILTIN["sev"]]
    policy = Policy.parse(f"version = 1\n[sev]\n{ANY}", tees)
    with pytest.raises(PolicyDenied) as denied:
        Verifier(tees=tees, anchors=machine_anchors(), policy=policy).verify(
            proof(sealed().secret),
            collateral=Collateral.none(),
            binding=REPORT_DATA,
            now=NOW,
            launch=sealed(),
        )
    assert [check.name for check in denied.value.failures] == ["policy.tee"]


def test_the_file_of_a_session_is_written_and_read_again() -> None:
    text = write_sealed(sealed()).encode()
    assert parse_sealed(text) == parse_launch(text) == sealed()
    session = released(Launch())
    assert parse_launch(write_session(session).encode()) == session


def test_the_secret_does_not_show_itself() -> None:
    assert sealed().secret.hex() not in repr(sealed())
    assert repr(sealed().secret) not in repr(sealed())


@pytest.mark.parametrize(
    "change",
    [
        {"secret": bytes(31)},
        {"secret": bytes(33)},
        {"digests": replace(DIGESTS, rtas=bytes(63))},
        {"digests": replace(DIGESTS, kernel=bytes(65))},
        {"digests": replace(DIGESTS, kernel_size=0)},
        {"digests": replace(DIGESTS, kernel_size=1 << 32)},
    ],
)
def test_a_session_of_wrong_sizes_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Malformed, match="pef session"):
        replace(sealed(), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"secret"', '"secrets"'),
        (sealed().secret.hex(), "xx"),
        ('"kernel_size": 8', '"kernel_size": "8"'),
        ('"kernel_size": 8', '"kernel_size": true'),
        ('"kernel_size": 8', '"kernel_size": 8, "more": 1'),
        ('"machine"', '"machine": "", "machine"'),
        ("{", "["),
    ],
    ids=["name", "value", "text", "truth", "surplus", "twice", "list"],
)
def test_another_form_of_session_is_malformed_and_shows_no_secret(old: str, new: str) -> None:
    text = json.dumps(json.loads(write_sealed(sealed())))
    assert old in text
    with pytest.raises(Malformed, match="pef session") as refused:
        parse_sealed(text.replace(old, new, 1).encode())
    assert sealed().secret.hex() not in str(refused.value)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        machine_pem()[:-40],
        ec_key("no rsa").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ],
    ids=["nothing", "cut off", "another algorithm"],
)
def test_what_is_no_key_of_a_machine_is_refused(pem: bytes) -> None:
    with pytest.raises(MalformedEvidence, match="machine key"):
        SealedLaunch.seal(DIGESTS, machine=pem, random=os.urandom)
