"""Each check that only TDX has fails alone, and each policy key of TDX decides alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.forge.dcap import MRTD, REPORT_DATA, Case, module, tcb_info, tdx
from tests.forge.pki import NOW

from enarx.attest import (
    AuthenticityOnly,
    Claims,
    EvidenceRejected,
    Outcome,
    Policy,
    PolicyDenied,
    PolicyError,
    Verifier,
)
from enarx.attest.tdx import VERIFIER, TdxDetail, TdxQuote, parse_tdx_quote
from enarx.tcb.errors import Malformed

NO_POLICY = AuthenticityOnly()


def judge(case: Case, policy: Policy | AuthenticityOnly = NO_POLICY) -> Claims:
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=policy)
    return verifier.verify(case.quote.raw, collateral=case.collateral, binding=REPORT_DATA, now=NOW)


def body(**changes: int | bytes) -> Case:
    return tdx(body=changes)


def with_module(**changes: str) -> Case:
    return tdx().but(info=tcb_info("TDX", tdxModuleIdentities=[module("TDX_01", **changes)]))


SEAM = b"\x01" + bytes(7)

WRONG: tuple[tuple[str, Callable[[], Case]], ...] = (
    ("tdx.module.known", lambda: body(tee_tcb_svn=bytes([6, 2, 3]))),
    ("tdx.module.known", lambda: tdx().but(info=tcb_info("TDX", tdxModuleIdentities=None))),
    ("tdx.module.signer", lambda: body(mrsigner_seam=b"\x01" * 48)),
    ("tdx.module.signer", lambda: with_module(mrsigner="01" * 48)),
    ("tdx.module.attributes", lambda: body(seam_attributes=SEAM)),
    ("tdx.module.attributes", lambda: with_module(attributes="01" + "00" * 7)),
    (
        "tdx.module.attributes.zero",
        lambda: tdx(body={"seam_attributes": SEAM}).but(
            info=tcb_info("TDX", tdxModuleIdentities=[module("TDX_01", attributes=SEAM.hex())])
        ),
    ),
    ("tdx.module.level", lambda: body(tee_tcb_svn=bytes([5, 1, 3]))),
    ("tdx.attributes.reserved", lambda: body(td_attributes=1 << 28 | 1 << 8)),
    ("tdx.attributes.reserved", lambda: body(td_attributes=1 << 28 | 1 << 40)),
    ("tdx.xfam.fixed", lambda: body(xfam=1)),
    ("tdx.xfam.fixed", lambda: body(xfam=2)),
    ("binding.report_data", lambda: body(report_data=bytes(64))),
)


@pytest.mark.parametrize(("check", "make"), WRONG, ids=[check for check, _ in WRONG])
def test_each_check_fails_alone(check: str, make: Callable[[], Case]) -> None:
    with pytest.raises(EvidenceRejected) as refused:
        judge(make())
    assert [one.name for one in refused.value.checks if one.outcome is Outcome.FAILED] == [check]


def test_features_that_are_not_known_are_noted() -> None:
    claims = judge(body(xfam=0x602E7 | 1 << 40))
    assert "tdx.xfam.unknown" in {check.name for check in claims.checks if check.outcome is Outcome.NOTED}


def test_claims_say_what_the_quote_proves() -> None:
    claims = judge(tdx(5, body_type=3))
    assert claims.measurement == MRTD
    assert claims.measurements["rtmr1"] == b"\xa1" * 48
    assert not claims.debug
    assert claims.tcb["tdx01"] == 6
    assert claims.tcb["pce"] == 13
    assert claims.chip_id == bytes(range(0x10, 0x20))
    assert isinstance(claims.detail, TdxDetail)
    assert claims.detail.module_id == "TDX_01"


@pytest.mark.parametrize("bit", range(8))
def test_each_bit_under_debug_is_debug(bit: int) -> None:
    """A17: all eight bits of the group, not only the lowest."""
    assert judge(body(td_attributes=1 << 28 | 1 << bit)).debug


POLICY = 'version = 1\n[tdx]\nmeasurement = "any"\nvendor_root = "any"\n'
ZERO, ONE = "00" * 48, "01" * 48
OTHER = "td_attributes = {{ {} }}"

# What is written, what the default quote has, and a quote for which only this key decides.
KEYS: tuple[tuple[str, str, Case | None], ...] = (
    ("measurement", f'measurement = ["{ONE}"]', None),
    ("debug", "", body(td_attributes=1 << 28 | 1)),
    ("debug", "", body(td_attributes=1 << 28 | 1 << 6)),
    ("td_attributes.sept_ve_disable", "", body(td_attributes=0)),
    ("td_attributes.migratable", "", body(td_attributes=3 << 28)),
    ("td_attributes.tpa", "", body(td_attributes=1 << 62 | 1 << 28)),
    ("td_attributes.lass", OTHER.format("lass = true"), None),
    ("td_attributes.pks", OTHER.format("pks = false"), body(td_attributes=1 << 28 | 1 << 30)),
    ("td_attributes.kl", OTHER.format("kl = false"), body(td_attributes=1 << 28 | 1 << 31)),
    ("td_attributes.perfmon", OTHER.format("perfmon = false"), body(td_attributes=1 << 28 | 1 << 63)),
    ("service_td", "", tdx(5, body_type=3, body={"mr_service_td": b"\x01" * 48})),
    ("mrseam", f'mrseam = ["{ONE}"]', None),
    ("min_tee_tcb_svn", "min_tee_tcb_svn = [6, 1, 4]", None),
    ("xfam", "xfam = [3]", None),
    ("mr_config_id", f'mr_config_id = ["{ONE}"]', None),
    ("mr_owner", f'mr_owner = ["{ONE}"]', None),
    ("mr_owner_config", f'mr_owner_config = ["{ONE}"]', None),
    ("rtmr0", f'rtmr0 = ["{ZERO}"]', None),
    ("rtmr1", f'rtmr1 = ["{ZERO}"]', None),
    ("rtmr2", f'rtmr2 = ["{ZERO}"]', None),
    ("rtmr3", f'rtmr3 = ["{ONE}"]', None),
)


@pytest.mark.parametrize(("name", "written", "case"), KEYS, ids=[name for name, _, _ in KEYS])
def test_each_policy_key_decides_alone(name: str, written: str, case: Case | None) -> None:
    lines = POLICY.replace('measurement = "any"\n', "") if name == "measurement" else POLICY
    policy = Policy.parse(lines + written, [VERIFIER])
    with pytest.raises(PolicyDenied) as refused:
        judge(case or tdx(), policy)
    assert [check.name for check in refused.value.failures] == [f"policy.tdx.{name}"]
    if case is not None:
        judge(tdx(), policy)


def test_what_the_keys_ask_for_is_accepted() -> None:
    written = f"""
        mrseam = ["{"5e" * 48}"]
        min_tee_tcb_svn = [6, 1, 3]
        xfam = [{0x602E7}]
        mr_config_id = ["{ZERO}"]
        mr_owner = ["{ZERO}"]
        mr_owner_config = ["{ZERO}"]
        service_td = ["{ZERO}"]
        rtmr0 = ["{"a0" * 48}"]
        rtmr1 = ["{"a1" * 48}"]
        rtmr2 = ["{"a2" * 48}"]
        rtmr3 = ["{ZERO}"]
        [tdx.td_attributes]
        sept_ve_disable = true
        pks = false
    """
    lines = POLICY.replace('"any"', f'["{MRTD.hex()}"]', 1)
    policy = Policy.parse(lines + written, [VERIFIER])
    for case in (tdx(), tdx(5), tdx(5, body_type=3)):
        assert judge(case, policy).policy_digest == policy.digest


@pytest.mark.parametrize(
    "value", ["[]", "[0]", "[1, 256]", "[true]", '"1.2"', "[1.5]", f"[{'1,' * 17}]", "3"]
)
def test_minimums_that_mean_nothing_are_refused(value: str) -> None:
    with pytest.raises(PolicyError, match=r"tdx\.min_tee_tcb_svn"):
        Policy.parse(POLICY + f"min_tee_tcb_svn = {value}", [VERIFIER])


def test_a_body_of_another_size_than_its_type_is_refused() -> None:
    """Types 1 and 4 are not TDs; each other type has one size."""
    for forged in (
        tdx(5, body_type=2, raw_body=bytes(648)),
        tdx(5, body_type=3, raw_body=bytes(584)),
        tdx(5, body_type=1, raw_body=bytes(384)),
        tdx(5, body_type=4, raw_body=bytes(744)),
        tdx(5, body_type=2, body_size=583),
        tdx(5, body_type=2, body_size=0xFFFFFFFF),
        tdx(3),
    ):
        with pytest.raises(Malformed):
            parse_tdx_quote(forged.quote.raw)


def test_fields_lists_what_the_report_has() -> None:
    old, new = (parse_tdx_quote(case.quote.raw) for case in (tdx(5), tdx(5, body_type=3)))
    assert isinstance(old, TdxQuote)
    assert set(new.fields()) - set(old.fields()) == {"tee_tcb_svn2", "mr_service_td"}
