"""What only SGX has: claims, notes, and each policy key of ``[sgx]`` deciding alone, those shared with TDX included."""

from __future__ import annotations

import pytest
from tests.forge.dcap import (
    FMSPC,
    MRENCLAVE,
    MRSIGNER,
    PPID,
    REPORT_DATA,
    Case,
    pck,
    pck_ca,
    root,
    sgx,
    sgx_extension,
    tcb_info,
    tcb_level,
    tdx,
)
from tests.forge.pki import NOW

from enarx.attest import AuthenticityOnly, Claims, Outcome, Policy, PolicyDenied, PolicyError, Verifier
from enarx.attest.sgx import VERIFIER, SgxDetail, parse_sgx_quote
from enarx.tcb.errors import Malformed

NO_POLICY = AuthenticityOnly()


def judge(case: Case, policy: Policy | AuthenticityOnly = NO_POLICY) -> Claims:
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=policy)
    return verifier.verify(case.quote.raw, collateral=case.collateral, binding=REPORT_DATA, now=NOW)


def flags(value: int) -> Case:
    return sgx(body={"attributes": value.to_bytes(8, "little") + b"\xe7" + bytes(7)})


def status(word: str, *advisories: str) -> Case:
    return sgx().but(info=tcb_info("SGX", tcb_level(word, tdx=None, advisories=list(advisories))))


def single_package() -> Case:
    return sgx(chain=(pck(extension=sgx_extension(instance=None)), pck_ca(), root()))


def test_claims_say_what_the_quote_proves() -> None:
    claims = judge(sgx())
    assert claims.measurement == MRENCLAVE
    assert claims.signer == MRSIGNER
    assert claims.chip_id == PPID
    assert claims.tcb["sgx01"] == 3
    assert claims.tcb["pce"] == 13
    assert not claims.debug
    assert isinstance(claims.detail, SgxDetail)
    assert claims.detail.report.isv_prod_id == 7
    assert claims.detail.platform.pck.fmspc == FMSPC


def test_debug_enclaves_say_so() -> None:
    assert judge(flags(7)).debug


def test_flags_that_are_not_known_are_noted() -> None:
    claims = judge(flags(5 | 1 << 30))
    assert "sgx.attributes.unknown" in {one.name for one in claims.checks if one.outcome is Outcome.NOTED}


POLICY = 'version = 1\n[sgx]\nmeasurement = "any"\nvendor_root = "any"\n'
KSS = flags(5 | 1 << 7)
BYTE16, BYTE32, BYTE64 = "01" * 16, "01" * 32, "01" * 64

KEYS: tuple[tuple[str, str, Case | None], ...] = (
    ("measurement", f'measurement = ["{BYTE32}"]', None),
    ("debug", "", flags(7)),
    ("attributes.init", "", flags(4)),
    ("attributes.provision_key", "", flags(5 | 1 << 4)),
    ("attributes.launch_key", "", flags(5 | 1 << 5)),
    ("attributes.mode64", "attributes = { mode64 = true }", flags(1)),
    ("attributes.kss", "attributes = { kss = true }", None),
    ("attributes.xfrm", "attributes = { xfrm = [3] }", None),
    ("attributes.unknown", "attributes = { unknown = [0] }", flags(5 | 1 << 30)),
    ("mrsigner", f'mrsigner = ["{BYTE32}"]', None),
    ("isv_prod_id", "isv_prod_id = [1, 2]", None),
    ("min_isv_svn", "min_isv_svn = 4", None),
    ("isv_family_id", f'isv_family_id = ["{BYTE16}"]', None),
    ("isv_ext_prod_id", f'isv_ext_prod_id = ["{BYTE16}"]', None),
    ("config_id", f'config_id = ["{BYTE64}"]', None),
    ("min_config_svn", "min_config_svn = 1", None),
    ("misc_select", 'misc_select = ["00000000"]', sgx(body={"misc_select": 1})),
    ("cet_attributes", 'cet_attributes = ["00"]', sgx(body={"cet_attributes": 1})),
    ("tcb_status", "", status("SWHardeningNeeded")),
    ("tcb_status", "", status("OutOfDate")),
    ("tcb_status", 'tcb_status = ["UpToDate", "ConfigurationNeeded"]', status("OutOfDate")),
    ("advisories", 'advisories = ["INTEL-SA-1"]', status("UpToDate", "INTEL-SA-1", "INTEL-SA-2")),
    ("advisories", "advisories = []", status("UpToDate", "INTEL-SA-1")),
    (
        "denied_advisories",
        'denied_advisories = ["INTEL-SA-2"]',
        status("UpToDate", "INTEL-SA-1", "INTEL-SA-2"),
    ),
    ("min_tcb_evaluation_data_number", "min_tcb_evaluation_data_number = 18", None),
    ("min_tcb_date", "min_tcb_date = 2024-03-14", None),
    ("fmspc", 'fmspc = ["00906ed50000"]', None),
    ("sgx_type", 'sgx_type = ["standard", "scalable-with-integrity"]', None),
    ("smt", "smt = false", None),
    ("smt", "smt = true", single_package()),
    ("dynamic_platform", "dynamic_platform = false", None),
    ("cached_keys", "cached_keys = false", None),
    ("platforms", f'platforms = ["{BYTE16}"]', None),
    ("denied_platforms", f'denied_platforms = ["{PPID.hex()}"]', None),
)


