"""How Intel's levels and statuses come together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.forge.dcap import (
    COMPONENTS,
    TEE_TCB_SVN,
    Case,
    module,
    qe_identity,
    sgx,
    svn_level,
    tcb_info,
    tcb_level,
    tdx,
)
from tests.forge.pki import NOW

from enarx.attest import AnyBinding, AuthenticityOnly, Claims, EvidenceRejected, Verifier
from enarx.attest.dcap import TcbStatus
from enarx.attest.sgx import VERIFIER as SGX
from enarx.attest.tdx import VERIFIER as TDX
from enarx.attest.tdx import TdxDetail

UP, OUT, GONE = "UpToDate", "OutOfDate", "Revoked"
HARDEN, CONFIGURE = "SWHardeningNeeded", "ConfigurationNeeded"
BOTH, OUT_CONFIGURE = "ConfigurationAndSWHardeningNeeded", "OutOfDateConfigurationNeeded"

# Platform, part of it (quoting enclave, TDX module), both together.
CONVERGED = (
    (UP, UP, UP),
    (HARDEN, UP, HARDEN),
    (CONFIGURE, UP, CONFIGURE),
    (BOTH, UP, BOTH),
    (OUT, UP, OUT),
    (OUT_CONFIGURE, UP, OUT_CONFIGURE),
    (GONE, UP, GONE),
    (UP, OUT, OUT),
    (HARDEN, OUT, OUT),
    (CONFIGURE, OUT, OUT_CONFIGURE),
    (BOTH, OUT, OUT_CONFIGURE),
    (OUT, OUT, OUT),
    (OUT_CONFIGURE, OUT, OUT_CONFIGURE),
    (GONE, OUT, GONE),
    (UP, GONE, GONE),
    (HARDEN, GONE, GONE),
    (CONFIGURE, GONE, GONE),
    (BOTH, GONE, GONE),
    (OUT, GONE, GONE),
    (OUT_CONFIGURE, GONE, GONE),
    (GONE, GONE, GONE),
)


def judge(case: Case) -> Claims:
    verifier = Verifier(tees=[SGX, TDX], anchors=case.anchors, policy=AuthenticityOnly())
    return verifier.verify(case.quote.raw, collateral=case.collateral, binding=AnyBinding(), now=NOW)


def status(case: Case) -> str | None:
    """The status, or what a refusal found; revoked is never accepted."""
    try:
        return judge(case).tcb_status
    except EvidenceRejected as refused:
        check = refused.check
    found = check.found
    assert check.name == "dcap.tcb.revoked"
    assert isinstance(found, TcbStatus)
    return found.value


@pytest.mark.parametrize(("platform", "part", "together"), CONVERGED)
def test_status_of_enclave_platforms(platform: str, part: str, together: str) -> None:
    case = Case(
        info=tcb_info("SGX", tcb_level(platform, tdx=None)), identity=qe_identity("SGX", svn_level(4, part))
    )
    assert status(case) == together


@pytest.mark.parametrize(("platform", "part", "together"), CONVERGED)
def test_status_of_td_platforms(platform: str, part: str, together: str) -> None:
    """The quoting enclave and the TDX module weigh alike; an up-to-date module hides no old platform (6.2)."""
    modules = [module("TDX_01", svn_level(6, part))]
    of_module = tdx().but(info=tcb_info("TDX", tcb_level(platform), tdxModuleIdentities=modules))
    assert status(of_module) == together
    of_qe = tdx().but(
        info=tcb_info("TDX", tcb_level(platform)), identity=qe_identity("TDX", svn_level(4, part))
    )
    assert status(of_qe) == together


@pytest.mark.parametrize("word", ["TDRelaunchAdvised", "UPTODATE", "uptodate", "", "NotSupported"])
def test_a_status_that_is_not_known_is_refused(word: str) -> None:
    for case in (
        Case(info=tcb_info("SGX", tcb_level(word, tdx=None))),
        Case(identity=qe_identity("SGX", svn_level(4, word))),
        tdx().but(info=tcb_info("TDX", tdxModuleIdentities=[module("TDX_01", svn_level(6, word))])),
    ):
        with pytest.raises(Exception, match="tcbStatus") as refused:
            judge(case)
        assert type(refused.value).__name__ == "MalformedCollateral"


def test_a_part_has_only_three_statuses() -> None:
    with pytest.raises(Exception, match="tcbStatus"):
        judge(Case(identity=qe_identity("SGX", svn_level(4, HARDEN))))


def level(tdx_svns: bytes, word: str = UP, **changes: Any) -> dict[str, Any]:
    return tcb_level(word, tdx=tdx_svns, **changes)


def test_every_component_of_a_td_counts() -> None:
    """From module version 1 on the first two are the module's own."""
    for at in range(16):
        case = tdx().but(
            info=tcb_info("TDX", level(bytes(at) + b"\xff" + bytes(15 - at), pce_svn=0, sgx=bytes(16)))
        )
        if at < 2:
            assert judge(case).tcb_status == UP
            continue
        with pytest.raises(EvidenceRejected) as refused:
            judge(case)
        assert refused.value.check.name == "dcap.tcb.level"


@pytest.mark.parametrize("at", range(16))
def test_every_component_of_the_platform_counts_for_a_td(at: int) -> None:
    case = tdx().but(info=tcb_info("TDX", level(bytes(16), sgx=bytes(at) + b"\xff" + bytes(15 - at))))
    with pytest.raises(EvidenceRejected) as refused:
        judge(case)
    assert refused.value.check.name == "dcap.tcb.level"


def old_module(**changes: Any) -> Case:
    """A module of version 0, whose level is that of the platform."""
    return tdx(body={"tee_tcb_svn": bytes([5, 0, 3]) + bytes(13)}, **changes)


