"""SGX instructions: what they measure, report and derive, and how they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.forge import intel

from enarx.attest.dcap import parse_enclave_report
from enarx.attest.measure import Page, PageType, Permission, Sigstruct, build_sigstruct, mrenclave
from enarx_emulator.intel._structures import KEY_REQUEST, fill
from enarx_emulator.intel.processor import MODELS, Processor, cmac
from enarx_emulator.intel.quoting import add_pages
from enarx_emulator.intel.sgx import Flag, KeyName, KeyPolicy, SgxCpu, attributes, key_request
from enarx_emulator.intel.status import SgxError, SgxStatus

PAGE = 4096
SIZE = 4 * PAGE
GP, PF = SgxStatus.GENERAL_PROTECTION, SgxStatus.PAGE_FAULT
PAGES = (
    Page(offset=0, page_type=PageType.TCS, contents=bytes(PAGE)),
    Page(
        offset=2 * PAGE,
        page_type=PageType.REG,
        permissions=Permission.R | Permission.X,
        contents=b"\xcc" * PAGE,
    ),
    Page(
        offset=PAGE,
        page_type=PageType.REG,
        permissions=Permission.R | Permission.W,
        contents=bytes(PAGE),
        measured=False,
    ),
)
MEASURED = mrenclave(size=SIZE, pages=PAGES)


def signed(key: rsa.RSAPrivateKey | None = None, **changes: Any) -> bytes:
    """What the enclave's author signs."""
    content = Sigstruct(
        date=0x20260101,
        attributes=attributes(),
        attributes_mask=b"\xff" * 16,
        enclave_hash=MEASURED,
        isv_prod_id=7,
        isv_svn=3,
    )
    return build_sigstruct(replace(content, **changes), key or intel.enclave_key())


def built(cpu: SgxCpu, **changes: Any) -> int:
    """An enclave before EINIT."""
    handle = cpu.ecreate(**{"size": SIZE, "attributes": attributes(), **changes})
    add_pages(cpu, handle, list(PAGES))
    return handle


def started(
    cpu: SgxCpu, flags: int = Flag.MODE64, key: rsa.RSAPrivateKey | None = None, **changes: Any
) -> int:
    """An enclave that runs."""
    config = {name: changes.pop(name) for name in ("config_id", "config_svn") if name in changes}
    handle = built(cpu, attributes=attributes(flags), **config)
    cpu.einit(handle, signed(key, attributes=attributes(flags), **changes))
    return handle


def refusal(call: Callable[..., object], *args: Any, **kwargs: Any) -> SgxStatus:
    """The status with which an instruction refuses."""
    with pytest.raises(SgxError) as refused:
        call(*args, **kwargs)
    return refused.value.status


def test_mrenclave_is_the_one_that_is_computed_without_a_processor() -> None:
    cpu = intel.cpu()
    handle = built(cpu)
    assert cpu.einit(handle, signed()) == MEASURED
    whole = parse_enclave_report(
        cpu.ereport(handle, target_info=cpu.target_info(handle), report_data=bytes(64))[:384]
    )
    assert whole.mrenclave == MEASURED


def test_a_report_says_what_the_enclave_is() -> None:
    cpu = intel.cpu()
    handle = started(
        cpu,
        Flag.MODE64 | Flag.KSS | Flag.DEBUG,
        config_id=b"c" * 64,
        config_svn=5,
        isv_family_id=b"f" * 16,
        isv_ext_prod_id=b"x" * 16,
    )
    report = parse_enclave_report(
        cpu.ereport(handle, target_info=cpu.target_info(handle), report_data=intel.CHALLENGE)[:384]
    )
    assert report.attributes.init
    assert report.attributes.debug
    assert report.attributes.kss
    assert (report.isv_prod_id, report.isv_svn, report.config_svn) == (7, 3, 5)
    assert (report.config_id, report.isv_family_id, report.isv_ext_prod_id) == (
        b"c" * 64,
        b"f" * 16,
        b"x" * 16,
    )
    assert report.cpu_svn == cpu.processor.cpu_svn
    assert report.report_data == intel.CHALLENGE


