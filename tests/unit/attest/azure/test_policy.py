"""Each key of the sections of Azure decides alone: of the hardware, of the virtual TPM, of the machine."""

from __future__ import annotations

from typing import Any

import pytest
from tests.forge import dcap, snp, tpm
from tests.forge.azure import CONFIGURATION, USER_DATA, Case, ak_certificate, judge, tdx
from tests.forge.pki import NOW

from enarx.attest import Policy, PolicyDenied, PolicyError
from enarx.attest.azure import VERIFIER
from enarx.attest.ear import ear_of
from enarx.attest.registry import BUILTIN


def section(text: str, case: Case | None = None, vtpm: str = "", vm: str = "") -> list[str]:
    """The policy checks that fail."""
    case = case or Case()
    kind = "azure-snp" if case.snp else "azure-tdx"
    both = "".join(f'{name} = "any"\n' for name in ("measurement", "selection") if name not in vtpm)
    lines = [
        f'version = 1\n[{kind}]\nvendor_root = "any"\nrevocation = "any"',
        "" if "measurement" in text else 'measurement = "any"',
        text,
        f'[{kind}.vtpm]\nvendor_root = "any"\n{both}{vtpm}',
        f"[{kind}.vm]\n{vm}" if vm else "",
    ]
    try:
        judge(case, policy=Policy.parse("\n".join(lines), [VERIFIER]))
    except PolicyDenied as refused:
        return [check.name for check in refused.failures]
    return []


def written(value: bytes) -> str:
    return f'["{value.hex()}"]'


DIGEST = judge(Case()).detail.vtpm.measurement  # type: ignore[attr-defined]
VTPM = [
    ("measurement", written(DIGEST), written(bytes([1]) * 32), "measurement"),
    ("selection", "[0, 1, 2, 3, 4, 5, 6, 7]", "[0, 1]", "selection"),
    ("pcrs", f"{{ pcr3 = {written(tpm.PCRS[3])} }}", f"{{ pcr3 = {written(tpm.PCRS[4])} }}", "pcrs.pcr3"),
    ("event_log", '"any"', "[0]", "event_log"),
    ("reset_count", "[3]", "[2]", "reset_count"),
]
VM = [
    ("secure_boot", "true", "false", "secure_boot"),
    ("console_enabled", "false", "true", "console_enabled"),
    ("tpm_persisted", "false", "true", "tpm_persisted"),
    ("vm_unique_id", f'["{CONFIGURATION["vmUniqueId"]}"]', '["another"]', "vm_unique_id"),
    ("user_data", written(USER_DATA), written(bytes(64)), "user_data"),
]


@pytest.mark.parametrize("make", [Case, tdx])
@pytest.mark.parametrize(("name", "met", "broken", "check"), VTPM)
def test_each_key_of_the_virtual_tpm_decides_alone(
    make: Any, name: str, met: str, broken: str, check: str
) -> None:
    case: Case = make()
    kind = "azure-snp" if case.snp else "azure-tdx"
    assert section("", case, vtpm=f"{name} = {met}") == []
    assert section("", case, vtpm=f"{name} = {broken}") == [f"policy.{kind}.vtpm.{check}"]


@pytest.mark.parametrize("make", [Case, tdx])
@pytest.mark.parametrize(("name", "met", "broken", "check"), VM)
def test_each_key_of_the_machine_decides_alone(
    make: Any, name: str, met: str, broken: str, check: str
) -> None:
    case: Case = make()
    kind = "azure-snp" if case.snp else "azure-tdx"
    assert section("", case, vm=f"{name} = {met}") == []
    assert section("", case, vm=f"{name} = {broken}") == [f"policy.{kind}.vm.{check}"]


@pytest.mark.parametrize(
    ("case", "met", "broken", "check"),
    [
        (
            Case(),
            f"measurement = {written(snp.MEASUREMENT)}",
            f"measurement = {written(b'1' * 48)}",
            "measurement",
        ),
        (
            Case(),
            "min_reported_tcb = { snp = 24 }",
            "min_reported_tcb = { snp = 25 }",
            "min_reported_tcb.snp",
        ),
        (tdx(), f"measurement = {written(dcap.MRTD)}", f"measurement = {written(b'1' * 48)}", "measurement"),
        (
            tdx(),
            "td_attributes = { perfmon = false }",
            "td_attributes = { perfmon = true }",
            "td_attributes.perfmon",
        ),
        (Case(certificate=ak_certificate()), "ak_certified = true", "ak_certified = false", "ak_certified"),
        (tdx(), "ak_certified = false", "ak_certified = true", "ak_certified"),
    ],
)
def test_keys_of_the_hardware_decide_as_in_its_own_section(
    case: Case, met: str, broken: str, check: str
) -> None:
    kind = "azure-snp" if case.snp else "azure-tdx"
    assert section(met, case) == []
    assert section(broken, case) == [f"policy.{kind}.{check}"]


