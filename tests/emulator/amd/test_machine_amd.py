"""AMD machines by the names of their commands: as a host backend, a guest and a tenant use them."""

from __future__ import annotations

import time
from uuid import UUID

import pytest
from tests.emulator.amd.test_snp_firmware import refuses
from tests.forge import amd
from tests.forge.amd import IMAGE, Owner, Randomness

from enarx.attest import EvidenceRejected, Tee, TrustAnchors
from enarx.attest.sev import GuestPolicy, VerifiedLaunch, pack_secret
from enarx.attest.snp._report import parse_report
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import decode, encode
from enarx_emulator.amd.machine import make
from enarx_emulator.amd.messages import GuestMessage
from enarx_emulator.amd.status import SevStatus
from enarx_emulator.errors import EmulatorError

SECRET = {UUID(int=7): b"the tenant's secret"}


@pytest.mark.parametrize(("kind", "tee"), [("sev", Tee.SEV), ("sev-es", Tee.SEV_ES)])
def test_a_tenant_launches_a_guest_and_gives_it_a_secret(kind: str, tee: Tee) -> None:
    owner = Owner(amd.sev(kind))
    handle = owner.launch(SECRET)
    tree = owner.machine.guest(handle).tree()
    assert tree.list("coco") == [str(UUID(int=7))]
    assert tree.read(f"coco/{UUID(int=7)}") == b"the tenant's secret"
    tree.remove(f"coco/{UUID(int=7)}")
    assert owner.machine.guest(handle).tree().list("coco") == []
    claims = owner.verify(owner.machine.command("measure", {"guest": owner.start()}))
    assert (claims.tee, claims.root.is_vendor, claims.measurement) == (tee, False, owner.digest)


@pytest.mark.parametrize("kind", ["sev", "sev-es"])
def test_the_vendors_roots_reject_it(kind: str) -> None:
    """A12, A19."""
    owner = Owner(amd.sev(kind))
    measured = owner.machine.command("measure", {"guest": owner.start()})
    with pytest.raises(EvidenceRejected) as refused:
        owner.verify(measured, TrustAnchors.vendor())
    assert refused.value.check.name == "sev.chain.root"


def test_a_guest_without_secrets_sees_none() -> None:
    owner = Owner(amd.sev())
    assert owner.machine.guest(owner.launch()).tree().list("coco") == []


def test_a_guest_that_is_not_launched_runs_nothing() -> None:
    owner, snp = Owner(amd.sev()), amd.snp()
    handle = owner.start()
    with refuses(SevStatus.INVALID_GUEST_STATE):
        owner.machine.guest(handle)
    with refuses(SevStatus.INVALID_GUEST):
        snp.guest(1)
    snp.command("gctx_create", {})
    with refuses(SevStatus.INVALID_GUEST_STATE):
        snp.guest(1)


def test_a_stopped_guest_is_gone() -> None:
    owner, snp = Owner(amd.sev()), amd.snp()
    handle = owner.launch()
    owner.machine.command("stop", {"guest": handle})
    assert owner.machine.command("platform_status", {})["guest_count"] == 0
    for machine, one in ((owner.machine, handle), (snp, amd.launched(snp))):
        if machine is snp:
            snp.command("stop", {"guest": one})
        with refuses(SevStatus.INVALID_PLATFORM_STATE if machine is not snp else SevStatus.INVALID_GUEST):
            machine.command("stop", {"guest": one})


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"image": "text"},
        {"image": IMAGE, "policy": -1},
        {"image": IMAGE, "policy": b"\0"},
        {"image": IMAGE, "colour": 1},
        {"image": IMAGE, "auth_key_en": 1},
    ],
)
def test_arguments_that_are_none(arguments: dict[str, object]) -> None:
    machine = amd.snp()
    with pytest.raises(Malformed, match="launch"):
        machine.command("launch", arguments)
    assert machine.command("platform_status", {})["guest_count"] == 0


def test_what_fails_half_way_leaves_no_guest() -> None:
    snp, owner = amd.snp(), Owner(amd.sev())
    for given, status in (
        ({"image": b""}, SevStatus.INVALID_LENGTH),
        ({"image": IMAGE, "policy": 0}, SevStatus.POLICY_FAILURE),
        ({"image": IMAGE, "host_data": b"short"}, SevStatus.INVALID_PARAM),
        ({"image": IMAGE, "id_block": bytes(96)}, SevStatus.INVALID_PARAM),
    ):
        with refuses(status):
            snp.command("launch", given)
    owner.policy = (int(GuestPolicy.ES) | 1).to_bytes(4, "little")
    with refuses(SevStatus.BAD_MEASUREMENT):
        owner.start()
    for machine in (snp, owner.machine):
        assert machine.command("platform_status", {})["guest_count"] == 0