def test_only_the_target_can_check_a_report() -> None:
    cpu = intel.cpu()
    one, other = started(cpu), started(cpu, Flag.MODE64 | Flag.DEBUG)
    report = cpu.ereport(one, target_info=cpu.target_info(other), report_data=bytes(64))
    body, key_id, mac = report[:384], report[384:416], report[416:]
    request = fill(KEY_REQUEST, {"key_name": KeyName.REPORT, "key_id": key_id})
    assert cmac(cpu.egetkey(other, request), body) == mac
    assert cmac(cpu.egetkey(one, request), body) != mac


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"size": 3 * PAGE}, GP),
        ({"size": PAGE}, GP),
        ({"size": 0}, GP),
        ({"size": 1 << 57}, GP),
        ({"ssa_frame_pages": 0}, GP),
        ({"ssa_frame_pages": 1 << 32}, GP),
        ({"attributes": attributes(Flag.MODE64 | Flag.INIT)}, GP),
        ({"attributes": attributes(1 << 20)}, GP),
        ({"attributes": attributes(xfrm=1)}, GP),
        ({"attributes": attributes(xfrm=1 << 40 | 3)}, GP),
        ({"attributes": b"short"}, GP),
        ({"misc_select": 2}, GP),
        ({"config_svn": 1}, GP),
        ({"config_id": b"c" * 64}, GP),
        ({"config_id": b"c"}, GP),
    ],
)
def test_ecreate_refuses(changes: dict[str, Any], status: SgxStatus) -> None:
    cpu = intel.cpu()
    assert refusal(cpu.ecreate, **{"size": SIZE, "attributes": attributes(), **changes}) is status
    assert cpu.free_pages == intel.cpu().free_pages


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"offset": PAGE + 1}, GP),
        ({"offset": SIZE}, GP),
        ({"offset": -PAGE}, GP),
        ({"contents": bytes(PAGE - 1)}, GP),
        ({"contents": bytes(1 << 24)}, GP),
        ({"page_type": 0}, GP),
        ({"page_type": 4}, GP),
        ({"permissions": Permission.W}, GP),
        ({"permissions": 8}, GP),
        ({"page_type": PageType.TCS, "contents": b"\x01" * PAGE}, GP),
        ({"offset": 0}, PF),
    ],
)
def test_eadd_refuses(changes: dict[str, Any], status: SgxStatus) -> None:
    cpu = intel.cpu()
    handle = built(cpu)
    assert refusal(cpu.eadd, handle, **{"offset": 3 * PAGE, "contents": bytes(PAGE), **changes}) is status


def test_eextend_refuses() -> None:
    cpu = intel.cpu()
    handle = built(cpu)
    assert refusal(cpu.eextend, handle, offset=128) is GP
    assert refusal(cpu.eextend, handle, offset=3 * PAGE) is PF
    assert refusal(cpu.eextend, handle, offset=-256) is PF


def test_einit_refuses_what_was_not_signed_so() -> None:
    cpu = intel.cpu()
    good = signed()
    for spoiled, status in (
        (good[:100], SgxStatus.SGX_INVALID_SIG_STRUCT),
        (b"\xff" + good[1:], SgxStatus.SGX_INVALID_SIG_STRUCT),
        (good[:600] + bytes([good[600] ^ 1]) + good[601:], SgxStatus.SGX_INVALID_SIGNATURE),
        (good[:1026] + b"\xff" + good[1027:], SgxStatus.SGX_INVALID_SIGNATURE),
        (signed(enclave_hash=bytes(32)), SgxStatus.SGX_INVALID_MEASUREMENT),
        (signed(attributes=attributes(Flag.MODE64 | Flag.DEBUG)), SgxStatus.SGX_INVALID_ATTRIBUTE),
        (signed(miscselect=1), SgxStatus.SGX_INVALID_ATTRIBUTE),
        (signed(isv_family_id=b"f" * 16), SgxStatus.SGX_INVALID_SIG_STRUCT),
    ):
        assert refusal(cpu.einit, built(cpu), spoiled) is status


def test_masks_free_the_bits_that_the_author_leaves_open() -> None:
    cpu = intel.cpu()
    handle = built(cpu, attributes=attributes(Flag.MODE64 | Flag.DEBUG))
    mask = attributes(0xFFFFFFFF & ~Flag.DEBUG, 0)
    assert cpu.einit(handle, signed(attributes_mask=mask)) == MEASURED


def test_order() -> None:
    cpu = intel.cpu()
    handle = built(cpu)
    assert refusal(cpu.target_info, handle) is GP
    assert refusal(cpu.ereport, handle, target_info=bytes(512), report_data=bytes(64)) is GP
    assert refusal(cpu.egetkey, handle, bytes(512)) is GP
    cpu.einit(handle, signed())
    assert refusal(cpu.eadd, handle, offset=3 * PAGE, contents=bytes(PAGE)) is GP
    assert refusal(cpu.eextend, handle, offset=0) is GP
    assert refusal(cpu.einit, handle, signed()) is GP
    assert refusal(cpu.ereport, handle, target_info=bytes(511), report_data=bytes(64)) is GP
    assert refusal(cpu.ereport, handle, target_info=b"\xff" * 512, report_data=bytes(64)) is GP
    assert refusal(cpu.ereport, handle, target_info=bytes(512), report_data=bytes(63)) is GP
    cpu.eremove(handle)
    for call in (cpu.eremove, cpu.target_info):
        assert refusal(call, handle) is PF


