"""Each check of a legacy SEV platform fails alone, and the real Naples platform holds to AMD's pinned root."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.evidence import Evidence
from tests.forge.sev import Case, ec_key

from enarx.attest import EvidenceRejected, TrustAnchors
from enarx.attest.checks import Ledger
from enarx.attest.sev import Platform, parse_chain, verify_chain
from enarx.tcb.errors import EnarxError, Malformed


def judge(
    raw: bytes, anchors: TrustAnchors, owner: ec.EllipticCurvePublicKey | None = None
) -> tuple[Platform, Ledger]:
    ledger = Ledger()
    return verify_chain(parse_chain(raw), anchors=anchors, ledger=ledger, owner=owner), ledger


def refusal(case: Case, owner: ec.EllipticCurvePublicKey | None = None) -> str:
    with pytest.raises(EvidenceRejected) as refused:
        judge(b"".join(case.certificates()), case.anchors, owner)
    return refused.value.check.name


def naples(evidence: Evidence) -> list[bytes]:
    sample = evidence.sample("sev/naples-platform-chain")
    return [sample.read(role) for role in ("pdh", "pek", "oca", "cek", "ask", "ark")]


def test_a_healthy_platform_gives_its_key() -> None:
    platform, _ = judge(b"".join(Case().certificates()), Case().anchors, ec_key("oca").public_key())
    assert platform.pdh.public_numbers() == ec_key("pdh").public_key().public_numbers()
    assert platform.api == (1, 40)
    assert not platform.root.is_vendor


@pytest.mark.parametrize(
    ("case", "check"),
    [
        (Case(usages={"pdh": 0x1002}), "sev.pdh.usage"),
        (Case(usages={"pek": 0x1004}), "sev.pek.usage"),
        (Case(usages={"oca": 0x1002}), "sev.oca.usage"),
        (Case(usages={"cek": 0x1001}), "sev.cek.usage"),
        (Case(algorithms={"pdh": 2}), "sev.pdh.algorithm"),
        (Case(algorithms={"pek": 3}), "sev.pek.algorithm"),
        (Case(algorithms={"oca": 1}), "sev.oca.algorithm"),
        (Case(algorithms={"cek": 0}), "sev.cek.algorithm"),
        (Case(double_pek=True, signers={"pek_oca": "cek"}), "sev.pek.signers"),
        (Case(usages={"ark": 0x13}), "sev.ark.usage"),
        (Case(ark_id=bytes(16)), "sev.ark.usage"),
        (Case(signers={"ark": "other"}), "sev.ark.signature"),
        (Case(usages={"ask": 0}), "sev.ask.usage"),
        (Case(certifying_id=bytes(16)), "sev.ask.certifying_id"),
        (Case(signers={"ask": "other"}), "sev.ask.signature"),
        (Case(signers={"cek": "other"}), "sev.cek.signature"),
        (Case(signers={"pek": "other"}), "sev.pek.signature.cek"),
        (Case(signers={"pek_oca": "other"}), "sev.pek.signature.oca"),
        (Case(signers={"oca": "other"}), "sev.oca.signature"),
        (Case(signers={"pdh": "other"}), "sev.pdh.signature"),
    ],
)
def test_each_check_fails_alone(case: Case, check: str) -> None:
    assert refusal(case) == check


def test_a_platform_of_another_owner_is_refused() -> None:
    assert refusal(Case(), ec_key("other").public_key()) == "sev.oca.owner"


def test_no_root_verifies_nothing() -> None:
    """A12."""
    with pytest.raises(EvidenceRejected) as refused:
        judge(b"".join(Case().certificates()), TrustAnchors.none())
    assert refused.value.check.name == "sev.chain.root"


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, b"\x02"), (6, b"\x01"), (0x10, b"\0"), (0x14, b"\xff" * 4), (0xA4, b"\x01"), (0x8, b"\x77")],
)
def test_a_certificate_in_another_form_is_malformed(at: int, value: bytes) -> None:
    """A21: curve, point, version, reserved bytes."""
    raw = bytearray(b"".join(Case().certificates()))
    raw[at : at + len(value)] = value
    with pytest.raises(Malformed):
        parse_chain(bytes(raw))


@pytest.mark.parametrize("half", [0, 72])
def test_a_zero_in_a_signature_is_refused(half: int) -> None:
    """A21."""
    raw = bytearray(b"".join(Case().certificates()))
    raw[0x41C + half : 0x41C + half + 72] = bytes(72)
    with pytest.raises(EvidenceRejected) as refused:
        judge(bytes(raw), Case().anchors)
    assert refused.value.check.name == "sev.pdh.signature"


@pytest.mark.evidence
def test_the_naples_platform_holds_to_the_pinned_root(evidence: Evidence) -> None:
    platform, ledger = judge(b"".join(naples(evidence)), TrustAnchors.vendor())
    assert platform.root.name == "AMD ARK-Naples"
    signatures = [check.name for check in ledger if "signature" in check.name]
    assert len(signatures) == 7


@pytest.mark.evidence
def test_the_root_that_amd_published_without_signature_counts_by_its_pin(evidence: Evidence) -> None:
    short = evidence.read("sev/naples_ark_malformed_576.cert")
    raw = b"".join([*naples(evidence)[:5], short])
    assert judge(raw, TrustAnchors.vendor())[0].root.name == "AMD ARK-Naples"


@pytest.mark.evidence
def test_a_signing_key_of_another_generation_is_refused(evidence: Evidence) -> None:
    """The CEK of Naples below ASK and ARK of Rome."""
    rome = [evidence.read(f"roots/sev_format/rome_{name}.cert") for name in ("ask", "ark")]
    with pytest.raises(EvidenceRejected) as refused:
        judge(b"".join([*naples(evidence)[:4], *rome]), TrustAnchors.vendor())
    assert refused.value.check.name == "sev.cek.signature"


@pytest.mark.evidence
def test_every_byte_flipped_once_is_refused(evidence: Evidence) -> None:
    raw, anchors = b"".join(naples(evidence)), TrustAnchors.vendor()
    for at in range(len(raw)):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(EnarxError):
            judge(bytes(flipped), anchors)