@pytest.mark.parametrize("kind", ["snp", "sev", "sev-es"])
def test_unknown_commands_and_kinds(kind: str) -> None:
    machine = make(amd.setup(kind), vendor=amd.vendor(), random=Randomness())
    for name in ("", "send_start", "__init__", "LAUNCH"):
        with refuses(SevStatus.INVALID_COMMAND):
            machine.command(name, {})
    with pytest.raises(EmulatorError, match="kind"):
        make(amd.setup("tdx"), vendor=amd.vendor())
    with pytest.raises(EmulatorError, match="product"):
        make(amd.setup(kind, "naples"), vendor=amd.vendor())


@pytest.mark.parametrize("kind", ["snp", "sev", "sev-es"])
def test_a_machine_is_the_same_after_its_process_was_killed(kind: str) -> None:
    """What it saved is encoded and decoded, as the state directory does."""
    vendor = amd.vendor()
    machine = make(amd.setup(kind), vendor=vendor, random=Randomness())
    if kind == "snp":
        tcb = bytes((4, 0, 0, 0, 0, 0, 25, 219))
        machine.command("download_firmware", {"major": 1, "minor": 55, "build": 30, "tcb": tcb})
    else:
        for command in ("pdh_gen", "pek_gen", "shutdown"):
            machine.command(command, {})
        machine.command("download_firmware", {"major": 1, "minor": 56, "build": 3})
        machine.command("init", {"es": kind == "sev-es"})
    saved = decode(encode(dict(machine.save())), max_bytes=1 << 20)
    assert isinstance(saved, dict)
    again = make(amd.setup(kind, saved=saved), vendor=vendor, random=Randomness(b"x" * 32))
    before, after = dict(machine.command("info", {})), dict(again.command("info", {}))
    if kind != "snp":  # behind PDH, PEK and OCA the vendor signs anew
        before["platform_chain"], after["platform_chain"] = (
            amd.octets(one["platform_chain"])[: 3 * 2084] for one in (before, after)
        )
    assert before == after
    with pytest.raises(EmulatorError, match="saved"):
        make(amd.setup(kind, saved={"chip": {"committed": 1}}), vendor=vendor)
    with pytest.raises(EmulatorError, match="saved"):
        make(amd.setup(kind, saved={"chip": b""}), vendor=vendor)


def test_a_machine_stays_the_product_that_it_is() -> None:
    saved = amd.snp("turin").save()
    assert amd.snp(saved=saved).command("info", {})["product"] == "Turin"
    with pytest.raises(EmulatorError, match="turin"):
        amd.snp("genoa", saved=saved)


def test_another_seed_is_another_machine() -> None:
    ids = {amd.snp(seed=seed).command("info", {})["hwid"] for seed in (amd.SEED, b"another seed of tests")}
    assert len(ids) == 2


def test_a_hypervisor_launches_a_guest_page_by_page() -> None:
    """The firmware's own commands, as a virtual machine needs them."""
    machine = amd.snp("genoa")
    handle = machine.command("gctx_create", {})["guest"]
    machine.command("launch_start", {"guest": handle, "policy": 0xB0000})
    machine.command("activate", {"guest": handle, "asid": 9})
    for gpa, kind in ((0, 1), (0x1000, 3), (0x2000, 5), (0x3000, 6)):
        machine.command(
            "launch_update", {"guest": handle, "page_type": kind, "gpa": gpa, "page": bytes(4096)}
        )
    machine.command("launch_finish", {"guest": handle, "host_data": b"h" * 32})
    report = parse_report(amd.report(machine, amd.number(handle))[0])
    assert (report.host_data, report.policy.debug) == (b"h" * 32, True)
    page = amd.octets(machine.command("dbg_decrypt", {"guest": handle, "gpa": 0x2000})["page"])
    assert page[0x20:0x40] == machine.firmware.running(amd.number(handle)).vmpcks[0]
    assert machine.command("guest_status", {"guest": handle})["asid"] == 9
    machine.command("config", {"mask_chip_id": True})
    assert not any(parse_report(amd.report(machine, amd.number(handle), b"z" * 64)[0]).chip_id)