@pytest.mark.parametrize("kind", ["azure-snp", "azure-tdx"])
def test_lint_names_a_guest_that_is_left_open(kind: str) -> None:
    base = f"version = 1\n[{kind}]\nmeasurement = {written(b'1' * 48)}\n[{kind}.vtpm]\nselection = [0]\n"
    pinned = f"measurement = {written(DIGEST)}", f'measurement = "any"\npcrs = {{ pcr0 = {written(DIGEST)} }}'
    for text in pinned:
        assert Policy.parse(base + text, [VERIFIER]).lint() == []
    (found,) = Policy.parse(base + 'measurement = "any"', [VERIFIER]).lint()
    assert found.startswith(f"{kind}.vtpm.measurement: ")


def test_secure_boot_is_asked_for_by_default() -> None:
    for off in (False, None, "true"):
        case = Case(runtime={"vm-configuration": {**CONFIGURATION, "secure-boot": off}})
        assert section("", case) == ["policy.azure-snp.vm.secure_boot"]


PARAVISOR = f"measurement = {written(snp.MEASUREMENT)}"
GUEST = f"measurement = {written(DIGEST)}"


@pytest.mark.parametrize(
    ("own", "vtpm", "known"),
    [
        (PARAVISOR, GUEST, True),
        (PARAVISOR, f'measurement = "any"\npcrs = {{ pcr4 = {written(tpm.PCRS[4])} }}', True),
        (PARAVISOR, 'measurement = "any"', False),
        ('measurement = "any"', GUEST, False),
    ],
)
def test_a_result_knows_the_executables_only_if_paravisor_and_guest_were_judged(
    own: str, vtpm: str, known: bool
) -> None:
    text = (
        f'version = 1\n[azure-snp]\nvendor_root = "any"\nrevocation = "any"\n{own}\n'
        f'[azure-snp.vtpm]\nvendor_root = "any"\nselection = "any"\n{vtpm}'
    )
    claims = judge(Case(), policy=Policy.parse(text, [VERIFIER]))
    assert ear_of(claims, now=NOW).appraisal.vector["executables"] == (3 if known else 33)


def test_a_debuggable_guest_is_denied_by_default() -> None:
    """A17."""
    case = Case(snp=snp.Case(report=snp.Report().but(policy=0xB001F)))
    assert section("", case) == ["policy.azure-snp.debug"]


def test_roots_of_ours_are_none_of_a_vendor_neither_for_the_hardware_nor_for_the_key() -> None:
    text = """
        version = 1
        [azure-snp]
        measurement = "any"
        revocation = "any"
        vtpm = { measurement = "any", selection = "any" }
    """
    with pytest.raises(PolicyDenied) as refused:
        judge(Case(), policy=Policy.parse(text, [VERIFIER]))
    assert [check.name for check in refused.value.failures] == [
        "policy.azure-snp.vendor_root",
        "policy.azure-snp.vtpm.vendor_root",
    ]


@pytest.mark.parametrize(
    "text",
    [
        '[azure-snp]\nmeasurement = "any"',
        '[azure-snp]\nmeasurement = "any"\nvtpm = { measurement = "any" }',
        '[azure-tdx]\nmeasurement = "any"\nvtpm = "any"',
        '[azure-tdx]\nvtpm = { measurement = "any", selection = "any" }',
        '[azure-snp]\nmeasurement = "any"\nvtpm = { measurement = "any", selection = "any" }\nvm = {}',
    ],
)
def test_paravisor_and_guest_must_both_be_written(text: str) -> None:
    """The paravisor's measurement says nothing of what it starts."""
    with pytest.raises(PolicyError):
        Policy.parse(f"version = 1\n{text}", [VERIFIER])


def test_a_policy_for_the_bare_hardware_is_none_for_a_machine_of_azure() -> None:
    text = 'version = 1\n[snp]\nmeasurement = "any"\nvendor_root = "any"\nrevocation = "any"'
    with pytest.raises(PolicyDenied) as refused:
        judge(Case(), policy=Policy.parse(text, BUILTIN.values()))
    assert [check.name for check in refused.value.failures] == ["policy.tee"]