@pytest.mark.parametrize(("name", "written", "case"), KEYS, ids=[name for name, _, _ in KEYS])
def test_each_policy_key_decides_alone(name: str, written: str, case: Case | None) -> None:
    lines = POLICY.replace('measurement = "any"\n', "") if name == "measurement" else POLICY
    policy = Policy.parse(lines + written, [VERIFIER])
    with pytest.raises(PolicyDenied) as refused:
        judge(case or sgx(), policy)
    assert [check.name for check in refused.value.failures] == [f"policy.sgx.{name}"]
    if case is not None:
        judge(sgx(), policy)


def test_what_the_keys_ask_for_is_accepted() -> None:
    written = f"""
        mrsigner = ["{MRSIGNER.hex()}"]
        isv_prod_id = [7]
        min_isv_svn = 3
        isv_family_id = ["{"00" * 16}"]
        isv_ext_prod_id = ["{"00" * 16}"]
        config_id = ["{"00" * 64}"]
        misc_select = ["00000000"]
        cet_attributes = ["00"]
        tcb_status = ["UpToDate", "SWHardeningNeeded"]
        advisories = ["INTEL-SA-1"]
        denied_advisories = ["INTEL-SA-2"]
        min_tcb_evaluation_data_number = 17
        min_tcb_date = 2024-03-13
        fmspc = ["{FMSPC.hex()}"]
        sgx_type = ["scalable"]
        smt = true
        dynamic_platform = true
        cached_keys = true
        platforms = ["{PPID.hex()}"]
        denied_platforms = ["{BYTE16}"]
        [sgx.attributes]
        kss = false
        xfrm = [231]
        unknown = [0]
    """
    policy = Policy.parse(POLICY.replace('"any"', f'["{MRENCLAVE.hex()}"]', 1) + written, [VERIFIER])
    assert judge(status("SWHardeningNeeded", "INTEL-SA-1"), policy).policy_digest == policy.digest


@pytest.mark.parametrize(
    "line",
    [
        'min_tcb_date = "2024-03-13"',
        "min_tcb_date = 2024-03-13T00:00:00Z",
        "advisories = [1]",
        "denied_advisories = []",
        'denied_advisories = "any"',
        'tcb_status = ["uptodate"]',
        "tcb_status = []",
        'fmspc = ["00"]',
        "min_isv_svn = 65536",
    ],
)
def test_values_that_mean_nothing_are_refused(line: str) -> None:
    with pytest.raises(PolicyError, match=rf"sgx\.{line.partition(' ')[0]}"):
        Policy.parse(POLICY + line, [VERIFIER])


def lint(written: str) -> list[str]:
    lines = f'version = 1\n[sgx]\nmeasurement = ["{MRENCLAVE.hex()}"]\n'
    return [found.partition(":")[0] for found in Policy.parse(lines + written, [VERIFIER]).lint()]


def test_lint_finds_what_does_nothing_or_too_much() -> None:
    assert lint("") == []
    assert lint('tcb_status = ["UpToDate", "Revoked"]\nadvisories = []') == ["sgx.tcb_status"]
    assert lint('tcb_status = ["UpToDate", "OutOfDate"]') == ["sgx.tcb_status"]
    assert lint(f'config_id = ["{BYTE64}"]') == ["sgx.attributes.kss"]
    anything = 'version = 1\n[sgx]\nmeasurement = "any"\nisv_prod_id = [1]'
    found = {one.partition(":")[0] for one in Policy.parse(anything, [VERIFIER]).lint()}
    assert found == {"sgx.measurement", "sgx.mrsigner", "sgx.isv_prod_id"}


def test_a_td_is_no_enclave() -> None:
    with pytest.raises(Malformed):
        parse_sgx_quote(tdx().quote.raw)
