"""The launch of a legacy guest as one piece of evidence: what is accepted, and each check that fails alone."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import UUID

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.evidence import Evidence
from tests.forge.pki import NOW
from tests.forge.sev import DIGEST, TEK, TIK, Case, Launch, rsa_key

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Claims,
    Collateral,
    CollateralMissing,
    Document,
    EvidenceRejected,
    Kind,
    MalformedEvidence,
    Policy,
    PolicyDenied,
    Revocation,
    Tee,
    TrustAnchors,
    Verifier,
    cmw,
    uncovered,
)
from enarx.attest.sev import (
    MEDIA_TYPE,
    VERIFIER,
    LaunchMeasure,
    LaunchSession,
    SessionKeys,
    SevDetail,
    build_secret_table,
    pack_evidence,
    pack_secret,
    parse_certificate,
    parse_evidence,
    parse_session,
    prepare_session,
    write_session,
)
from enarx.tcb.errors import EnarxError, Malformed


def judge(
    launch: Launch,
    *,
    raw: bytes | None = None,
    session: LaunchSession | None = None,
    policy: str = "",
    collateral: Collateral | None = None,
    binding: bytes | None = None,
) -> Claims:
    text = f"version = 1\n{policy}"
    chosen = Policy.parse(text, [VERIFIER]) if policy else AuthenticityOnly()
    return Verifier(tees=[VERIFIER], anchors=launch.case.anchors, policy=chosen).verify(
        launch.raw if raw is None else raw,
        collateral=collateral or Collateral.none(),
        binding=AnyBinding() if binding is None else binding,
        now=NOW,
        launch=session or launch.session,
    )


def test_a_launch_that_is_right_is_accepted() -> None:
    launch = Launch()
    policy = f'[sev-es]\nmeasurement = ["{DIGEST.hex()}"]\nvendor_root = "any"\nmin_firmware = "1.40.10"'
    claims = judge(launch, policy=policy, binding=launch.session.binding)
    assert (claims.tee, claims.measurement, claims.debug, claims.bound) == (Tee.SEV_ES, DIGEST, False, True)
    assert claims.tcb == {"api_major": 1, "api_minor": 40, "build": 10}
    assert claims.revocation is Revocation.NOT_PUBLISHED
    assert claims.chip_id is not None
    assert not claims.root.is_vendor
    assert {"policy.noks", "build", "measure", "mnonce"} <= set(claims.evidence.fields())
    assert "policy.noks" not in uncovered(claims.evidence.fields(), claims.checks)


def test_it_may_come_in_an_envelope() -> None:
    launch = Launch()
    assert judge(launch, raw=cmw.to_cbor(cmw.Record(MEDIA_TYPE, launch.raw))).measurement == DIGEST


def test_the_verdict_releases_the_secret() -> None:
    launch = Launch()
    detail = judge(launch).detail
    assert isinstance(detail, SevDetail)
    table = build_secret_table({UUID(int=1): b"open"})
    packet = pack_secret(detail.launch, table, keys=SessionKeys(tek=TEK, tik=TIK), iv=bytes(16))
    assert len(packet.payload) == len(table)


def test_without_the_session_nothing_can_be_said() -> None:
    launch = Launch()
    judge = Verifier(tees=[VERIFIER], anchors=launch.case.anchors, policy=AuthenticityOnly())
    with pytest.raises(CollateralMissing) as refused:
        judge.verify(launch.raw, collateral=Collateral.none(), binding=AnyBinding(), now=NOW)
    assert refused.value.check.name == "sev.session"


def test_a_genuine_platform_that_is_another_than_that_of_the_session_is_refused() -> None:
    """A12: the session was opened by the attacker's own key, the certificates are of an honest platform."""
    with pytest.raises(EvidenceRejected) as refused:
        judge(Launch(prepared_for="attacker"))
    assert refused.value.check.name == "sev.session.pdh"


