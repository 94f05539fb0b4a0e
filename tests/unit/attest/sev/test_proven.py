"""Launches of SEV that answer challenges: the proof binds them to a session, each check fails alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.forge.launch import REPORT_DATA, SECRET, proof, proven, released
from tests.forge.pki import NOW
from tests.forge.sev import DIGEST, Case, Launch

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Claims,
    Collateral,
    CollateralMissing,
    EvidenceRejected,
    Policy,
    Verifier,
    bundle,
    cmw,
    launch_proof,
    uncovered,
)
from enarx.attest.registry import BUILTIN
from enarx.attest.sev import (
    MEDIA_TYPE,
    VERIFIER,
    LaunchSession,
    VerifiedLaunch,
    pack_proven,
    parse_launch,
    parse_session,
    write_session,
)
from enarx.tcb.errors import Malformed

POLICY = f'version = 1\n[sev-es]\nmeasurement = ["{DIGEST.hex()}"]\nvendor_root = "any"\n'


def judge(
    launch: Launch,
    *,
    raw: bytes | None = None,
    session: LaunchSession | None = None,
    binding: bytes | AnyBinding = REPORT_DATA,
) -> Claims:
    verifier = Verifier(tees=[VERIFIER], anchors=launch.case.anchors, policy=Policy.parse(POLICY, [VERIFIER]))
    return verifier.verify(
        proven(launch) if raw is None else raw,
        collateral=Collateral.none(),
        binding=binding,
        now=NOW,
        launch=released(launch) if session is None else session,
    )


def test_a_launch_with_its_proof_is_bound_to_the_session() -> None:
    launch = Launch()
    claims, before = judge(launch), judge(launch, raw=launch.raw, binding=launch.session.binding)
    assert (claims.bound, claims.report_data) == (True, REPORT_DATA)
    for name in ("tee", "measurement", "measurements", "tcb", "debug", "chip_id", "root", "policy_digest"):
        assert getattr(claims, name) == getattr(before, name)
    made = [check.name for check in claims.checks]
    assert set(made) - {check.name for check in before.checks} == {"sev.session.measure", "launch.proof"}
    assert {"report_data", "mac"} <= set(claims.evidence.fields())
    assert not {"report_data", "mac"} & set(uncovered(claims.evidence.fields(), claims.checks))


def test_the_parts_may_be_in_envelopes() -> None:
    raw = Launch().raw
    parts = (
        cmw.to_cbor(cmw.Record(MEDIA_TYPE, raw)),
        cmw.to_cbor(cmw.Record(launch_proof.MEDIA_TYPE, proof())),
    )
    assert pack_proven(*parts) == pack_proven(raw, proof())


@pytest.mark.parametrize("order", [1, -1])
def test_the_files_of_both_are_one_piece_of_evidence(order: int) -> None:
    launch, tees = Launch(), tuple(BUILTIN.values())
    files = (launch.raw, proof())[::order]
    assert not bundle.each_is_evidence(files, tees)
    assert judge(launch, raw=bundle.pack(files, tees)).bound
    assert bundle.each_is_evidence((launch.raw, launch.raw), tees)
    assert bundle.each_is_evidence((proof(), proof()), tees)


OTHER = VerifiedLaunch(measure=bytes(32))


@pytest.mark.parametrize(
    ("launch", "shown", "session", "name"),
    [
        (Launch(), proof(bytes(32)), None, "launch.proof"),
        (Launch(), None, Launch().session.released(OTHER, SECRET), "sev.session.measure"),
        (Launch(digest=bytes(32)), None, None, "sev.measure"),
        (Launch(prepared_for="attacker"), None, None, "sev.session.pdh"),
        (Launch(case=Case(signers={"pdh": "stranger"})), None, None, "sev.pdh.signature"),
        (Launch(), proof(report_data=bytes(64)), None, "binding.report_data"),
    ],
)
def test_each_check_refuses_alone(
    launch: Launch, shown: bytes | None, session: LaunchSession | None, name: str
) -> None:
    with pytest.raises(EvidenceRejected) as refused:
        judge(launch, raw=proven(launch, shown), session=session)
    assert [check.name for check in refused.value.checks if check.outcome.value == "failed"] == [name]


def test_a_proof_of_another_launch_is_refused() -> None:
    """A12: the guest of another session of the same owner answers, on the same platform, with the same digest."""
    other = b"another secret of the same owner".ljust(32)
    with pytest.raises(EvidenceRejected) as refused:
        judge(Launch(), raw=proven(Launch(), proof(other)))
    assert refused.value.check.name == "launch.proof"


def test_a_proof_without_the_secret_cannot_be_judged() -> None:
    launch = Launch()
    with pytest.raises(CollateralMissing) as missing:
        judge(launch, session=launch.session)
    assert missing.value.check.name == "launch.secret"


def test_the_launch_alone_is_no_answer_to_a_challenge() -> None:
    """The host leaves the proof out."""
    launch = Launch()
    with pytest.raises(EvidenceRejected) as refused:
        judge(launch, raw=launch.raw)
    assert refused.value.check.name == "binding.report_data"


def test_the_proof_alone_is_no_evidence_of_sev() -> None:
    with pytest.raises(Malformed, match="looks like no evidence"):
        judge(Launch(), raw=proof())


def test_without_a_challenge_it_is_genuine_and_not_bound() -> None:
    launch = Launch()
    verifier = Verifier(tees=[VERIFIER], anchors=launch.case.anchors, policy=AuthenticityOnly())
    claims = verifier.verify(
        proven(launch),
        collateral=Collateral.none(),
        binding=AnyBinding(),
        now=NOW,
        launch=released(launch),
    )
    assert (claims.bound, claims.report_data) == (False, REPORT_DATA)


RECORD = cmw.Record("application/octet-stream", b"")


@pytest.mark.parametrize(
    "items",
    [
        {"sev-launch": cmw.Record(MEDIA_TYPE, Launch().raw)},
        {"sev-launch": RECORD, "launch-proof": cmw.Record(launch_proof.MEDIA_TYPE, proof())},
        {"sev-launch": cmw.Record(MEDIA_TYPE, Launch().raw), "launch-proof": RECORD},
        {
            "sev-launch": cmw.Record(MEDIA_TYPE, Launch().raw),
            "launch-proof": cmw.Record(launch_proof.MEDIA_TYPE, proof()),
            "more": RECORD,
        },
        {"sev-launch": cmw.Collection({"more": RECORD}), "launch-proof": RECORD},
    ],
)
def test_any_other_collection_is_malformed(items: dict[str, cmw.Record | cmw.Collection]) -> None:
    data = cmw.to_cbor(cmw.Collection(items))
    assert VERIFIER.recognise(data)
    with pytest.raises(Malformed):
        parse_launch(data)


def test_the_secret_is_given_to_one_launch_only() -> None:
    with pytest.raises(Malformed, match="already"):
        released(Launch()).released(OTHER, SECRET)


@pytest.mark.parametrize(
    "change", [{"secret": None}, {"measure": None}, {"secret": b""}, {"measure": bytes(33)}]
)
def test_secret_and_measure_belong_together_and_have_their_sizes(change: dict[str, object]) -> None:
    with pytest.raises(Malformed, match="sev session"):
        replace(released(Launch()), **change)  # type: ignore[arg-type]


def test_the_session_with_its_secret_is_written_and_read_and_does_not_show_it() -> None:
    session = released(Launch())
    assert parse_session(write_session(session).encode()) == session
    assert SECRET.hex() not in repr(session)
    assert repr(SECRET) not in repr(session)