def test_the_epc_ends() -> None:
    cpu = intel.cpu(epc_pages=4)
    handle = built(cpu)
    assert cpu.free_pages == 0
    assert refusal(cpu.eadd, handle, offset=3 * PAGE, contents=bytes(PAGE)) is PF
    assert refusal(cpu.ecreate, size=SIZE, attributes=attributes()) is PF
    cpu.eremove(handle)
    assert cpu.free_pages == 4


def seal(cpu: SgxCpu, handle: int, **wanted: int | bytes) -> bytes:
    """A sealing key."""
    return cpu.egetkey(handle, key_request(KeyName.SEAL, cpu.processor, **wanted))


def test_sealing_keys_differ_by_policy() -> None:
    cpu = intel.cpu()
    kss = Flag.MODE64 | Flag.KSS
    handle = started(
        cpu, kss, config_id=b"c" * 64, config_svn=2, isv_family_id=b"f" * 16, isv_ext_prod_id=b"x" * 16
    )
    policies = [0, *KeyPolicy, KeyPolicy.MRENCLAVE | KeyPolicy.MRSIGNER]
    keys = [seal(cpu, handle, key_policy=policy) for policy in policies]
    keys += [seal(cpu, handle, key_policy=KeyPolicy.CONFIGID, config_svn=svn) for svn in (1, 2)]
    keys += [seal(cpu, handle, key_id=b"k" * 32), seal(cpu, handle, attributes_mask=attributes(0, 0))]
    keys += [cpu.egetkey(handle, fill(KEY_REQUEST, {"key_name": KeyName.REPORT}))]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 16 for key in keys)
    assert seal(cpu, handle) == seal(cpu, handle)


def test_who_shares_a_sealing_key() -> None:
    cpu = intel.cpu()
    one, newer = started(cpu), started(cpu, isv_svn=4)
    other_product, other_signer = (
        started(cpu, isv_prod_id=8),
        started(cpu, key=intel.enclave_key("intel-ppid-key")),
    )
    debug = started(cpu, Flag.MODE64 | Flag.DEBUG)

    def by(policy: KeyPolicy, handle: int) -> bytes:
        return seal(cpu, handle, key_policy=policy, isv_svn=3)

    for handle in (newer, other_product, other_signer):  # the same code
        same = handle != other_product
        assert (by(KeyPolicy.MRENCLAVE, handle) == by(KeyPolicy.MRENCLAVE, one)) is same
    assert by(KeyPolicy.MRSIGNER, newer) == by(KeyPolicy.MRSIGNER, one)
    for handle in (other_product, other_signer, debug):
        assert by(KeyPolicy.MRSIGNER, handle) != by(KeyPolicy.MRSIGNER, one)
    assert by(KeyPolicy.MRENCLAVE, debug) != by(KeyPolicy.MRENCLAVE, one)


def test_debug_enclaves_never_share_a_key_with_others() -> None:
    cpu = intel.cpu()
    one, debug = started(cpu), started(cpu, Flag.MODE64 | Flag.DEBUG)
    wanted: dict[str, Any] = {"key_policy": KeyPolicy.MRENCLAVE, "attributes_mask": attributes(0, 0)}
    assert seal(cpu, one, **wanted) != seal(cpu, debug, **wanted)


def test_products_share_a_key_if_they_ask_for_it() -> None:
    cpu = intel.cpu()
    kss = Flag.MODE64 | Flag.KSS
    one, other = started(cpu, kss), started(cpu, kss, isv_prod_id=8)
    policy = KeyPolicy.MRSIGNER | KeyPolicy.NOISVPRODID
    assert seal(cpu, one, key_policy=policy) == seal(cpu, other, key_policy=policy)
    assert seal(cpu, one, key_policy=KeyPolicy.MRSIGNER) != seal(cpu, other, key_policy=KeyPolicy.MRSIGNER)


def test_no_key_of_a_newer_configuration() -> None:
    cpu = intel.cpu()
    handle = started(cpu, Flag.MODE64 | Flag.KSS, config_svn=2)
    wanted = {"key_policy": KeyPolicy.CONFIGID, "config_svn": 3}
    assert refusal(seal, cpu, handle, **wanted) is SgxStatus.SGX_INVALID_ISVSVN