@pytest.mark.parametrize(
    ("launch", "name"),
    [
        (Launch(session_policy=b"\x2e\0\x01\x28"), "sev.session.policy"),
        (Launch(said_policy=b"\x2e\0\x01\x28"), "sev.session.policy"),
        (Launch(policy=b"\x2f\0\x01\x29"), "sev.api"),
        (Launch(said_build=11), "sev.measure"),
        (Launch(tik=bytes(16)), "sev.measure"),
        (Launch(digest=bytes(32)), "sev.measure"),
        (Launch(expected=(bytes(32),)), "sev.measure"),
        (Launch(owner="stranger"), "sev.oca.owner"),
        (Launch(case=Case(signers={"pdh": "stranger"})), "sev.pdh.signature"),
        (Launch(case=Case(signers={"cek": "ark"})), "sev.cek.signature"),
        (Launch(case=Case(usages={"pdh": 0x1002})), "sev.pdh.usage"),
        (Launch(case=Case(usages={"pek": 0x1004})), "sev.pek.usage"),
        (Launch(case=Case(usages={"oca": 0x1002})), "sev.oca.usage"),
        (Launch(case=Case(usages={"cek": 0x1001})), "sev.cek.usage"),
        (Launch(case=Case(algorithms={"pdh": 2})), "sev.pdh.algorithm"),
        (Launch(case=Case(algorithms={"pek": 3})), "sev.pek.algorithm"),
        (Launch(case=Case(algorithms={"oca": 3})), "sev.oca.algorithm"),
        (Launch(case=Case(algorithms={"cek": 3})), "sev.cek.algorithm"),
        (Launch(case=Case(double_pek=True, signers={"pek_oca": "cek"})), "sev.pek.signers"),
        (Launch(case=Case(twice="pdh")), "sev.pdh.signers"),
        (Launch(case=Case(twice="oca")), "sev.oca.signers"),
        (Launch(case=Case(twice="cek")), "sev.cek.signers"),
        (Launch(case=Case(signers={"ask": "stranger"})), "sev.ask.signature"),
    ],
)
def test_each_check_refuses_alone(launch: Launch, name: str) -> None:
    with pytest.raises(EvidenceRejected) as refused:
        judge(launch)
    assert refused.value.check.name == name
    assert [check.name for check in refused.value.checks if check.outcome.value == "failed"] == [name]


def test_another_challenge_is_refused() -> None:
    with pytest.raises(EvidenceRejected) as refused:
        judge(Launch(), binding=bytes(64))
    assert refused.value.check.name == "binding.report_data"


def test_any_digest_that_the_owner_expects_is_accepted() -> None:
    assert judge(Launch(expected=(bytes(32), DIGEST))).measurement == DIGEST


def test_certificates_of_amd_may_be_collateral() -> None:
    launch = Launch(own_chain=False)
    exported = b"".join(launch.case.certificates())
    for data in (launch.vendor, exported):
        vendor = Collateral(documents=(Document(Kind.SEV_CERTIFICATE, data),))
        assert judge(launch, collateral=vendor).measurement == DIGEST
    parts = launch.case.certificates()[4:]
    apart = Collateral(documents=tuple(Document(Kind.SEV_CERTIFICATE, data) for data in parts))
    assert judge(launch, collateral=apart).measurement == DIGEST
    with pytest.raises(CollateralMissing) as refused:
        judge(launch)
    assert refused.value.check.name == "sev.chain.vendor"


def test_the_owner_of_the_platform_may_be_named() -> None:
    assert judge(Launch(owner="oca")).measurement == DIGEST


ANY = 'measurement = "any"\nvendor_root = "any"\n'
PLAIN = Launch(policy=b"\x2b\0\0\0")


