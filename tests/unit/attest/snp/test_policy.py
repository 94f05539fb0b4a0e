"""Each key of the section ``[snp]`` decides alone: one value that the evidence meets, one that it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from tests.forge.pki import NOW
from tests.forge.snp import HWID, MEASUREMENT, REPORT_DATA, Case, Report, ark, asvk, tcb_bytes, vlek

from enarx.attest import Outcome, Policy, PolicyDenied, PolicyError, Verifier
from enarx.attest.snp import VERIFIER, GuestPolicyRules, MinimumTcb, PlatformRules, SnpRules

ANYTHING = 'measurement = "any"\nrevocation = "any"\nvendor_root = "any"\n'
"""With evidence as the tests make it, this section is met."""


def v5(**changes: int | bytes) -> Case:
    return Case(report=Report(version=5).but(**changes))


def by_vlek() -> Case:
    return Case(report=Report().but(key_info=4), leaf=vlek(), intermediates=(asvk(),))


def judge(section: str, case: Case) -> None:
    policy = Policy.parse(f"version = 1\n[snp]\n{section}", [VERIFIER])
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=policy)
    claims = verifier.verify(case.report.raw, collateral=case.collateral, binding=REPORT_DATA, now=NOW)
    assert claims.policy_digest == policy.digest


@dataclasses.dataclass(frozen=True)
class Rule:
    """A key, what is written for it, and whether the evidence meets it."""

    name: str
    met: str
    broken: str
    case: Callable[[], Case] = v5
    breaking: Callable[[], Case] | None = None
    """Other evidence that breaks what is ``met``, where the default is the rule to be shown."""

    def section(self, value: str) -> str:
        """The section with this key."""
        lines = dict(line.split(" = ", 1) for line in ANYTHING.splitlines())
        if "." in self.name:
            table, _, key = self.name.partition(".")
            return ANYTHING + f"[snp.{table}]\n{key} = {value}\n"
        lines[self.name] = value
        if self.name == "csp_id":
            lines["signing_key"] = '["vlek"]'
        return "".join(f"{name} = {written}\n" for name, written in lines.items())


def digest(value: bytes) -> str:
    return f'["{value.hex()}"]'


def flag(name: str, now: bool) -> Rule:
    return Rule(name, str(now).lower(), str(not now).lower())


WRONG48, WRONG32, WRONG16 = b"\x77" * 48, b"\x77" * 32, b"\x77" * 16

RULES = (
    Rule("measurement", digest(MEASUREMENT), digest(WRONG48)),
    Rule("debug", "false", "true"),
    Rule("debug", "false", "", breaking=lambda: v5(policy=0xB0000)),
    Rule("revocation", '["missing"]', '["checked"]'),
    Rule("revocation", '["checked"]', '["stale", "missing"]', case=lambda: v5().but(crls=(ark().crl(),))),
    Rule("vendor_root", "false", "true"),
    Rule("signing_key", '["vcek"]', '["vlek"]'),
    Rule("csp_id", '["CN=example.test"]', '["CN=other.test"]', case=by_vlek),
    Rule("line", '["Milan"]', '["Genoa", "Turin"]'),
    Rule("chip_id", digest(HWID), digest(b"\x01" * 64)),
    Rule("denied_chips", digest(b"\x01" * 64), digest(HWID)),
    Rule("chip_hidden", "false", "", breaking=lambda: v5(chip_id=bytes(64))),
    Rule("chip_hidden", "false", "true"),
    Rule("vmpl", "[0]", "[1, 2, 3]"),
    Rule("vmpl", "[0]", "", breaking=lambda: v5(vmpl=1)),
    Rule("provisional_firmware", "false", "true"),
    Rule("provisional_firmware", "false", "", breaking=lambda: v5(current_tcb=tcb_bytes(microcode=214))),
    Rule("provisional_firmware", "false", "", breaking=lambda: v5(current_version=bytes([30, 55, 1]))),
    Rule("min_firmware", '"1.55.29"', '"1.55.30"'),
    Rule("min_firmware", '"1.54.99"', '"2.0.0"'),
    Rule("launch_mitigations", "[0, 1]", "[0, 2]"),
    Rule("current_mitigations", "[0, 2]", "[3]"),
    Rule("current_mitigations", "[0]", "", breaking=Case),
    Rule("min_report_version", "5", "", breaking=Case),
    Rule("id_key_digest", digest(b"\x01" * 48), digest(WRONG48), case=lambda: v5(id_key_digest=b"\x01" * 48)),
    Rule(
        "author_key_digest",
        digest(b"\x02" * 48),
        digest(WRONG48),
        case=lambda: v5(key_info=1, author_key_digest=b"\x02" * 48),
    ),
    Rule("guest_svn", "7", "8", case=lambda: v5(guest_svn=7)),
    Rule("family_id", digest(bytes(16)), digest(WRONG16)),
    Rule("image_id", digest(bytes(16)), digest(WRONG16)),
    Rule("host_data", digest(bytes(32)), digest(WRONG32)),
    Rule("report_id", digest(b"\x11" * 32), digest(WRONG32)),
    Rule("report_id_ma", digest(b"\xff" * 32), digest(WRONG32)),
    Rule("report_id_ma", digest(b"\xff" * 32), "", breaking=lambda: v5(report_id_ma=b"\x01" * 32)),
    flag("guest_policy.smt", True),
    flag("guest_policy.migrate_ma", False),
    Rule("guest_policy.migrate_ma", "false", "", breaking=lambda: v5(policy=0x3001F | 1 << 18)),
    flag("guest_policy.single_socket", False),
    flag("guest_policy.cxl", False),
    flag("guest_policy.mem_aes_256_xts", False),
    flag("guest_policy.rapl_disable", False),
    flag("guest_policy.ciphertext_hiding", False),
    flag("guest_policy.page_swap_disable", False),
    flag("platform.smt", True),
    flag("platform.tsme", False),
    flag("platform.ecc", True),
    flag("platform.rapl_disabled", False),
    flag("platform.ciphertext_hiding", False),
    flag("platform.alias_check_complete", True),
    flag("platform.tio", False),
    Rule("platform.unknown", "[0]", "[64]"),
    *(
        Rule(f"min_{which}_tcb.{part}", str(value), str(value + 1))
        for which in ("reported", "committed", "current", "launch")
        for part, value in (("bootloader", 4), ("tee", 1), ("snp", 24), ("microcode", 213))
    ),
    *(Rule(f"min_{which}_tcb.snp", "1", "25") for which in ("reported", "launch")),
)

_BITS = {"smt": 16, "single_socket": 20, "cxl": 21, "mem_aes_256_xts": 22, "rapl_disable": 23}
_LATER = {"ciphertext_hiding": 24, "page_swap_disable": 25}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_one_key_decides_alone(rule: Rule) -> None:
    judge(rule.section(rule.met), rule.case())
    breaks = (rule.met, rule.breaking) if rule.breaking else (rule.broken, rule.case)
    with pytest.raises(PolicyDenied) as refused:
        judge(rule.section(breaks[0]), breaks[1]())
    assert [check.name for check in refused.value.failures] == [f"policy.snp.{rule.name}"]
    assert refused.value.check.advice or rule.name.endswith(("family_id", "image_id"))


@pytest.mark.parametrize(("name", "bit"), [*_BITS.items(), *_LATER.items()])
def test_each_bit_of_the_guest_policy_has_its_place(name: str, bit: int) -> None:
    case = v5(policy=1 << 17 | 1 << bit)
    judge(f"{ANYTHING}[snp.guest_policy]\n{name} = true", case)
    with pytest.raises(PolicyDenied):
        judge(f"{ANYTHING}[snp.guest_policy]\n{name} = false", case)


@pytest.mark.parametrize(
    ("name", "bit"),
    [
        ("smt", 0),
        ("tsme", 1),
        ("ecc", 2),
        ("rapl_disabled", 3),
        ("ciphertext_hiding", 4),
        ("alias_check_complete", 5),
        ("tio", 7),
    ],
)
def test_each_bit_of_the_platform_has_its_place(name: str, bit: int) -> None:
    case = v5(platform_info=1 << bit)
    judge(f"{ANYTHING}[snp.platform]\n{name} = true", case)
    with pytest.raises(PolicyDenied):
        judge(f"{ANYTHING}[snp.platform]\n{name} = false", case)


def test_the_fmc_is_a_component_from_turin_on() -> None:
    with pytest.raises(PolicyDenied) as refused:
        judge(f"{ANYTHING}[snp.min_reported_tcb]\nfmc = 0", v5())
    assert refused.value.check.name == "policy.snp.min_reported_tcb.fmc"
    assert refused.value.check.found is None


def test_every_key_has_a_test_in_which_it_decides() -> None:
    fields = {
        "": [field.name for field in dataclasses.fields(SnpRules)],
        "guest_policy.": [field.name for field in dataclasses.fields(GuestPolicyRules)],
        "platform.": [field.name for field in dataclasses.fields(PlatformRules)],
        **{
            f"min_{which}_tcb.": [
                field.name for field in dataclasses.fields(MinimumTcb) if field.name != "fmc"
            ]
            for which in ("reported", "committed", "current", "launch")
        },
    }
    tables = {
        "guest_policy",
        "platform",
        *(f"min_{which}_tcb" for which in ("reported", "committed", "current", "launch")),
    }
    known = {prefix + name for prefix, names in fields.items() for name in names if name not in tables}
    assert known == {rule.name for rule in RULES}


def test_all_that_is_broken_is_listed_and_explained() -> None:
    """A14: a rolled-back platform is refused with what it needs."""
    with pytest.raises(PolicyDenied) as refused:
        judge(f"{ANYTHING}guest_svn = 3\n[snp.min_reported_tcb]\nsnp = 30\nmicrocode = 220", v5())
    assert {check.name for check in refused.value.failures} == {
        "policy.snp.min_reported_tcb.snp",
        "policy.snp.min_reported_tcb.microcode",
        "policy.snp.guest_svn",
    }
    sentences = [check.sentence() for check in refused.value.failures]
    assert "reported_tcb.microcode is 213, expected at least 220" in sentences
    passed = [check for check in refused.value.checks if check.outcome is Outcome.PASSED]
    assert {"snp.signature", "binding.report_data"} <= {check.name for check in passed}


def test_lint_finds_contradictions_of_the_section() -> None:
    text = (
        'version = 1\n[snp]\nmeasurement = "any"\nsigning_key = ["vlek", "none"]\nline = ["Milan"]\n'
        f"chip_id = {digest(HWID)}\ndenied_chips = {digest(HWID)}\nguest_svn = 0\n"
        "[snp.min_launch_tcb]\nfmc = 1"
    )
    found = "\n".join(Policy.parse(text, [VERIFIER]).lint())
    for words in (
        "measurement: anything",
        "csp_id",
        "unsigned",
        "contradicts",
        "guest_svn: a minimum of zero",
        "fmc: no",
    ):
        assert words in found


def test_a_strict_section_has_nothing_to_lint() -> None:
    text = f"version = 1\n[snp]\nmeasurement = {digest(MEASUREMENT)}\n[snp.min_reported_tcb]\nsnp = 24"
    assert Policy.parse(text, [VERIFIER]).lint() == []


@pytest.mark.parametrize("value", ["0", '"on"', "[true]"])
def test_a_flag_is_true_false_or_any(value: str) -> None:
    with pytest.raises(PolicyError, match="expected true, false"):
        Policy.parse(f'version = 1\n[snp]\nmeasurement = "any"\ndebug = {value}', [VERIFIER])
