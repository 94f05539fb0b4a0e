"""Machines of Intel's as a host drives them and guests see them."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Mapping
from typing import Any

import pytest
from tests.forge import intel

from enarx.attest.dcap import parse_enclave_report
from enarx.attest.measure import (
    Permission,
    Sigstruct,
    TdFirmware,
    TdSection,
    build_sigstruct,
    enclave_size,
    flat_pages,
    mrenclave,
    mrtd,
)
from enarx.attest.tdx import parse_tdx_quote
from enarx.attest.tdx._tdvf import Attribute, SectionKind
from enarx.tcb.errors import EnarxError, Malformed
from enarx_emulator.errors import EmulatorError, FirmwareError
from enarx_emulator.intel.sgx import Flag, attributes
from enarx_emulator.intel.status import SgxError, SgxStatus, TdxError, TdxStatus
from enarx_emulator.intel.tdx import PAGE_BYTES as PAGE
from enarx_emulator.intel.tdx import TDCS_PAGES, TDVPS_PAGES, td_params
from enarx_emulator.machine import Machine
from enarx_emulator.state import Memory

BOTH = pytest.mark.parametrize("kind", ["sgx", "tdx"])


def expected_mrtd(image: bytes) -> bytes:
    """MRTD of an image from 0x100000."""
    whole = TdSection(
        gpa=0x100000,
        size=-(-len(image) // PAGE) * PAGE,
        kind=SectionKind.BFV,
        attributes=Attribute.MR_EXTEND,
        data=image,
    )
    return mrtd(TdFirmware(sections=(whole,)))


def sgx_layout(image: bytes) -> dict[str, Any]:
    """How an image lies in an enclave."""
    padded = image.ljust(-(-len(image) // PAGE) * PAGE, b"\0")
    pages = flat_pages(padded, tcs=(), permissions=Permission.R | Permission.X)
    return {"size": enclave_size(len(padded)), "pages": pages}


@pytest.mark.parametrize("image", [b"x", intel.IMAGE, bytes(PAGE), b"y" * (5 * PAGE)])
def test_measurements_are_those_that_a_tenant_computes(image: bytes) -> None:
    assert intel.launch(intel.machine("sgx"), image)[1] == mrenclave(**sgx_layout(image))
    assert intel.launch(intel.machine("tdx"), image)[1] == expected_mrtd(image)


def test_a_sigstruct_of_one_s_own() -> None:
    machine = intel.machine("sgx")
    content = Sigstruct(
        date=0x20260101,
        attributes=attributes(),
        attributes_mask=b"\xff" * 16,
        enclave_hash=mrenclave(**sgx_layout(intel.IMAGE)),
        isv_prod_id=77,
        isv_svn=5,
    )
    signed = build_sigstruct(content, intel.enclave_key("stranger-enclave-signer"))
    guest, _ = intel.launch(machine, sigstruct=signed)
    report = parse_enclave_report(machine.guest(guest).tree().read("attestation/report")[:384])
    assert (report.isv_prod_id, report.isv_svn) == (77, 5)
    with pytest.raises(SgxError) as refused:
        intel.launch(machine, b"another image", sigstruct=signed)
    assert refused.value.status is SgxStatus.SGX_INVALID_MEASUREMENT


@BOTH
def test_a_restarted_machine_is_the_same(kind: str) -> None:
    store = intel.vendor_store()
    machine = intel.machine(kind, store=store)
    again = intel.machine(kind, store=store, saved=machine.save())
    info, new = machine.command("info", {}), again.command("info", {})
    assert info == new
    assert info["kind"] == kind
    assert info["emulated"] is True
    assert isinstance(info["roots"], list)
    root = info["roots"][0]
    assert isinstance(root, bytes)
    assert root.startswith(b"-----BEGIN CERTIFICATE-----")
    with pytest.raises(EmulatorError, match="not that of an intel processor"):
        intel.machine(kind, saved={"fuses": b""})
    with pytest.raises(EmulatorError, match="but this machine is"):
        intel.machine(kind, saved=machine.save(), product="sapphirerapids")


def test_sealing_keys_outlive_a_restart_and_updates() -> None:
    def keys(of: Machine) -> list[bytes]:
        tree = of.guest(intel.launch(of)[0]).tree()
        return [tree.read(f"attestation/keys/_sgx_{name}") for name in ("mrenclave", "mrsigner")]

    store = intel.vendor_store()
    machine = intel.machine("sgx", store=store)
    first = keys(machine)
    assert first[0] != first[1]
    assert keys(intel.machine("sgx", store=store, saved=machine.save())) == first
    other = {**machine.save(), "fuses": b"another chip, another chip"}
    assert set(keys(intel.machine("sgx", store=store, saved=other))).isdisjoint(first)


def test_an_enclave_makes_reports_for_others() -> None:
    machine = intel.machine("sgx")
    one, other = (machine.guest(intel.launch(machine)[0]).tree() for _ in range(2))
    one.write("attestation/target_info", other.read("attestation/my_target_info"))
    one.write("attestation/user_report_data", b"hello")
    report = one.read("attestation/report")
    assert len(report) == 432
    assert parse_enclave_report(report[:384]).report_data == b"hello".ljust(64, b"\0")
    target = machine.command("target_info", {})["target_info"]
    assert isinstance(target, bytes)
    one.write("attestation/target_info", target)
    quoted = machine.command("quote", {"report": one.read("attestation/report")})["quote"]
    assert isinstance(quoted, bytes)
    for arguments in ({"report": report}, {"report": b""}, {"report": report, "version": 9}):
        with pytest.raises(SgxError):
            machine.command("quote", arguments)


def test_what_a_td_sees() -> None:
    machine = intel.machine("tdx")
    guest, measurement = intel.launch(machine)
    tree = machine.guest(guest).tree()
    assert tree.list("") == ["measurements", "report"]
    assert tree.read("measurements/mrtd:sha384") == measurement
    assert tree.read("measurements/rtmr3:sha384") == bytes(48)
    digest = hashlib.sha384(b"a workload").digest()
    tree.write("measurements/rtmr3:sha384", digest)
    extended = tree.read("measurements/rtmr3:sha384")
    assert extended == hashlib.sha384(bytes(48) + digest).digest()
    report = parse_tdx_quote(intel.quote(machine, guest)).report
    assert report.rtmr3 == extended
    with pytest.raises(PermissionError) as refused:
        tree.write("measurements/mrtd:sha384", digest)
    assert refused.value.errno == errno.EACCES


def test_firmware_events_lead_to_the_registers() -> None:
    store = intel.vendor_store()
    machine = intel.machine("tdx", store=store)
    events: list[object] = [[0, 0x80000008, b"firmware"], [1, 0xD, b"kernel"], [2, 0xD, b"command line"]]
    answer = machine.command("launch", {"image": intel.IMAGE, "events": events})
    guest, log, measurement = answer["guest"], answer["event_log"], answer["measurement"]
    assert isinstance(guest, int)
    assert isinstance(log, bytes)
    assert isinstance(measurement, bytes)
    collateral = intel.vendor(store).collateral("TDX", intel.model_of(machine), intel.NOW)
    policy = intel.strict_policy("tdx", measurement) + "event_log = true\n"
    claims = intel.verify(intel.quote(machine, guest), intel.with_log(collateral, log), policy=policy)
    assert {"tdx.event_log.rtmr0", "tdx.event_log.rtmr1", "tdx.event_log.rtmr2"} <= {
        check.name for check in claims.checks
    }


@BOTH
def test_a_hundred_guests_on_one_platform(kind: str) -> None:
    machine = intel.machine(kind)
    guests = [intel.launch(machine, at.to_bytes(4, "little")) for at in range(100)]
    assert len({measurement for _, measurement in guests}) == 100
    quotes = {intel.quote(machine, guest) for guest, _ in guests}
    assert len(quotes) == 100
    for guest, _ in guests:
        machine.command("stop", {"guest": guest})
    for guest, _ in guests:
        with pytest.raises(FirmwareError):
            machine.guest(guest)
    assert intel.launch(machine)


def test_tds_end_with_the_key_identifiers_and_enclaves_with_the_epc() -> None:
    machine = intel.machine("tdx")
    guests = [intel.launch(machine)[0] for _ in range(127)]
    with pytest.raises(TdxError) as refused:
        intel.launch(machine)
    assert refused.value.status is TdxStatus.TDX_HKID_NOT_FREE
    machine.command("stop", {"guest": guests[3]})
    assert intel.launch(machine)[0] not in guests


@BOTH
def test_a_launch_that_fails_leaves_nothing(kind: str) -> None:
    machine = intel.machine(kind)
    bad: dict[str, Any] = {"config_svn": 9} if kind == "sgx" else {"vcpus": 1000}
    for _ in range(200):
        with pytest.raises(FirmwareError):
            intel.launch(machine, **bad)
    assert intel.launch(machine)


def test_an_enclave_that_is_refused_at_its_start_leaves_no_pages() -> None:
    machine = intel.machine("sgx")
    intel.launch(machine)
    free = machine._platform.cpu.free_pages  # type: ignore[attr-defined]
    with pytest.raises(SgxError):
        intel.launch(machine, sigstruct=bytes(1808))
    assert machine._platform.cpu.free_pages == free  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("sgx", {}),
        ("sgx", {"image": 7}),
        ("sgx", {"image": b"x", "unknown": 1}),
        ("sgx", {"image": b"x", "debug": 1}),
        ("sgx", {"image": b"x", "quote_version": 9}),
        ("tdx", {}),
        ("tdx", {"image": "text"}),
        ("tdx", {"image": b"x", "mr_owner": b"short"}),
        ("tdx", {"image": b"x", "events": [[9, 1, b""]]}),
        ("tdx", {"image": b"x", "events": [b""]}),
        ("tdx", {"image": b"x", "events": [[1, 1, b""]] * 257}),
        ("tdx", {"image": b"x", "xfam": -1}),
    ],
)
def test_arguments_out_of_form(kind: str, arguments: Mapping[str, object]) -> None:
    with pytest.raises(Malformed):
        intel.machine(kind).command("launch", arguments)


def test_commands_that_do_not_exist() -> None:
    with pytest.raises(SgxError) as sgx:
        intel.machine("sgx").command("tdh_mng_create", {})
    assert sgx.value.status is SgxStatus.UNDEFINED_OPCODE
    with pytest.raises(TdxError) as tdx:
        intel.machine("tdx").command("tdg_mr_report", {"tdr": 0, "report_data": bytes(64)})
    assert tdx.value.status is TdxStatus.TDX_OPERAND_INVALID


def test_an_enclave_built_by_single_instructions_is_a_guest_too() -> None:
    machine = intel.machine("sgx")
    layout = sgx_layout(intel.IMAGE)
    handle = machine.command("ecreate", {"size": layout["size"]})["guest"]
    assert isinstance(handle, int)
    with pytest.raises(SgxError):
        machine.guest(handle)
    for page in layout["pages"]:
        where = {"guest": handle, "offset": page.offset}
        machine.command(
            "eadd", {**where, "contents": page.contents, "page_type": 2, "permissions": int(page.permissions)}
        )
        for at in range(0, PAGE, 256):
            machine.command("eextend", {"guest": handle, "offset": page.offset + at})
    content = Sigstruct(
        date=0x20260101,
        attributes=attributes(Flag.MODE64),
        attributes_mask=b"\xff" * 16,
        enclave_hash=mrenclave(**layout),
    )
    signed = build_sigstruct(content, intel.enclave_key())
    answer = machine.command("einit", {"guest": handle, "sigstruct": signed})
    assert answer["measurement"] == mrenclave(**layout)
    assert intel.quote(machine, handle)
    machine.command("eremove", {"guest": handle})
    with pytest.raises(SgxError):
        machine.guest(handle)


def test_a_td_built_by_single_functions_is_a_guest_too() -> None:
    machine = intel.machine("tdx")
    td, vp = {"tdr": PAGE}, {"tdr": PAGE, "tdvpr": 2 * PAGE}
    steps: list[tuple[str, dict[str, Any]]] = [
        ("tdh_mng_create", {**td, "hkid": 9}),
        ("tdh_mng_key_config", td),
        *[("tdh_mng_addcx", td)] * TDCS_PAGES,
        ("tdh_mng_init", {**td, "params": td_params()}),
        ("tdh_vp_create", vp),
        *[("tdh_vp_addcx", vp)] * TDVPS_PAGES,
        ("tdh_vp_init", vp),
        ("tdh_mem_page_add", {**td, "gpa": 0x100000, "contents": b"x".ljust(PAGE, b"\0")}),
        *[("tdh_mr_extend", {**td, "gpa": 0x100000 + at}) for at in range(0, PAGE, 256)],
    ]
    for name, operands in steps:
        machine.command(name, operands)
        with pytest.raises(TdxError):
            machine.guest(PAGE)
    machine.command("tdh_mr_finalize", td)
    assert machine.guest(PAGE).tree().read("measurements/mrtd:sha384") == expected_mrtd(b"x")
    assert intel.quote(machine, PAGE)
    machine.command("tdh_mng_key_freeid", td)
    with pytest.raises(TdxError):
        machine.guest(PAGE)


@BOTH
def test_a_restart_with_newer_microcode_is_certified_anew(kind: str) -> None:
    store = intel.vendor_store()
    machine = intel.machine(kind, store=store)
    old_guest, _ = intel.launch(machine)
    platform_id = machine.command("info", {})["platform_id"]
    svn = b"\xff" * 16
    machine.command("restart", {"cpu_svn": svn, "pce_svn": 15})
    with pytest.raises(FirmwareError):
        machine.guest(old_guest)
    guest, _ = intel.launch(machine)
    vendor, model = intel.vendor(store), intel.model_of(machine)
    claims = intel.verify(intel.quote(machine, guest), vendor.collateral(kind.upper(), model, intel.NOW))
    assert claims.chip_id == platform_id
    assert claims.tcb["pce"] == 15
    assert claims.tcb["sgx01"] == 0xFF
    assert machine.save()["cpu_svn"] == svn
    machine.command("restart", {})
    assert machine.save()["cpu_svn"] == svn
    for wrong in ({"cpu_svn": b""}, {"owner_epoch": b""}, {"pce_svn": 1 << 16}, {"x": 1}):
        with pytest.raises(Malformed):
            machine.command("restart", wrong)


@BOTH
def test_a_platform_that_was_rolled_back_is_out_of_date(kind: str) -> None:
    store = intel.vendor_store()
    machine = intel.machine(kind, store=store)
    model = intel.model_of(machine)
    machine.command("restart", {"cpu_svn": bytes(max(svn - 1, 0) for svn in model.cpu_svn)})
    raw, vendor = intel.quote(machine, intel.launch(machine)[0]), intel.vendor(store)
    assert intel.verify(raw, vendor.collateral(kind.upper(), model, intel.NOW)).tcb_status == "OutOfDate"
    assert intel.peer_verify(raw, vendor, kind.upper(), model) == "OutOfDate"


def test_a_new_owner_has_new_sealing_keys_and_the_old_one_has_the_old_ones_again() -> None:
    machine = intel.machine("sgx")

    def key(owner: bytes) -> bytes:
        machine.command("restart", {"owner_epoch": owner})
        return machine.guest(intel.launch(machine)[0]).tree().read("attestation/keys/_sgx_mrenclave")

    first, second = key(b"a" * 16), key(b"b" * 16)
    assert first != second
    assert key(b"a" * 16) == first


def test_products() -> None:
    with pytest.raises(EmulatorError, match="no TDX"):
        intel.machine("tdx", product="icelake")
    with pytest.raises(EmulatorError, match="expected one of"):
        intel.machine("sgx", product="milan")
    with pytest.raises(EmulatorError, match="expected sgx or tdx"):
        intel.machine("snp")
    with pytest.raises(Malformed):
        intel.machine("tdx").command("update", {"tee_tcb_svn": b"short"})


@BOTH
def test_a_machine_starts_in_less_than_300_milliseconds(kind: str) -> None:
    """With the vendor's keys made before."""
    store = intel.vendor_store()
    start = time.perf_counter()
    machine = intel.machine(kind, store=store)
    intel.quote(machine, intel.launch(machine)[0])
    assert time.perf_counter() - start < 0.3


def test_a_machine_with_a_vendor_of_its_own() -> None:
    store = Memory()
    machine = intel.machine("sgx", store=store)
    guest, measurement = intel.launch(machine)
    collateral = intel.vendor(store).collateral("SGX", intel.model_of(machine), intel.NOW)
    policy = intel.strict_policy("sgx", measurement)
    assert intel.verify(intel.quote(machine, guest), collateral, policy=policy).tcb_status == "UpToDate"


@BOTH
def test_all_errors_are_our_own(kind: str) -> None:
    machine = intel.machine(kind)
    for name in ("stop", "quote", "launch", "info", "eadd", "einit", "tdh_mng_init", "tdh_mem_page_add", ""):
        for arguments in (
            {},
            {"guest": -1},
            {"guest": 1 << 70},
            {"report": b""},
            {"tdr": 0},
            {"x": object()},
        ):
            if name == "info" and not arguments:
                continue
            with pytest.raises(EnarxError):
                machine.command(name, arguments)
