"""The sealed messages between an SNP guest and the firmware: what is answered, what is refused, and to whom."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.emulator.amd.test_snp_firmware import POLICY, fresh, identity, launching, refuses, running
from tests.forge import amd
from tests.forge.amd import REPORT_DATA
from tests.forge.pki import ec_key

from enarx.attest.measure import build_id_auth
from enarx.attest.snp._launch import PageType
from enarx.attest.snp._report import SigningKey, SnpReport, parse_report
from enarx_emulator.amd.chip import raised
from enarx_emulator.amd.guest import GuestDriver
from enarx_emulator.amd.messages import GuestMessage, KeySelect, MessageType
from enarx_emulator.amd.snp import SnpFirmware
from enarx_emulator.amd.status import SevStatus

ASKED = REPORT_DATA + bytes(32)
MESSAGE = GuestMessage(sequence=1, type=MessageType.REPORT_REQ, version=1, vmpck=0, payload=ASKED)


def driver(made: SnpFirmware, handle: int, vmpl: int = 0) -> GuestDriver:
    return GuestDriver(firmware=made, handle=handle, key=made.running(handle).vmpcks[vmpl], vmpl=vmpl)


def guest(name: str = "milan") -> tuple[SnpFirmware, int, GuestDriver]:
    made = fresh(name)
    handle = running(made)
    return made, handle, driver(made, handle)


def asked(one: GuestDriver, **more: int) -> SnpReport:
    return parse_report(one.report(REPORT_DATA, **more))  # type: ignore[arg-type]


def test_a_report_shows_all_that_was_launched() -> None:
    made = fresh("turin")
    handle = launching(made)
    made.launch_update(handle, PageType.NORMAL, 0, bytes(4096))
    block = identity(made, handle)
    auth = build_id_auth(block, ec_key("id"), ec_key("author"))
    made.launch_finish(handle, id_block=block.pack(), id_auth=auth, auth_key_en=True, host_data=b"h" * 32)
    report, context, chip = asked(driver(made, handle)), made.running(handle), made.chip
    assert (report.guest_svn, report.family_id, report.image_id) == (7, b"f" * 16, b"i" * 16)
    assert (report.policy.value, report.vmpl, report.report_data) == (POLICY, 0, REPORT_DATA)
    assert (report.measurement, report.host_data) == (context.measurement, b"h" * 32)
    assert (report.id_key_digest, report.author_key_digest) == (
        context.id_key_digest,
        context.author_key_digest,
    )
    assert (report.author_key_en, report.mask_chip_key, report.signing_key) == (True, False, SigningKey.VCEK)
    assert (report.report_id, report.report_id_ma) == (context.report_id, b"\xff" * 32)
    assert (report.chip_id, report.cpuid) == (chip.fuses.hwid + bytes(56), (0x1A, 2, 1))
    assert report.current_tcb == report.committed_tcb == report.launch_tcb == chip.pack(chip.current.tcb)
    assert (report.current_version, report.platform_info.value) == ((1, 55, 65), 0x25)
    assert (report.launch_mit_vector, report.current_mit_vector) == (7, 7)


def test_an_update_shows_in_the_four_versions() -> None:
    """Launched by the first, committed the first, running the second, reported the first."""
    made, _, one = guest()
    old, new = made.chip.current, raised(made.chip.current)
    made.download_firmware_ex(new)
    report, pack = asked(one), made.chip.pack
    assert (report.launch_tcb, report.committed_tcb) == (pack(old.tcb), pack(old.tcb))
    assert (report.current_tcb, report.reported_tcb) == (pack(new.tcb), pack(old.tcb))
    assert (report.current_version, report.committed_version) == (new.version, old.version)
    made.commit()
    report = asked(one)
    assert report.committed_tcb == report.reported_tcb == pack(new.tcb) != report.launch_tcb


def test_masked_chips() -> None:
    made, _, one = guest()
    made.config(mask_chip_id=True)
    assert asked(one).chip_id == bytes(64)
    made.config(mask_chip_key=True)
    report = asked(one)
    assert (report.signing_key, report.r, report.s) == (SigningKey.NONE, 0, 0)
    assert report.mask_chip_key
    with refuses(SevStatus.INVALID_KEY):
        one.derived_key()


def test_which_key_signs() -> None:
    made, _, one = guest()
    with refuses(SevStatus.INVALID_KEY):
        asked(one, select=KeySelect.VLEK)
    with refuses(SevStatus.INVALID_KEY):
        asked(one, select=3)
    before = one.derived_key()
    made.vlek_load(amd.vendor().wrapped_vlek(made.chip.fuses, made.chip.reported, iv=bytes(12)))
    assert one.derived_key() != before
    assert one.derived_key(root_key_select=KeySelect.VCEK << 1) == before
    assert asked(one).signing_key is SigningKey.VLEK
    assert asked(one, select=KeySelect.VLEK).signing_key is SigningKey.VLEK
    assert asked(one, select=KeySelect.VCEK).signing_key is SigningKey.VCEK


def test_a_guest_that_was_launched_without_vcek_has_none() -> None:
    made = fresh()
    handle = launching(made)
    made.launch_finish(handle, vcek_dis=True)
    with refuses(SevStatus.INVALID_KEY):
        asked(driver(made, handle))


@pytest.mark.parametrize("vmpl", range(4))
def test_a_level_speaks_for_itself_and_less_privileged_ones(vmpl: int) -> None:
    made, handle, _ = guest()
    one = driver(made, handle, vmpl)
    for level in range(vmpl, 4):
        assert asked(one, vmpl=level).vmpl == level
    for level in [*range(vmpl), 4, 0xFFFFFFFF]:
        with refuses(SevStatus.INVALID_PARAM):
            asked(one, vmpl=level)


def test_messages_are_counted_by_key() -> None:
    """A replay, a gap and an old message are refused, and do not disturb the count."""
    made, handle, _ = guest()
    keys = made.running(handle).vmpcks
    first = made.guest_request(handle, MESSAGE.seal(keys[0]))
    assert GuestMessage.open(first, keys).sequence == 2
    for sequence in (1, 2, 4, 0, (1 << 64) - 1):
        with refuses(SevStatus.AEAD_OFLOW):
            made.guest_request(handle, replace(MESSAGE, sequence=sequence).seal(keys[0]))
    made.guest_request(handle, replace(MESSAGE, sequence=3).seal(keys[0]))
    made.guest_request(
        handle, replace(MESSAGE, vmpck=1, payload=REPORT_DATA + b"\1" + bytes(31)).seal(keys[1])
    )
    made.running(handle).counts[0] = (1 << 64) - 2
    with refuses(SevStatus.AEAD_OFLOW):
        made.guest_request(handle, replace(MESSAGE, sequence=(1 << 64) - 1).seal(keys[0]))


def test_messages_that_are_not_sealed_by_this_guest() -> None:
    made, handle, _ = guest()
    other = running(made)
    keys, stranger = made.running(handle).vmpcks, made.running(other).vmpcks
    good = MESSAGE.seal(keys[0])
    for wrong in (
        MESSAGE.seal(stranger[0]),
        replace(MESSAGE, vmpck=1).seal(keys[0]),
        *(good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :] for at in (0, 0x20, 0x34, 0x50, 0x60, 0xB0)),
    ):
        with refuses(SevStatus.BAD_MEASUREMENT):
            made.guest_request(handle, wrong)
    made.guest_request(handle, good)


def test_headers_that_are_none() -> None:
    made, handle, _ = guest()
    key = made.running(handle).vmpcks[0]
    good = MESSAGE.seal(key)
    for wrong in (
        b"",
        good[:0x60],
        good[:-1],
        good.ljust(4097, b"\0"),
        *(good[:at] + b"\x09" + good[at + 1 :] for at in (0x30, 0x31, 0x32, 0x36, 0x37, 0x3C)),
    ):
        with refuses(SevStatus.INVALID_PARAM):
            made.guest_request(handle, wrong)
    for message in (
        replace(MESSAGE, type=MessageType.REPORT_RSP),
        replace(MESSAGE, type=13),
        replace(MESSAGE, version=0),
        replace(MESSAGE, version=2),
        replace(MESSAGE, payload=ASKED[:-16]),
    ):
        with refuses(SevStatus.INVALID_PARAM):
            made.guest_request(handle, message.seal(key))


def test_what_is_wrong_with_a_request_is_told_to_the_guest() -> None:
    """And counts as answered: the host learns nothing."""
    made, handle, one = guest()
    keys = made.running(handle).vmpcks
    sealed = replace(MESSAGE, payload=ASKED[:-1] + b"\1").seal(keys[0])
    response = GuestMessage.open(made.guest_request(handle, sealed), keys)
    assert response.payload[:4] == int(SevStatus.INVALID_PARAM).to_bytes(4, "little")
    assert not any(response.payload[4:])
    one.sequence = 2
    assert asked(one).report_data == REPORT_DATA


def test_derived_keys_depend_on_what_is_selected_and_on_nothing_else() -> None:
    made, handle, one = guest("genoa")
    tcb = made.chip.pack(made.chip.committed.tcb)
    older = made.chip.pack(replace(made.chip.committed.tcb, snp=1))
    keys = [
        one.derived_key(),
        one.derived_key(root_key_select=1),
        one.derived_key(vmpl=1),
        one.derived_key(fields=0b1000),
        one.derived_key(fields=0b10000),
        one.derived_key(fields=0b100000, tcb_version=tcb),
        one.derived_key(fields=0b100000, tcb_version=older),
        one.derived_key(fields=0b1000000, launch_mit_vector=1),
        one.derived_key(fields=1),
    ]
    assert len(set(keys)) == len(keys)
    assert one.derived_key() == keys[0]
    assert one.derived_key(tcb_version=older, guest_svn=9) == keys[0]
    twin = driver(made, running(made))
    assert twin.derived_key() == keys[0]
    assert twin.derived_key(root_key_select=1) != keys[1]
    assert guest("genoa")[2].derived_key() == keys[0]
    made.download_firmware_ex(raised(made.chip.current), commit=True)
    assert one.derived_key(fields=0b100000, tcb_version=tcb) == keys[5]
    del handle


@pytest.mark.parametrize(
    "wanted",
    [
        {"fields": 0b10000, "guest_svn": 1},
        {"fields": 0b100000, "tcb_version": b"\xff\0\0\0\0\0\0\0"},
        {"fields": 0b100000, "tcb_version": b"\0\0\1\0\0\0\0\0"},
        {"fields": 0b1000000},
        {"fields": 0b10000000, "launch_mit_vector": 0},
        {"fields": 0b1000000, "launch_mit_vector": 1 << 40},
        {"root_key_select": 8},
        {"vmpl": 4},
    ],
)
def test_derived_keys_of_what_the_guest_is_not(wanted: dict[str, int]) -> None:
    """A14: no key of newer firmware, of a newer guest, of mitigations that were not there."""
    _, _, one = guest("genoa")
    with refuses(SevStatus.INVALID_PARAM):
        one.derived_key(**wanted)  # type: ignore[arg-type]


def test_a_more_privileged_levels_key_is_not_given() -> None:
    made, handle, _ = guest()
    with refuses(SevStatus.INVALID_PARAM):
        driver(made, handle, 2).derived_key(vmpl=1)