def test_a_tcs_has_no_permissions_whatever_is_asked() -> None:
    cpu = intel.cpu()
    measured = []
    for permissions in (0, 7):
        handle = cpu.ecreate(size=SIZE, attributes=attributes())
        cpu.eadd(handle, offset=0, contents=bytes(PAGE), page_type=PageType.TCS, permissions=permissions)
        tcs = Page(offset=0, page_type=PageType.TCS, contents=bytes(PAGE), measured=False)
        measured.append(cpu.einit(handle, signed(enclave_hash=mrenclave(size=SIZE, pages=(tcs,)))))
    assert measured[0] == measured[1]


def test_who_knows_the_provisioning_root_knows_no_sealing_or_report_key() -> None:
    """As the vendor does, to whom the seal fuses are unknown."""
    cpu, guessed = intel.cpu(), intel.cpu()
    guessed.processor.seal_fuses = bytes(16)
    flags = Flag.MODE64 | Flag.PROVISION_KEY
    handles = [started(one, flags) for one in (cpu, guessed)]
    for name in KeyName:
        if name is not KeyName.EINITTOKEN:
            keys = [
                one.egetkey(handle, key_request(name, one.processor))
                for one, handle in zip((cpu, guessed), handles, strict=True)
            ]
            assert (keys[0] == keys[1]) is (name is KeyName.PROVISION)


def test_newer_enclaves_and_processors_read_what_older_ones_sealed_and_not_the_reverse() -> None:
    cpu = intel.cpu()
    handle = started(cpu)
    old, new = (seal(cpu, handle, isv_svn=svn) for svn in (2, 3))
    assert old != new
    assert refusal(seal, cpu, handle, isv_svn=4) is SgxStatus.SGX_INVALID_ISVSVN
    lower = bytes([cpu.processor.cpu_svn[0] - 1]) + cpu.processor.cpu_svn[1:]
    higher = bytes([cpu.processor.cpu_svn[0] + 1]) + cpu.processor.cpu_svn[1:]
    before = SgxCpu(Processor(intel.SEED, MODELS["icelake"], cpu_svn=lower))
    assert seal(before, started(before)) == seal(cpu, handle, cpu_svn=lower)
    assert refusal(seal, cpu, handle, cpu_svn=higher) is SgxStatus.SGX_INVALID_CPUSVN


def test_the_owner_s_epoch_and_the_chip_are_part_of_sealing_keys() -> None:
    cpu = intel.cpu()
    model = MODELS["icelake"]
    owned = SgxCpu(Processor(intel.SEED, model, owner_epoch=b"o" * 16))
    other = SgxCpu(Processor(intel.SEED.child("other"), model))
    restarted = SgxCpu(Processor.restore(cpu.processor.save()))
    key = seal(cpu, started(cpu))
    assert seal(restarted, started(restarted)) == key
    assert len({key, seal(owned, started(owned)), seal(other, started(other))}) == 3


def test_report_keys_do_not_outlive_a_restart() -> None:
    cpu = intel.cpu()
    restarted = SgxCpu(Processor.restore(cpu.processor.save()))
    reports = [
        one.ereport(handle := started(one), target_info=one.target_info(handle), report_data=bytes(64))
        for one in (cpu, restarted)
    ]
    assert reports[0][:384] == reports[1][:384]
    assert reports[0][384:] != reports[1][384:]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (bytes(511), GP),
        (b"\xff" * 512, GP),
        (fill(KEY_REQUEST, {"key_name": 5}), SgxStatus.SGX_INVALID_KEYNAME),
        (fill(KEY_REQUEST, {"key_name": KeyName.PROVISION}), SgxStatus.SGX_INVALID_ATTRIBUTE),
        (fill(KEY_REQUEST, {"key_name": KeyName.PROVISION_SEAL}), SgxStatus.SGX_INVALID_ATTRIBUTE),
        (fill(KEY_REQUEST, {"key_name": KeyName.EINITTOKEN}), SgxStatus.SGX_INVALID_ATTRIBUTE),
        (fill(KEY_REQUEST, {"key_name": KeyName.SEAL, "key_policy": 0x40}), GP),
        (fill(KEY_REQUEST, {"key_name": KeyName.SEAL, "key_policy": KeyPolicy.CONFIGID}), GP),
        (fill(KEY_REQUEST, {"key_name": KeyName.SEAL, "config_svn": 1}), GP),
    ],
)
def test_egetkey_refuses(request_: bytes, status: SgxStatus) -> None:
    cpu = intel.cpu()
    assert refusal(cpu.egetkey, started(cpu), request_) is status


def test_keys_of_privileged_enclaves() -> None:
    cpu = intel.cpu()
    handle = started(cpu, Flag.MODE64 | Flag.PROVISION_KEY | Flag.EINITTOKEN_KEY)
    keys = {cpu.egetkey(handle, key_request(name, cpu.processor)) for name in KeyName}
    assert len(keys) == len(KeyName)