@pytest.mark.parametrize(
    ("launch", "section", "rule", "name"),
    [
        (Launch(), "sev-es", f'measurement = ["{"ab" * 32}"]', "policy.sev-es.measurement"),
        (Launch(policy=b"\x2e\0\0\0"), "sev-es", "", "policy.sev-es.debug"),
        (Launch(policy=b"\x2d\0\0\0"), "sev-es", "", "policy.sev-es.policy.noks"),
        (Launch(policy=b"\x27\0\0\0"), "sev-es", "", "policy.sev-es.policy.nosend"),
        (Launch(policy=b"\x0f\0\0\0"), "sev-es", "", "policy.sev-es.policy.sev"),
        (Launch(), "sev-es", "policy.domain = true", "policy.sev-es.policy.domain"),
        (Launch(), "sev-es", 'min_policy_api = "1.41"', "policy.sev-es.min_policy_api"),
        (Launch(), "sev-es", 'min_firmware = "1.40.11"', "policy.sev-es.min_firmware"),
        (Launch(), "sev-es", "build = [11]", "policy.sev-es.build"),
        (Launch(), "sev-es", f'platforms = ["{"ab" * 32}"]', "policy.sev-es.platforms"),
        (PLAIN, "sev", "build = [11]", "policy.sev.build"),
        (PLAIN, "sev-es", "", "policy.tee"),
        (Launch(), "sev", "", "policy.tee"),
    ],
)
def test_each_rule_of_a_policy_decides_alone(launch: Launch, section: str, rule: str, name: str) -> None:
    judge(launch)
    text = ANY if not rule.startswith("measurement") else ANY.split("\n")[1] + "\n"
    with pytest.raises(PolicyDenied) as denied:
        judge(launch, policy=f"[{section}]\n{text}{rule}")
    assert [check.name for check in denied.value.failures] == [name]


def test_a_platform_may_be_denied() -> None:
    chip = judge(Launch()).chip_id
    assert chip is not None
    with pytest.raises(PolicyDenied) as denied:
        judge(Launch(), policy=f'[sev-es]\n{ANY}denied_platforms = ["{chip.hex()}"]')
    assert [check.name for check in denied.value.failures] == ["policy.sev-es.denied_platforms"]


def test_the_vendors_root_is_asked_for_unless_left_out() -> None:
    with pytest.raises(PolicyDenied) as denied:
        judge(Launch(), policy='[sev-es]\nmeasurement = "any"')
    assert [check.name for check in denied.value.failures] == ["policy.sev-es.vendor_root"]


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body[:-1],
        lambda body: ["enarx.sev.launch/2", *body[1:]],
        lambda body: [*body[:4], 1 << 6, body[5]],
        lambda body: [*body[:4], -1, body[5]],
        lambda body: [*body[:3], True, *body[4:]],
        lambda body: [*body[:3], 256, *body[4:]],
        lambda body: [*body[:5], body[5] + b"\0"],
        lambda body: [body[0], body[1][:-1], *body[2:]],
        lambda body: [body[0], body[1] + bytes(576), *body[2:]],
        lambda body: [body[0], body[1], [1], *body[3:]],
    ],
)
def test_any_other_form_is_malformed(change: object) -> None:
    body = cbor2.loads(Launch().raw)
    with pytest.raises(Malformed):
        parse_evidence(cbor2.dumps(change(body)))  # type: ignore[operator]


def test_the_encoding_is_the_deterministic_one() -> None:
    raw = Launch().raw
    assert raw.count(b"\x82\x01\x18\x28") == 1
    with pytest.raises(MalformedEvidence, match="deterministic"):
        parse_evidence(raw.replace(b"\x82\x01\x18\x28", b"\x82\x01\x19\x00\x28"))
    with pytest.raises(MalformedEvidence):
        parse_evidence(raw + b"\0")


@pytest.mark.parametrize(
    "change",
    [{"tik": b"x"}, {"session": b"x"}, {"pdh_sha256": b""}, {"digests": ()}, {"digests": (b"x",)},
     {"digests": (bytes(32),) * 65}],
)  # fmt: skip
def test_a_session_of_wrong_sizes_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Malformed, match="sev session"):
        replace(Launch().session, **change)  # type: ignore[arg-type]


def test_an_owner_without_a_curve_is_refused() -> None:
    spki = rsa_key("ark").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(Malformed, match="owner"):
        judge(Launch(), session=replace(Launch().session, owner=spki))


def test_the_key_of_a_session_does_not_show_itself() -> None:
    assert TIK.hex() not in repr(Launch().session)
    assert repr(TIK) not in repr(Launch().session)


