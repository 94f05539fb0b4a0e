"""How policies are read, and what they refuse to be."""

from __future__ import annotations

import pytest
from tests.forge.pki import NOW
from tests.forge.snp import MEASUREMENT, REPORT_DATA, Case

from enarx.attest import Policy, PolicyDenied, PolicyError, Verifier
from enarx.attest.claims import Tee
from enarx.attest.rules import Anything, AtLeast, Each, Exactly, NoneOf, OneOf
from enarx.attest.snp import VERIFIER, SnpRules

HEX = MEASUREMENT.hex()
GOOD = (
    f'version = 1\nname = "test"\n[snp]\nmeasurement = ["{HEX}"]\nrevocation = "any"\nvendor_root = "any"\n'
)

BAD = {
    "not TOML": ("version = ", "is not TOML"),
    "no version": (f'[snp]\nmeasurement = ["{HEX}"]', "version: expected 1"),
    "another version": (f'version = 2\n[snp]\nmeasurement = ["{HEX}"]', "version: expected 1"),
    "true as version": (f'version = true\n[snp]\nmeasurement = ["{HEX}"]', "version: expected 1"),
    "no section": ("version = 1", "has no section"),
    "unknown section": (GOOD + '[tdz]\nmrtd = "any"', "tdz: unknown key"),
    "section that is no table": ("version = 1\nsnp = 3", "snp: expected a table"),
    "unknown key": (GOOD + "vmpls = [0]", "snp.vmpls: unknown key"),
    "unknown key in a table": (GOOD + "[snp.platform]\necv = true", "snp.platform.ecv: unknown key"),
    "no measurement": ("version = 1\n[snp]\nvmpl = [0]", "snp.measurement: missing"),
    "empty section": ("version = 1\n[snp]", "snp.measurement: missing"),
    "empty table": (GOOD + "[snp.platform]", "snp.platform: an empty table"),
    "empty list": ("version = 1\n[snp]\nmeasurement = []", "snp.measurement: an empty list admits nothing"),
    "empty text": ('version = 1\n[snp]\nmeasurement = [""]', "snp.measurement: expected hex"),
    "zero digest": (f'version = 1\n[snp]\nmeasurement = ["{"00" * 48}"]', "a digest of zeros"),
    "short digest": ('version = 1\n[snp]\nmeasurement = ["abcd"]', "expected hex of 32 or 48 bytes"),
    "text in place of a list": (f'version = 1\n[snp]\nmeasurement = "{HEX}"', "expected a list"),
    "star": ('version = 1\n[snp]\nmeasurement = "*"', "expected a list"),
    "any inside a list": ('version = 1\n[snp]\nmeasurement = ["any"]', "expected hex"),
    "listed twice": (f'version = 1\n[snp]\nmeasurement = ["{HEX}", "{HEX}"]', "listed twice"),
    "any as a deny-list": (GOOD + 'denied_chips = "any"', "has no meaning here"),
    "empty deny-list": (GOOD + "denied_chips = []", "an empty list"),
    "number out of range": (GOOD + "vmpl = [4]", "expected an integer from 0 to 3"),
    "true as a number": (GOOD + "vmpl = [true]", "expected an integer"),
    "float": (GOOD + "guest_svn = 1.0", "expected an integer"),
    "unknown word": (GOOD + 'signing_key = ["vcekk"]', "expected a list of vcek, vlek, none"),
    "version of another form": (GOOD + 'min_firmware = "1.55"', "expected a version of 3 numbers"),
    "empty name": (GOOD + 'csp_id = [""]', "expected a list of texts"),
    "name that is no text": ('version = 1\nname = 3\n[snp]\nmeasurement = "any"', "name: expected a text"),
    "too long": ("#" * (1 << 20) + "\n" + GOOD, "at most 1048576"),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD)
def test_policy_with_a_mistake_is_refused_when_it_is_read(text: str, words: str) -> None:
    """A22, A24."""
    with pytest.raises(PolicyError) as refused:
        Policy.parse(text, [VERIFIER])
    assert words in str(refused.value)


def judge(policy: Policy) -> None:
    case = Case()
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=policy)
    verifier.verify(case.report.raw, collateral=case.collateral, binding=REPORT_DATA, now=NOW)


def test_a_good_policy_accepts() -> None:
    judge(Policy.parse(GOOD, [VERIFIER]))


def test_kind_of_evidence_without_a_section_is_refused() -> None:
    policy = Policy(name="", sections={Tee.TDX: SnpRules(measurement=Anything())})
    with pytest.raises(PolicyDenied) as refused:
        judge(policy)
    assert refused.value.check.name == "policy.tee"


def test_development_root_is_refused_unless_the_policy_says_any() -> None:
    """A19: passing the root in is not enough for a policy that was written for real hardware."""
    with pytest.raises(PolicyDenied) as refused:
        judge(Policy.parse(GOOD.replace('vendor_root = "any"\n', ""), [VERIFIER]))
    assert [check.name for check in refused.value.failures] == ["policy.snp.vendor_root"]


def test_missing_revocation_list_is_refused_unless_the_policy_says_otherwise() -> None:
    """A15."""
    with pytest.raises(PolicyDenied) as refused:
        judge(Policy.parse(GOOD.replace('revocation = "any"\n', ""), [VERIFIER]))
    assert [check.name for check in refused.value.failures] == ["policy.snp.revocation"]


def test_the_digest_is_of_the_meaning() -> None:
    """A25: a verdict names the policy by its digest."""
    one = Policy.parse(GOOD, [VERIFIER])
    same = Policy.parse(
        f'version=1\n# a comment\n[snp]\nvendor_root="any"\nrevocation = "any"\nmeasurement=["{HEX.upper()}"]',
        [VERIFIER],
    )
    made = Policy(
        name="made in code",
        sections={
            Tee.SNP: SnpRules(
                measurement=OneOf(frozenset({MEASUREMENT})), revocation=Anything(), vendor_root=Anything()
            )
        },
    )
    other = Policy.parse(GOOD + "vmpl = [0, 1]", [VERIFIER])
    assert one.digest == same.digest == made.digest
    assert one.digest != other.digest


def test_lint_names_what_was_switched_off() -> None:
    found = Policy.parse(GOOD + 'debug = "any"', [VERIFIER]).lint()
    assert [line.partition(":")[0] for line in found] == ["snp.debug", "snp.revocation", "snp.vendor_root"]


@pytest.mark.parametrize("rule", [OneOf, NoneOf])
def test_an_empty_list_is_no_rule(rule: type[OneOf]) -> None:
    with pytest.raises(PolicyError):
        rule(frozenset())


def test_what_the_evidence_does_not_have_is_admitted_by_anything_alone() -> None:
    assert Anything().admits(None)
    for rule in (OneOf(frozenset({1})), NoneOf(frozenset({1})), AtLeast(0), Exactly(False)):
        assert not rule.admits(None)
    assert not Each({"a": AtLeast(0)}).admits({})
    assert Each({"a": AtLeast(0)}).admits({"a": 0, "b": None})
