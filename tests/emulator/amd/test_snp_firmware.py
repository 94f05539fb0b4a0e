"""SNP firmware: every refusal has the status that the specification gives it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.forge import amd
from tests.forge.amd import Randomness
from tests.forge.pki import ec_key

from enarx.attest.measure import IdBlock, build_id_auth
from enarx.attest.snp._launch import PageType
from enarx_emulator.amd.chip import Chip, Firmware, product, raised
from enarx_emulator.amd.snp import SnpFirmware
from enarx_emulator.amd.status import SevStatus
from enarx_emulator.errors import FirmwareError

PAGE = bytes(4096)
POLICY = 0x30000


@contextmanager
def refuses(status: SevStatus) -> Iterator[None]:
    with pytest.raises(FirmwareError) as refused:
        yield
    assert refused.value.status is status


def fresh(name: str = "milan", *, smt: bool = True) -> SnpFirmware:
    fuses = amd.vendor().manufacture(product(name), amd.setup("snp").seed)
    made = SnpFirmware(Chip(fuses), random=Randomness(), smt=smt)
    made.init()
    return made


def launching(made: SnpFirmware, policy: int = POLICY) -> int:
    handle = made.gctx_create()
    made.launch_start(handle, policy)
    made.activate(handle, made.free_asid())
    return handle


def running(made: SnpFirmware, policy: int = POLICY) -> int:
    handle = launching(made, policy)
    made.launch_update(handle, PageType.NORMAL, 0, PAGE)
    made.launch_finish(handle)
    return handle


def test_nothing_works_before_init_nor_after_shutdown() -> None:
    made = fresh()
    handle = running(made)
    made.shutdown()
    for act in (made.gctx_create, made.df_flush, lambda: made.guest_status(handle)):
        with refuses(SevStatus.INVALID_PLATFORM_STATE):
            act()
    made.init()
    with refuses(SevStatus.INVALID_GUEST):
        made.guest_status(handle)
    with refuses(SevStatus.INVALID_PLATFORM_STATE):
        made.init()


def test_commands_in_the_wrong_order() -> None:
    made = fresh()
    handle = made.gctx_create()
    for act in (
        lambda: made.launch_update(handle, PageType.NORMAL, 0, PAGE),
        lambda: made.launch_finish(handle),
        lambda: made.activate(handle, 1),
        lambda: made.guest_request(handle, bytes(0x70)),
    ):
        with refuses(SevStatus.INVALID_GUEST_STATE):
            act()
    made.launch_start(handle, POLICY)
    with refuses(SevStatus.INVALID_GUEST_STATE):
        made.launch_start(handle, POLICY)
    for act in (
        lambda: made.launch_update(handle, PageType.NORMAL, 0, PAGE),
        lambda: made.launch_finish(handle),
    ):
        with refuses(SevStatus.INACTIVE):
            act()
    made.activate(handle, 1)
    with refuses(SevStatus.ACTIVE):
        made.activate(handle, 2)
    made.launch_finish(handle)
    with refuses(SevStatus.INVALID_GUEST_STATE):
        made.launch_update(handle, PageType.NORMAL, 0, PAGE)


@pytest.mark.parametrize(
    ("kind", "gpa", "page", "status"),
    [
        (0, 0, PAGE, SevStatus.INVALID_PARAM),
        (7, 0, PAGE, SevStatus.INVALID_PARAM),
        (PageType.NORMAL, 0, b"", SevStatus.INVALID_PAGE_SIZE),
        (PageType.NORMAL, 0, bytes(8192), SevStatus.INVALID_PAGE_SIZE),
        (PageType.NORMAL, 0, bytes(4 << 20), SevStatus.INVALID_PAGE_SIZE),
        (PageType.VMSA, 0, bytes(2 << 20), SevStatus.INVALID_PAGE_SIZE),
        (PageType.SECRETS, 0, bytes(2 << 20), SevStatus.INVALID_PAGE_SIZE),
        (PageType.NORMAL, 0x800, PAGE, SevStatus.INVALID_ADDRESS),
        (PageType.NORMAL, 0x1000, bytes(2 << 20), SevStatus.INVALID_ADDRESS),
        (PageType.NORMAL, -4096, PAGE, SevStatus.INVALID_ADDRESS),
        (PageType.NORMAL, 1 << 48, PAGE, SevStatus.INVALID_ADDRESS),
        (PageType.CPUID, 0, b"\x41".ljust(4096, b"\0"), SevStatus.INVALID_PARAM),
        (PageType.CPUID, 0, b"\0\0\0\0\1".ljust(4096, b"\0"), SevStatus.INVALID_PARAM),
    ],
)
def test_pages_that_are_none(kind: int, gpa: int, page: bytes, status: SevStatus) -> None:
    made = fresh()
    handle = launching(made)
    with refuses(status):
        made.launch_update(handle, kind, gpa, page)
    assert made.guest_status(handle)["state"] == 1


def test_permissions_are_bytes_and_measured() -> None:
    digests = set()
    for perms in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        made = fresh()
        handle = launching(made)
        made.launch_update(handle, PageType.NORMAL, 0, PAGE, vmpl_perms=perms)
        made.launch_finish(handle)
        digests.add(made.running(handle).measurement)
        with refuses(SevStatus.INVALID_PARAM):
            made.launch_update(handle, PageType.NORMAL, 0, PAGE, vmpl_perms=(256, 0, 0))
    assert len(digests) == 4


@pytest.mark.parametrize(
    "policy",
    [
        0x10000,  # bit 17 is clear
        POLICY | 1 << 26,
        POLICY | 1 << 63,
        POLICY | 0x0200,  # ABI 2.0
        POLICY | 0x0138,  # ABI 1.56
        POLICY & ~(1 << 16),  # SMT is on
        POLICY | 1 << 23,  # RAPL is on
        POLICY | 1 << 24,  # ciphertext is not hidden
    ],
)
def test_policies_that_the_platform_cannot_meet(policy: int) -> None:
    made = fresh()
    handle = made.gctx_create()
    with refuses(SevStatus.POLICY_FAILURE):
        made.launch_start(handle, policy)
    made.launch_start(handle, POLICY)


def test_a_policy_that_forbids_smt_where_it_is_off() -> None:
    made = fresh(smt=False)
    running(made, POLICY & ~(1 << 16))


def test_migration_agents() -> None:
    made = fresh()
    agent = running(made)
    handle = made.gctx_create()
    with refuses(SevStatus.POLICY_FAILURE):
        made.launch_start(handle, POLICY, migration_agent=agent)
    made.launch_start(handle, POLICY | 1 << 18, migration_agent=agent)
    made.activate(handle, made.free_asid())
    made.launch_finish(handle)
    assert made.running(handle).report_id_ma == made.running(agent).report_id
    with refuses(SevStatus.POLICY_FAILURE):  # an agent has none itself
        made.launch_start(made.gctx_create(), POLICY | 1 << 18, migration_agent=handle)
    with refuses(SevStatus.POLICY_FAILURE):  # and is bound to a socket as its guests are
        made.launch_start(made.gctx_create(), POLICY | 1 << 18 | 1 << 20, migration_agent=agent)


def test_address_space_identifiers() -> None:
    made = fresh()
    first, second = made.gctx_create(), made.gctx_create()
    for handle in (first, second):
        made.launch_start(handle, POLICY)
    for asid in (0, -1, 1 << 20):
        with refuses(SevStatus.INVALID_ASID):
            made.activate(first, asid)
    made.activate(first, 7)
    with refuses(SevStatus.ASID_OWNED):
        made.activate(second, 7)
    made.launch_finish(first)
    made.decommission(first)
    with refuses(SevStatus.DFFLUSH_REQUIRED):
        made.activate(second, 7)
    made.df_flush()
    made.activate(second, 7)
    made.decommission(second)  # it never ran, so it left nothing behind
    third = made.gctx_create()
    made.launch_start(third, POLICY)
    made.activate(third, 7)


def test_debugging_is_refused_by_policy() -> None:
    made = fresh()
    handle, open_one = running(made), running(made, POLICY | 1 << 19)
    for act in (lambda: made.dbg_decrypt(handle, 0), lambda: made.dbg_encrypt(handle, 0, PAGE)):
        with refuses(SevStatus.POLICY_FAILURE):
            act()
    made.dbg_encrypt(open_one, 0, b"x" * 4096)
    assert made.dbg_decrypt(open_one, 0) == b"x" * 4096
    with refuses(SevStatus.INVALID_ADDRESS):
        made.dbg_decrypt(open_one, 1)
    with refuses(SevStatus.INVALID_PAGE_SIZE):
        made.dbg_encrypt(open_one, 0, b"x")


def test_zeroed_and_secret_pages_are_not_what_the_host_gave() -> None:
    made = fresh("genoa")
    handle = launching(made, POLICY | 1 << 19)
    made.launch_update(handle, PageType.ZERO, 0x1000, b"\xff" * 4096)
    made.launch_update(handle, PageType.SECRETS, 0x2000, b"\xff" * 4096)
    made.launch_finish(handle)
    assert made.dbg_decrypt(handle, 0x1000) == PAGE
    secrets = made.dbg_decrypt(handle, 0x2000)
    assert secrets[0x20:0xA0] == b"".join(made.running(handle).vmpcks)
    assert secrets[0x168:0x170] == (3).to_bytes(8, "little")


def identity(made: SnpFirmware, handle: int, policy: int = POLICY) -> IdBlock:
    return IdBlock(
        launch_digest=made._guest(handle).measurement,
        family_id=b"f" * 16,
        image_id=b"i" * 16,
        guest_svn=7,
        policy=policy,
    )


def test_an_id_block_is_checked_and_reported() -> None:
    made = fresh()
    handle = launching(made)
    made.launch_update(handle, PageType.NORMAL, 0, PAGE)
    block = identity(made, handle)
    auth = build_id_auth(block, ec_key("id"), ec_key("author"))
    made.launch_finish(handle, id_block=block.pack(), id_auth=auth, auth_key_en=True, host_data=b"h" * 32)
    guest = made.running(handle)
    assert (guest.id_block, guest.author_key_en, guest.host_data) == (block, True, b"h" * 32)
    assert any(guest.id_key_digest)
    assert any(guest.author_key_digest)


def test_id_blocks_that_are_refused() -> None:
    made = fresh()
    handle = launching(made)
    made.launch_update(handle, PageType.NORMAL, 0, PAGE)
    good = identity(made, handle)
    digest = IdBlock(launch_digest=bytes(48), policy=POLICY)
    other = identity(made, handle, POLICY | 1 << 19)
    key, author = ec_key("id"), ec_key("author")
    auth = build_id_auth(good, key, author)
    off_curve = auth[:0x244] + bytes(72) + auth[0x28C:]
    for block, given, by_author, status in (
        (good.pack()[:-1], auth, False, SevStatus.INVALID_PARAM),
        (good.pack(), auth[:-1], False, SevStatus.INVALID_PARAM),
        (good.pack()[:0x50] + b"\2" + good.pack()[0x51:], auth, False, SevStatus.BAD_VERSION),
        (digest.pack(), build_id_auth(digest, key), False, SevStatus.BAD_MEASUREMENT),
        (other.pack(), build_id_auth(other, key), False, SevStatus.POLICY_FAILURE),
        (good.pack(), b"\2" + auth[1:], False, SevStatus.INVALID_PARAM),
        (good.pack(), build_id_auth(good, key), True, SevStatus.INVALID_PARAM),
        (good.pack(), build_id_auth(other, key), False, SevStatus.BAD_SIGNATURE),
        (good.pack(), off_curve, False, SevStatus.BAD_SIGNATURE),
        (good.pack(), auth[:0x690] + b"\xff" + auth[0x691:], True, SevStatus.BAD_SIGNATURE),
    ):
        with refuses(status):
            made.launch_finish(handle, id_block=block, id_auth=given, auth_key_en=by_author)
    made.launch_finish(handle, id_block=good.pack(), id_auth=auth, auth_key_en=True)


def test_firmware_is_updated_committed_and_never_rolled_back() -> None:
    """A14: below what is committed nothing runs, below the current version what is not committed may."""
    made = fresh()
    chip = made.chip
    first, second = chip.current, raised(chip.current)
    made.download_firmware_ex(second)
    assert (chip.current, chip.committed, chip.reported) == (second, first, first.tcb)
    made.download_firmware_ex(first)
    made.download_firmware_ex(second, commit=True)
    assert (chip.committed, chip.reported) == (second, second.tcb)
    with refuses(SevStatus.BAD_SVN):
        made.download_firmware_ex(first)
    with refuses(SevStatus.BAD_VERSION):
        made.download_firmware_ex(Firmware(version=first.version, tcb=second.tcb))
    made.config(reported_tcb=chip.pack(first.tcb))
    assert chip.reported == first.tcb
    for reported in (chip.pack(raised(second).tcb), b"\0\0\1\0\0\0\0\0", bytes(7)):
        with refuses(SevStatus.INVALID_PARAM):
            made.config(reported_tcb=reported)
    made.config()
    assert chip.reported == second.tcb


def test_every_tcb_has_a_key_of_its_own_that_stays_the_same() -> None:
    made = fresh("turin")
    chip = made.chip
    before = chip.vcek().public_key().public_numbers()
    made.download_firmware_ex(raised(chip.current), commit=True)
    after = chip.vcek().public_key().public_numbers()
    made.config(reported_tcb=chip.pack(chip.product.firmware.tcb))
    again = chip.vcek().public_key().public_numbers()
    assert before == again != after
    assert isinstance(chip.vcek().curve, ec.SECP384R1)


def test_a_vlek_is_for_one_chip_and_one_tcb() -> None:
    made, vendor = fresh(), amd.vendor()
    chip = made.chip
    other = vendor.manufacture(product("milan"), amd.setup("snp", seed=b"another machine of tests").seed)
    for fuses, tcb, status in (
        (other, chip.reported, SevStatus.BAD_MEASUREMENT),
        (chip.fuses, raised(chip.current).tcb, SevStatus.INVALID_PARAM),
    ):
        with refuses(status):
            made.vlek_load(vendor.wrapped_vlek(fuses, tcb, iv=bytes(12)))
    good = vendor.wrapped_vlek(chip.fuses, chip.reported, iv=bytes(12))
    with refuses(SevStatus.INVALID_LENGTH):
        made.vlek_load(good[:-1])
    with refuses(SevStatus.BAD_MEASUREMENT):
        made.vlek_load(good[:-1] + bytes((good[-1] ^ 1,)))
    made.vlek_load(good)
    assert made.platform_status()["vlek_en"] == 1
    made.download_firmware_ex(raised(chip.current), commit=True)
    assert made.platform_status()["vlek_en"] == 0


def test_more_guests_than_there_are_identifiers() -> None:
    made = fresh()
    for _ in range(1006):
        made.gctx_create()
    with refuses(SevStatus.RESOURCE_LIMIT):
        made.gctx_create()