def test_a_module_of_version_0_is_judged_by_the_platforms_levels() -> None:
    newest, older = bytes([6, 0, 3]) + bytes(13), bytes([4, 0, 2]) + bytes(13)
    case = old_module().but(info=tcb_info("TDX", level(newest), level(older, OUT)))
    claims = judge(case)
    assert claims.tcb_status == OUT
    assert isinstance(claims.detail, TdxDetail)
    assert claims.detail.tcb.module is None
    assert claims.detail.module_id == ""


@pytest.mark.parametrize("spelling", ["TDX_0A", "tdx_0a"])
def test_modules_are_found_whatever_the_case_of_their_name(spelling: str) -> None:
    """go-tdx-guest looks for TDX_0a and finds no TDX_0A."""
    case = tdx(body={"tee_tcb_svn": bytes([6, 10, 3]) + bytes(13)})
    claims = judge(case.but(info=tcb_info("TDX", tdxModuleIdentities=[module("TDX_01"), module(spelling)])))
    assert isinstance(claims.detail, TdxDetail)
    assert claims.detail.module_id == "TDX_0A"


# Relaunch: the TD was launched under an old module; the module that is loaded now is current


def preserved(launched: bytes = bytes([5, 1, 3]), now: bytes = bytes([6, 1, 3]), **changes: Any) -> Case:
    svns = {"tee_tcb_svn": launched.ljust(16, b"\0"), "tee_tcb_svn2": now.ljust(16, b"\0")}
    return tdx(5, body_type=3, body=svns).but(
        info=changes.pop("info", None) or info_with(**changes), identity=qe_identity("TDX")
    )


def info_with(
    *levels: dict[str, Any], modules: list[dict[str, Any]] | None = None, **changes: Any
) -> dict[str, Any]:
    known = [
        module("TDX_01", svn_level(6), svn_level(4, OUT, ["INTEL-SA-9"])),
        module("TDX_03", svn_level(2)),
    ]
    return tcb_info("TDX", *levels, tdxModuleIdentities=modules or known, **changes)


def test_relaunch_is_advised_when_only_the_launch_was_before_the_update() -> None:
    claims = judge(preserved())
    assert claims.tcb_status == "TDRelaunchAdvised"
    assert isinstance(claims.detail, TdxDetail)
    assert claims.detail.tcb.advisories == {"INTEL-SA-9"}


def test_relaunch_is_advised_across_module_versions() -> None:
    assert judge(preserved(now=bytes([2, 3, 3]))).tcb_status == "TDRelaunchAdvised"
    newest = level(bytes([7, 0, 3]) + bytes(13))
    assert judge(preserved(now=bytes([7, 0, 3]), info=info_with(newest))).tcb_status == "TDRelaunchAdvised"


@pytest.mark.parametrize("word", [CONFIGURE, BOTH])
def test_relaunch_may_go_with_configuration(word: str) -> None:
    case = preserved(info=info_with(level(TEE_TCB_SVN, word)))
    assert judge(case).tcb_status == "TDRelaunchAdvisedConfigurationNeeded"


NOT_ENOUGH: dict[str, tuple[Callable[[], Case], str]] = {
    "the loaded module is old too": (lambda: preserved(now=bytes([5, 1, 3])), OUT),
    "its microcode is old": (lambda: preserved(now=bytes([6, 1, 2])), OUT),
    "another version of it is old": (lambda: preserved(now=bytes([1, 3, 3])), OUT),
    "version 0 of it is old": (lambda: preserved(now=bytes([5, 0, 3])), OUT),
    "the microcode beside version 0 is old": (lambda: preserved(now=bytes([6, 0, 2])), OUT),
    "the platform is old": (
        lambda: preserved(info=info_with(level(TEE_TCB_SVN, UP, pce_svn=14), level(TEE_TCB_SVN, OUT))),
        OUT,
    ),
    "the platform is old and misconfigured": (
        lambda: preserved(info=info_with(level(TEE_TCB_SVN, OUT_CONFIGURE))),
        OUT_CONFIGURE,
    ),
    "the quoting enclave is old": (
        lambda: preserved().but(identity=qe_identity("TDX", svn_level(4, OUT))),
        OUT,
    ),
    "TD 1.0 reports do not tell": (
        lambda: tdx(5, body={"tee_tcb_svn": bytes([5, 1, 3]).ljust(16, b"\0")}).but(info=info_with()),
        OUT,
    ),
    "the module was current at launch": (
        lambda: preserved(launched=bytes([6, 1, 3]), now=bytes([5, 1, 3])),
        UP,
    ),
    "the module was revoked": (
        lambda: preserved(info=info_with(modules=[module("TDX_01", svn_level(6), svn_level(4, GONE))])),
        GONE,
    ),
}


@pytest.mark.parametrize("why", NOT_ENOUGH)
def test_relaunch_is_not_advised_when(why: str) -> None:
    make, expected = NOT_ENOUGH[why]
    assert status(make()) == expected


def test_a_loaded_module_that_intel_does_not_know_is_refused() -> None:
    with pytest.raises(EvidenceRejected) as refused:
        judge(preserved(now=bytes([9, 7, 3])))
    assert refused.value.check.name == "tdx.module.current"


def test_a_level_below_in_the_list_is_not_taken_for_a_platform_that_has_a_higher_one() -> None:
    levels = [tcb_level(UP, tdx=None), tcb_level(GONE, sgx=bytes(16), pce_svn=0, tdx=None)]
    assert judge(sgx().but(info=tcb_info("SGX", *levels))).tcb_status == UP
    assert len(COMPONENTS) == 16
