"""The TDX module: what it measures and reports, and how it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from tests.forge import intel
from tests.forge.firmware import TDX_SECTIONS, Ovmf

from enarx.attest._eventlog import Algorithm
from enarx.attest.dcap import BodyType
from enarx.attest.measure import PageOrder, extend, mrtd, parse_td_firmware
from enarx.attest.tdx._body import TdReport, parse_td_report
from enarx_emulator.errors import EmulatorError
from enarx_emulator.intel import tdx
from enarx_emulator.intel._structures import TD_INFO_AT, TD_PARAMS, fill
from enarx_emulator.intel.processor import MODELS, Processor
from enarx_emulator.intel.quoting import td_body
from enarx_emulator.intel.status import TdxError, TdxOperand, TdxStatus
from enarx_emulator.intel.tdx import TdxModule, td_params

PAGE = 4096
TDR, TDVPR = 0x10000, 0x20000


def module(model: str = "emeraldrapids", **changes: Any) -> TdxModule:
    """A module on a processor of its own."""
    return TdxModule(Processor(intel.SEED, MODELS[model]), **changes)


def allocated(on: TdxModule, tdr: int = TDR, hkid: int = 1) -> None:
    """A TD before TDH.MNG.INIT."""
    on.tdh_mng_create(tdr, hkid)
    on.tdh_mng_key_config(tdr)
    for _ in range(tdx.TDCS_PAGES):
        on.tdh_mng_addcx(tdr)


def with_vcpu(on: TdxModule, tdr: int = TDR, tdvpr: int = TDVPR) -> None:
    """Give a TD a virtual processor."""
    on.tdh_vp_create(tdr, tdvpr)
    for _ in range(tdx.TDVPS_PAGES):
        on.tdh_vp_addcx(tdr, tdvpr)
    on.tdh_vp_init(tdr, tdvpr)


def built(on: TdxModule, tdr: int = TDR, hkid: int = 1, **params: Any) -> None:
    """A TD before its memory."""
    allocated(on, tdr, hkid)
    on.tdh_mng_init(tdr, td_params(**params))
    with_vcpu(on, tdr, tdr + PAGE)


def finalized(on: TdxModule, tdr: int = TDR, hkid: int = 1, **params: Any) -> None:
    """A TD that may run."""
    built(on, tdr, hkid, **params)
    on.tdh_mr_finalize(tdr)


def reported(on: TdxModule, tdr: int = TDR, body: BodyType = BodyType.TD_1_5) -> TdReport:
    """What the module says of a TD."""
    return parse_td_report(td_body(on.tdg_mr_report(tdr, intel.CHALLENGE), body), body)


def refusal(call: Callable[..., object], *args: Any, **kwargs: Any) -> tuple[TdxStatus, TdxOperand]:
    """The status with which a function refuses, and the operand."""
    with pytest.raises(TdxError) as refused:
        call(*args, **kwargs)
    assert refused.value.code == refused.value.status | refused.value.operand
    return refused.value.status, refused.value.operand


@pytest.mark.parametrize("order", PageOrder)
def test_mrtd_is_the_one_that_is_computed_without_a_module(order: PageOrder) -> None:
    firmware = parse_td_firmware(Ovmf(tdx=TDX_SECTIONS).build())
    on = module()
    built(on)
    for section in firmware.sections:
        contents = section.data.ljust(section.size, b"\0")
        measured = section.attributes & 1
        pages = range(section.gpa, section.gpa + section.size, PAGE)
        for gpa in pages:
            on.tdh_mem_page_add(TDR, gpa, contents[gpa - section.gpa :][:PAGE])
            if measured and order is PageOrder.PER_PAGE:
                _extend(on, gpa)
        if measured and order is PageOrder.PER_SECTION:
            for gpa in pages:
                _extend(on, gpa)
    on.tdh_mr_finalize(TDR)
    assert reported(on).mrtd == mrtd(firmware, order=order)


def _extend(on: TdxModule, gpa: int) -> None:
    for chunk in range(gpa, gpa + PAGE, tdx.CHUNK_BYTES):
        on.tdh_mr_extend(TDR, chunk)


def test_a_report_says_what_the_td_is() -> None:
    on = module()
    given: dict[str, Any] = {
        "mr_config_id": b"c" * 48,
        "mr_owner": b"o" * 48,
        "mr_owner_config": b"w" * 48,
        "xfam": 0x602E7 & tdx.XFAM_ALLOWED,
        "attributes": tdx.SEPT_VE_DISABLE | 1 << 30,
    }
    finalized(on, **given)
    report = reported(on)
    assert (report.mr_config_id, report.mr_owner, report.mr_owner_config) == (b"c" * 48, b"o" * 48, b"w" * 48)
    assert report.xfam == given["xfam"]
    assert report.td_attributes.sept_ve_disable
    assert report.td_attributes.pks
    assert report.report_data == intel.CHALLENGE
    assert report.mrseam == tdx.module_mrseam(on.tee_tcb_svn)
    assert report.tee_tcb_svn == report.tee_tcb_svn2 == on.tee_tcb_svn
    assert report.rtmr0 == report.rtmr3 == bytes(48)
    assert reported(on, body=BodyType.TD_1_0).mrtd == report.mrtd


def test_rtmrs_grow_as_logs_are_replayed() -> None:
    on = module()
    finalized(on)
    digests = [hashlib.sha384(bytes([at])).digest() for at in range(3)]
    expected = bytes(48)
    for digest in digests:
        on.tdg_mr_rtmr_extend(TDR, 3, digest)
        expected = extend(Algorithm.SHA384, expected, digest)
    assert reported(on).rtmr3 == on.rtmr(TDR, 3) == expected
    assert on.rtmr(TDR, 0) == bytes(48)
    assert refusal(on.tdg_mr_rtmr_extend, TDR, 4, digests[0]) == (
        TdxStatus.TDX_OPERAND_INVALID,
        TdxOperand.RDX,
    )
    assert refusal(on.tdg_mr_rtmr_extend, TDR, 0, b"") == (TdxStatus.TDX_OPERAND_INVALID, TdxOperand.RCX)


def test_an_update_shows_in_running_tds_beside_what_they_started_under() -> None:
    on = module()
    finalized(on)
    old = on.tee_tcb_svn
    new = bytes([old[0] + 1]) + old[1:]
    on.update(new)
    report = reported(on)
    assert (report.tee_tcb_svn, report.tee_tcb_svn2) == (old, new)
    assert report.mrseam == tdx.module_mrseam(new)
    finalized(on, 0x90000, 2)
    assert reported(on, 0x90000).tee_tcb_svn == new
    with pytest.raises(EmulatorError, match="16"):
        on.update(b"short")


def test_service_tds_show_in_reports() -> None:
    on = module()
    finalized(on, 0x90000, 2)
    built(on)
    on.tdh_servtd_bind(TDR, 0x90000, kind=0)
    on.tdh_servtd_bind(TDR, 0x90000, kind=0)
    assert refusal(on.tdh_servtd_bind, TDR, 0x90000, kind=0, attributes=1)[0] is (
        TdxStatus.TDX_SERVTD_ATTR_MISMATCH
    )
    finalized(on, 0xA0000, 3, mr_owner=b"o" * 48)
    assert refusal(on.tdh_servtd_bind, TDR, 0xA0000, kind=0)[0] is (
        TdxStatus.TDX_SERVTD_ALREADY_BOUND_FOR_TYPE
    )
    assert refusal(on.tdh_servtd_bind, TDR, 0x90000, kind=1 << 16)[0] is TdxStatus.TDX_OPERAND_INVALID
    assert refusal(on.tdh_servtd_bind, TDR, TDR, kind=1)[0] is TdxStatus.TDX_TD_NOT_FINALIZED
    on.tdh_mr_finalize(TDR)
    assert refusal(on.tdh_servtd_bind, TDR, 0x90000, kind=1)[0] is TdxStatus.TDX_TD_FINALIZED
    assert any(reported(on).service_td)
    assert on.tdg_mr_report(TDR, bytes(64))[2] == 1
    assert on.tdg_mr_report(0x90000, bytes(64))[2] == 0


def test_reports_are_verified_on_their_own_platform_alone() -> None:
    on, other = module(), TdxModule(Processor(intel.SEED.child("other"), MODELS["emeraldrapids"]))
    finalized(on)
    finalized(other)
    mac = on.tdg_mr_report(TDR, bytes(64))[:256]
    on.tdg_mr_verifyreport(TDR, mac)
    assert refusal(other.tdg_mr_verifyreport, TDR, mac)[0] is TdxStatus.TDX_INVALID_REPORTMACSTRUCT
    assert refusal(on.tdg_mr_verifyreport, TDR, mac[:-1])[0] is TdxStatus.TDX_OPERAND_INVALID
    newer = mac[:16] + b"\xff" * 16 + mac[32:]
    assert refusal(on.tdg_mr_verifyreport, TDR, newer)[0] is TdxStatus.TDX_INVALID_CPUSVN
    assert on.tdg_mr_report(TDR, bytes(64))[TD_INFO_AT:] == on.tdg_mr_report(TDR, b"r" * 64)[TD_INFO_AT:]


@pytest.mark.parametrize(
    ("params", "operand"),
    [
        ({"attributes": 1 << 20}, TdxOperand.ATTRIBUTES),
        ({"attributes": tdx.MIGRATABLE | tdx.DEBUG}, TdxOperand.ATTRIBUTES),
        ({"attributes": tdx.MIGRATABLE | 1 << 63}, TdxOperand.ATTRIBUTES),
        ({"xfam": 1}, TdxOperand.XFAM),
        ({"xfam": 3 | 1 << 40}, TdxOperand.XFAM),
        ({"xfam": 3 | 0x20}, TdxOperand.XFAM),
        ({"xfam": 3 | 0xE0}, TdxOperand.XFAM),
        ({"max_vcpus": 0}, TdxOperand.MAX_VCPUS),
        ({"max_vcpus": 1000}, TdxOperand.MAX_VCPUS),
    ],
)
def test_tdh_mng_init_refuses(params: dict[str, Any], operand: TdxOperand) -> None:
    on = module()
    allocated(on)
    assert refusal(on.tdh_mng_init, TDR, td_params(**params)) == (TdxStatus.TDX_OPERAND_INVALID, operand)
    on.tdh_mng_init(TDR, td_params())


@pytest.mark.parametrize(
    ("changes", "operand"),
    [
        ({"eptp_controls": 0}, TdxOperand.EPTP_CONTROLS),
        ({"config_flags": 8}, TdxOperand.EXEC_CONTROLS),
        ({"tsc_frequency": 3}, TdxOperand.TSC_FREQUENCY),
        ({"tsc_frequency": 401}, TdxOperand.TSC_FREQUENCY),
    ],
)
def test_controls_of_td_params(changes: dict[str, int], operand: TdxOperand) -> None:
    on = module()
    allocated(on)
    good = TD_PARAMS.split(td_params())
    params = fill(TD_PARAMS, {**good, **changes})
    assert refusal(on.tdh_mng_init, TDR, params) == (TdxStatus.TDX_OPERAND_INVALID, operand)


def test_td_params_out_of_form() -> None:
    on = module()
    allocated(on)
    for params in (b"", bytes(1023), b"\xff" * 1024):
        assert refusal(on.tdh_mng_init, TDR, params) == (TdxStatus.TDX_OPERAND_INVALID, TdxOperand.RDX)


def test_order() -> None:
    on = module()
    every: list[tuple[Callable[..., object], tuple[object, ...]]] = [
        (on.tdh_mng_addcx, (TDR,)),
        (on.tdh_mng_init, (TDR, td_params())),
        (on.tdh_vp_create, (TDR, TDVPR)),
        (on.tdh_mem_page_add, (TDR, 0, bytes(PAGE))),
        (on.tdh_mr_extend, (TDR, 0)),
        (on.tdh_mr_finalize, (TDR,)),
        (on.tdg_mr_report, (TDR, bytes(64))),
    ]

    def all_refuse(calls: list[tuple[Callable[..., object], tuple[object, ...]]], status: TdxStatus) -> None:
        for call, operands in calls:
            assert refusal(call, *operands)[0] is status

    all_refuse(every, TdxStatus.TDX_PAGE_METADATA_INCORRECT)
    on.tdh_mng_create(TDR, 1)
    all_refuse(every, TdxStatus.TDX_TD_KEYS_NOT_CONFIGURED)
    on.tdh_mng_key_config(TDR)
    assert refusal(on.tdh_mng_key_config, TDR)[0] is TdxStatus.TDX_KEY_CONFIGURED
    assert refusal(*every[1][:1], *every[1][1])[0] is TdxStatus.TDX_TDCX_NUM_INCORRECT
    all_refuse(every[2:], TdxStatus.TDX_TDCS_NOT_ALLOCATED)
    for _ in range(tdx.TDCS_PAGES):
        on.tdh_mng_addcx(TDR)
    assert refusal(on.tdh_mng_addcx, TDR) == (TdxStatus.TDX_TDCX_NUM_INCORRECT, TdxOperand.TDCX)
    all_refuse(every[2:], TdxStatus.TDX_TD_NOT_INITIALIZED)
    on.tdh_mng_init(TDR, td_params())
    assert refusal(on.tdh_mng_init, TDR, td_params())[0] is TdxStatus.TDX_TD_INITIALIZED
    assert refusal(on.tdh_mr_finalize, TDR)[0] is TdxStatus.TDX_NO_VCPUS
    assert refusal(on.tdg_mr_report, TDR, bytes(64))[0] is TdxStatus.TDX_TD_NOT_FINALIZED
    with_vcpu(on)
    on.tdh_mr_finalize(TDR)
    all_refuse(every[3:6], TdxStatus.TDX_TD_FINALIZED)
    assert refusal(on.tdg_mr_report, TDR, bytes(63))[0] is TdxStatus.TDX_OPERAND_INVALID
    assert refusal(on.tdg_mr_report, TDR, bytes(64), sub_type=1) == (
        TdxStatus.TDX_OPERAND_INVALID,
        TdxOperand.R8,
    )
    on.tdh_mng_key_freeid(TDR)
    all_refuse(every, TdxStatus.TDX_PAGE_METADATA_INCORRECT)


def test_pages() -> None:
    on = module()
    built(on)
    invalid = TdxStatus.TDX_OPERAND_INVALID
    assert refusal(on.tdh_mem_page_add, TDR, 1, bytes(PAGE)) == (invalid, TdxOperand.RCX)
    assert refusal(on.tdh_mem_page_add, TDR, -PAGE, bytes(PAGE)) == (invalid, TdxOperand.RCX)
    assert refusal(on.tdh_mem_page_add, TDR, 1 << 51, bytes(PAGE)) == (invalid, TdxOperand.RCX)
    assert refusal(on.tdh_mem_page_add, TDR, 0, bytes(1 << 20)) == (invalid, TdxOperand.R9)
    on.tdh_mem_page_add(TDR, 0, bytes(PAGE))
    assert refusal(on.tdh_mem_page_add, TDR, 0, bytes(PAGE))[0] is TdxStatus.TDX_EPT_ENTRY_STATE_INCORRECT
    assert refusal(on.tdh_mr_extend, TDR, 128) == (invalid, TdxOperand.RCX)
    assert refusal(on.tdh_mr_extend, TDR, PAGE)[0] is TdxStatus.TDX_EPT_WALK_FAILED


def test_vcpus() -> None:
    on = module()
    allocated(on)
    on.tdh_mng_init(TDR, td_params(max_vcpus=1))
    assert refusal(on.tdh_vp_init, TDR, TDVPR)[0] is TdxStatus.TDX_PAGE_METADATA_INCORRECT
    assert refusal(on.tdh_vp_create, TDR, 7) == (TdxStatus.TDX_OPERAND_INVALID, TdxOperand.RCX)
    for beyond in (-PAGE, 1 << 52):
        assert refusal(on.tdh_vp_create, TDR, beyond)[0] is TdxStatus.TDX_OPERAND_ADDR_RANGE_ERROR
        assert refusal(on.tdh_mng_create, beyond, 7)[0] is TdxStatus.TDX_OPERAND_ADDR_RANGE_ERROR
    on.tdh_vp_create(TDR, TDVPR)
    assert refusal(on.tdh_vp_create, TDR, TDVPR)[0] is TdxStatus.TDX_PAGE_METADATA_INCORRECT
    assert refusal(on.tdh_vp_init, TDR, TDVPR) == (TdxStatus.TDX_TDCX_NUM_INCORRECT, TdxOperand.TDVPR)
    for _ in range(tdx.TDVPS_PAGES):
        on.tdh_vp_addcx(TDR, TDVPR)
    assert refusal(on.tdh_vp_addcx, TDR, TDVPR)[0] is TdxStatus.TDX_TDCX_NUM_INCORRECT
    on.tdh_vp_init(TDR, TDVPR)
    assert refusal(on.tdh_vp_init, TDR, TDVPR)[0] is TdxStatus.TDX_VCPU_STATE_INCORRECT
    assert refusal(with_vcpu, on, TDR, TDVPR + PAGE)[0] is TdxStatus.TDX_MAX_VCPUS_EXCEEDED


def test_key_identifiers_end_and_come_back() -> None:
    on = module()
    invalid = TdxStatus.TDX_OPERAND_INVALID
    assert refusal(on.tdh_mng_create, 7, 1) == (invalid, TdxOperand.RCX)
    assert refusal(on.tdh_mng_create, TDR, 0) == (invalid, TdxOperand.RDX)
    for hkid in tdx.HKIDS:
        assert on.free_hkid() == hkid
        on.tdh_mng_create(hkid * PAGE, hkid)
    assert refusal(on.free_hkid)[0] is TdxStatus.TDX_HKID_NOT_FREE
    assert refusal(on.tdh_mng_create, TDR * PAGE, 1) == (TdxStatus.TDX_HKID_NOT_FREE, TdxOperand.RDX)
    assert refusal(on.tdh_mng_create, PAGE, 1)[0] is TdxStatus.TDX_PAGE_METADATA_INCORRECT
    on.tdh_mng_key_freeid(5 * PAGE)
    assert on.free_hkid() == 5


def test_a_processor_without_tdx_has_no_module() -> None:
    with pytest.raises(EmulatorError, match="no TDX"):
        module("icelake")