def test_every_byte_flipped_is_refused() -> None:
    """One bit of every seventh byte: absent signatures and reserved bytes are refused as they are read."""
    launch = Launch()
    raw, session = launch.raw, launch.session
    verifier = Verifier(tees=[VERIFIER], anchors=launch.case.anchors, policy=AuthenticityOnly())
    for at in range(0, len(raw), 7):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(EnarxError):
            verifier.verify(
                bytes(flipped), collateral=Collateral.none(), binding=AnyBinding(), now=NOW, launch=session
            )


def test_a_session_that_was_written_is_read_again() -> None:
    for launch in (Launch(), Launch(owner="oca")):
        assert parse_session(write_session(launch.session).encode()) == launch.session


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"tik"', '"tek"'),
        (TIK.hex(), "0 0"),
        (TIK.hex(), "xx"),
        (f'"{TIK.hex()}"', "1"),
        ("[", "{"),
        (f'["{DIGEST.hex()}"]', "1"),
        ('"tik"', '"tik": "", "tik"'),
        ("}", "}}"),
    ],
)
def test_another_form_of_session_is_malformed_and_shows_no_key(old: str, new: str) -> None:
    text = json.dumps(json.loads(write_session(Launch().session)))
    assert text.count(old) == 1
    with pytest.raises(Malformed, match="sev session") as refused:
        parse_session(text.replace(old, new).encode())
    assert TIK.hex() not in str(refused.value)


def real_launch(evidence: Evidence, *vendor: str) -> tuple[bytes, LaunchSession]:
    """A guest of ours on a real platform: nobody but AMD's processor could open the session, but we know its key."""
    names = [f"sev/naples-platform/{name}.cert" for name in ("pdh", "pek", "oca", "cek")]
    own = [evidence.read(name) for name in names]
    pdh = parse_certificate(own[0])
    made = prepare_session(
        pdh.key,
        owner=ec.generate_private_key(pdh.key.curve),
        keys=SessionKeys(tek=TEK, tik=TIK),
        policy=PLAIN.policy,
        nonce=bytes(16),
        iv=bytes(16),
    )
    said = LaunchMeasure(measure=bytes(32), nonce=bytes(16), api=(0, 24), build=15)
    measure = said.mac(TIK, policy=PLAIN.policy, digest=DIGEST) + bytes(16)
    certificates = b"".join([*own, *(evidence.read(f"roots/sev_format/{name}.cert") for name in vendor)])
    raw = pack_evidence(certificates, api=(0, 24), build=15, policy=PLAIN.policy, measure=measure)
    return raw, LaunchSession.prepared(pdh.key, tik=TIK, session=made, digests=(DIGEST,))


@pytest.mark.evidence
def test_a_real_platform_is_one_under_the_roots_of_amd(evidence: Evidence) -> None:
    policy = Policy.parse(f'version = 1\n[sev]\nmeasurement = ["{DIGEST.hex()}"]', [VERIFIER])
    verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=policy)
    raw, session = real_launch(evidence, "naples_ask", "naples_ark")
    claims = verifier.verify(
        raw, collateral=Collateral.none(), binding=session.binding, now=NOW, launch=session
    )
    assert (claims.tee, claims.root.name, claims.root.is_vendor) == (Tee.SEV, "AMD ARK-Naples", True)


@pytest.mark.evidence
def test_a_platform_of_one_generation_does_not_pass_under_the_next(evidence: Evidence) -> None:
    """A14: the CEK of a Naples platform with the ASK of Rome."""
    verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly())
    raw, session = real_launch(evidence, "rome_ask", "rome_ark")
    with pytest.raises(EvidenceRejected) as refused:
        verifier.verify(raw, collateral=Collateral.none(), binding=AnyBinding(), now=NOW, launch=session)
    assert refused.value.check.name == "sev.cek.signature"
    both = b"".join(evidence.read(f"roots/sev_format/naples_{name}.cert") for name in ("ask", "ark"))
    given = Collateral(documents=(Document(Kind.SEV_CERTIFICATE, both),))
    claims = verifier.verify(raw, collateral=given, binding=AnyBinding(), now=NOW, launch=session)
    assert claims.root.name == "AMD ARK-Naples", "the right ones are found among those given"