def test_a_machine_whose_vendor_exists_starts_quickly() -> None:
    """Less than the 300 ms that a platform may take."""
    amd.snp().command("info", {})
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        amd.snp()
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.1


def test_a_hypervisor_launches_a_legacy_guest_step_by_step() -> None:
    machine = amd.sev("sev-es")
    command = machine.command
    command("pek_gen", {})
    command("pdh_gen", {})
    assert len(amd.octets(command("pdh_cert_export", {})["cert_chain"])) == 3 * 2084
    assert len(amd.octets(command("pek_csr", {})["pek"])) == 2084
    with refuses(SevStatus.INVALID_LENGTH):
        command("pek_cert_import", {"pek": b"", "oca": b""})
    command("shutdown", {})
    command("platform_reset", {})
    command("download_firmware", {"major": 1, "minor": 56, "build": 0})
    command("init", {"es": True})
    assert command("get_id", {})["id"] == command("info", {})["chip_id"]
    handle = command("launch_start", {"policy": b"\x04\0\1\0"})["guest"]
    command("activate", {"guest": handle, "asid": 5})
    command("launch_update_data", {"guest": handle, "address": 0, "data": b"x" * 16})
    command("launch_update_vmsa", {"guest": handle, "vmsa": bytes(4096)})
    assert len(amd.octets(command("launch_measure", {"guest": handle})["measure"])) == 48
    with refuses(SevStatus.BAD_MEASUREMENT):
        given = {"guest": handle, "header": bytes(52), "payload": bytes(16), "address": 0}
        command("launch_secret", given)
    command("launch_finish", {"guest": handle})
    command("dbg_encrypt", {"guest": handle, "address": 16, "data": b"y"})
    assert command("dbg_decrypt", {"guest": handle, "address": 0, "size": 17})["data"] == b"x" * 16 + b"y"
    assert command("guest_status", {"guest": handle}) == {"policy": b"\x04\0\1\0", "asid": 5, "state": 3}
    command("deactivate", {"guest": handle})
    command("df_flush", {})
    command("decommission", {"guest": handle})
    assert command("platform_status", {})["state"] == 1


def test_the_commands_of_snp_that_hypervisors_seldom_use() -> None:
    machine = amd.snp()
    handle = amd.launched(machine)
    with refuses(SevStatus.POLICY_FAILURE):
        machine.command("dbg_encrypt", {"guest": handle, "gpa": 0, "page": bytes(4096)})
    machine.command("commit", {})
    driver = machine.guest(handle).driver
    asked = GuestMessage(sequence=1, type=5, version=1, vmpck=0, payload=bytes(96)).seal(driver.key)
    answer = amd.octets(machine.command("guest_request", {"guest": handle, "message": asked})["message"])
    assert GuestMessage.open(answer, (driver.key,)).type == 6
    machine.command("decommission", {"guest": handle})
    machine.command("df_flush", {})


def test_a_response_to_another_message_is_not_taken() -> None:
    """The host gives an old one again."""
    machine = amd.snp()
    driver = machine.guest(amd.launched(machine)).driver
    answers: list[bytes] = []
    genuine = machine.firmware.guest_request

    def recorded(handle: int, message: bytes) -> bytes:
        answers.append(genuine(handle, message))
        return answers[0]

    machine.firmware.guest_request = recorded  # type: ignore[method-assign]
    driver.report(bytes(64))
    with refuses(SevStatus.BAD_MEASUREMENT):
        driver.report(bytes(64))


def test_what_is_no_table_of_secrets_shows_none() -> None:
    owner = Owner(amd.sev())
    handle = owner.start()
    blob = owner.machine.command("measure", {"guest": handle})["measure"]
    launch = VerifiedLaunch(measure=amd.octets(blob)[:32])
    packet = pack_secret(launch, b"no table at all!", keys=owner.keys, iv=bytes(16))
    owner.machine.command("secret", {"guest": handle, "header": packet.header, "payload": packet.payload})
    owner.machine.command("finish", {"guest": handle})
    assert owner.machine.guest(handle).tree().list("coco") == []


def test_a_launch_that_no_identifier_is_left_for() -> None:
    owner = Owner(amd.sev())
    for asid in range(1, 510):
        owner.machine.firmware._asids.assign(asid, asid)
    with refuses(SevStatus.RESOURCE_LIMIT):
        owner.start()
    assert owner.machine.command("platform_status", {})["guest_count"] == 0
