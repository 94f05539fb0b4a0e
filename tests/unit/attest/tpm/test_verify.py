"""Each check of a TPM quote fails alone: right in all but one thing, signed by a key of ours."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.forge.pki import NOW, ec_key, rsa_key
from tests.forge.tpm import NONCE, PCRS, Case

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Claims,
    Collateral,
    CollateralMissing,
    EvidenceRejected,
    Policy,
    PolicyDenied,
    PolicyError,
    Revocation,
    Tee,
    Verifier,
)
from enarx.attest.collateral import Document, Kind
from enarx.attest.ear import ear_of
from enarx.attest.results import claims_document
from enarx.attest.tpm import VERIFIER
from enarx.tcb.errors import Malformed

P256 = ec_key("ak", ec.SECP256R1)
LEGACY_EVENT = b"".join(
    (
        (0).to_bytes(4, "little"),
        (8).to_bytes(4, "little"),
        b"\x22" * 20,
        (0).to_bytes(4, "little"),
    )
)


def judge(
    case: Case,
    *,
    binding: bytes | AnyBinding = NONCE,
    policy: Policy | AuthenticityOnly | None = None,
    collateral: Collateral | None = None,
) -> Claims:
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=policy or AuthenticityOnly())
    return verifier.verify(case.raw, collateral=collateral or Collateral.none(), binding=binding, now=NOW)


@pytest.mark.parametrize(
    "case",
    [Case(), Case(scheme=0x16), Case(scheme=0x18, key=P256, trusted=P256)],
    ids=["rsassa", "rsapss", "ecdsa"],
)
def test_a_healthy_quote_says_what_was_put_in(case: Case) -> None:
    claims = judge(case)
    assert claims.tee is Tee.TPM
    assert claims.bound
    assert claims.measurements == {f"pcr{index}": value for index, value in PCRS.items()}
    assert claims.revocation is Revocation.NOT_PUBLISHED
    assert not claims.root.is_vendor


REJECTED = {
    "another key": ("tpm.signature", Case(key=rsa_key("another"))),
    "another scheme": ("tpm.signature", Case(scheme=0x16).but(key=P256, trusted=rsa_key("ak"), scheme=0x18)),
    "another hash": ("tpm.signature", Case(algorithm=0x0C)),
    "SHA-1": ("tpm.hash", Case(algorithm=0x04)),
    "a value changed": ("tpm.pcr_digest", Case(presented={**PCRS, 3: bytes(32)})),
    "values in another order": ("tpm.pcr_digest", Case(presented=dict(reversed(PCRS.items())))),
}


@pytest.mark.parametrize("what", REJECTED)
def test_each_check_fails_alone(what: str) -> None:
    check, case = REJECTED[what]
    with pytest.raises(EvidenceRejected) as refused:
        judge(case)
    assert refused.value.check.name == check


def test_no_key_at_all_is_missing() -> None:
    with pytest.raises(CollateralMissing) as refused:
        judge(Case(trusted=None))
    assert refused.value.check.name == "tpm.ak"


@pytest.mark.parametrize("extra", [b"", NONCE[:-1], NONCE + b"\x00", NONCE[::-1]])
def test_other_qualifying_data_are_refused(extra: bytes) -> None:
    with pytest.raises(EvidenceRejected) as refused:
        judge(Case(extra_data=extra))
    assert refused.value.check.name == "binding.report_data"


def test_an_event_log_that_leads_elsewhere_is_refused() -> None:
    """Its one event extends PCR0 of the bank of SHA-1; the quote holds something else."""
    values = {0: b"\x11" * 20}
    case = Case(banks=((4, b"\x01\x00\x00"),), pcrs=values)
    log = Collateral(documents=(Document(Kind.EVENT_LOG, LEGACY_EVENT),))
    judge(case)
    with pytest.raises(EvidenceRejected) as refused:
        judge(case, collateral=log)
    assert refused.value.check.name == "tpm.event_log"


MALFORMED = {
    "magic": Case(magic=0xFF544348),
    "certify": Case(kind=0x8017),
    "nv": Case(kind=0x8014),
    "safe": Case(safe=2),
    "trailing": Case(trailing=b"\x00"),
    "PCR24": Case(banks=((0x0B, b"\xff\x00\x00\x01"),)),
    "two banks": Case(banks=((0x0B, b"\xff\x00\x00"), (0x0C, b"\x01\x00\x00"))),
    "no PCR": Case(banks=((0x0B, b"\x00\x00\x00"),), pcrs={}),
    "unknown bank": Case(banks=((0x77, b"\xff\x00\x00"),)),
    "fewer values": Case(presented={index: PCRS[index] for index in range(7)}),
    "scheme": Case(scheme=0x1A),
    "hash": Case(algorithm=0x99),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_not_in_form_is_malformed(what: str) -> None:
    with pytest.raises(Malformed):
        VERIFIER.parse(MALFORMED[what].raw)


BASE = 'version = 1\n[tpm]\nvendor_root = "any"\n'
OPEN = "memory_protected = false\n"


def section(text: str, case: Case | None = None) -> list[str]:
    """The policy checks that fail."""
    needed = "".join(f'{name} = "any"\n' for name in ("measurement", "selection") if name not in text)
    try:
        judge(case or Case(), policy=Policy.parse(BASE + needed + OPEN + text, [VERIFIER]))
    except PolicyDenied as refused:
        return [check.name for check in refused.failures]
    return []


DIGEST = judge(Case()).measurement.hex()
KEYS = [
    ("measurement", f'["{DIGEST}"]', f'["{"11" * 32}"]', "measurement"),
    ("selection", "[7, 6, 5, 4, 3, 2, 1, 0]", "[0, 1]", "selection"),
    ("bank", '["sha256"]', '["sha384"]', "bank"),
    ("pcrs", f'{{ pcr3 = ["{PCRS[3].hex()}"] }}', f'{{ pcr3 = ["{PCRS[4].hex()}"] }}', "pcrs.pcr3"),
    ("pcrs", f'{{ pcr3 = ["{PCRS[3].hex()}"] }}', f'{{ pcr8 = ["{PCRS[4].hex()}"] }}', "pcrs.pcr8"),
    ("event_log", '"any"', "[0]", "event_log"),
    ("safe", "true", "false", "safe"),
    ("reset_count", "[3]", "[2]", "reset_count"),
    ("restart_count", "[1]", "[2]", "restart_count"),
]


@pytest.mark.parametrize(("name", "met", "broken", "check"), KEYS)
def test_each_policy_key_decides_alone(name: str, met: str, broken: str, check: str) -> None:
    assert section(f"{name} = {met}") == []
    assert section(f"{name} = {broken}") == [f"policy.tpm.{check}"]


def test_a_bank_of_sha1_is_denied_by_default() -> None:
    case = Case(banks=((4, b"\x01\x00\x00"),), pcrs={0: b"\x11" * 20})
    assert section("", case) == ["policy.tpm.bank"]


def test_a_policy_that_does_not_say_that_its_machine_may_be_open_denies_a_tpm() -> None:
    """Naming a TPM is not enough: it is no TEE."""
    closed = BASE + 'measurement = "any"\nselection = "any"\n'
    for text in (closed, closed + "memory_protected = true\n"):
        with pytest.raises(PolicyDenied) as refused:
            judge(Case(), policy=Policy.parse(text, [VERIFIER]))
        assert [check.name for check in refused.value.failures] == ["policy.tpm.memory_protected"]
    opened = Policy.parse(closed + OPEN, [VERIFIER])
    assert "tpm.memory_protected: whoever runs the machine may read the keep's memory" in opened.lint()
    claims = judge(Case(), policy=opened)
    assert not claims.memory_protected
    assert claims_document(claims)["memory_protected"] is False
    assert ear_of(claims, now=NOW).appraisal.vector["runtime-opaque"] == 32


def test_selection_must_be_written() -> None:
    """The same digest can be made with other registers, some of which anybody may extend."""
    with pytest.raises(PolicyError):
        Policy.parse(BASE + 'measurement = "any"', [VERIFIER])


@pytest.mark.parametrize(
    "text", ["pcrs = {}", "bank = [1]", "selection = []", "selection = [24]", 'bank = ["md5"]']
)
def test_a_wrong_key_is_an_error_of_the_policy(text: str) -> None:
    with pytest.raises(PolicyError):
        section(text)
