"""Memory of guests that a host runs by KVM: shown when they run, and never that of process keeps."""

from __future__ import annotations

from uuid import UUID

from tests.emulator.amd.test_snp_firmware import refuses
from tests.forge import amd
from tests.forge.amd import Owner, number

from enarx.attest.sev import SevDetail, pack_secret
from enarx_emulator.amd.sev_machine import SECRET_ADDRESS
from enarx_emulator.amd.status import SevStatus

SECRET = b"sixteen bytes of"


def test_what_a_packet_held_is_shown_when_the_guest_runs() -> None:
    owner = Owner(amd.sev())
    machine, start = owner.machine, {"certificate": owner.certificate, "session": owner.session}
    handle = number(machine.command("launch_start", {"policy": owner.policy, **start})["guest"])
    machine.command("activate", {"guest": handle, "asid": 1})
    padded = owner.image + bytes(-len(owner.image) % 4096)
    machine.command("launch_update_data", {"guest": handle, "address": 0x1000, "data": padded})
    claims = owner.verify(machine.command("measure", {"guest": handle}))
    assert isinstance(claims.detail, SevDetail)
    packet = pack_secret(claims.detail.launch, SECRET, keys=owner.keys, iv=bytes(16))
    given = {"guest": handle, "header": packet.header, "payload": packet.payload, "address": 0x8000}
    machine.command("launch_secret", given)
    asked = {"guest": handle, "address": 0x8000, "size": 16}
    with refuses(SevStatus.INVALID_GUEST_STATE):
        machine.command("memory", asked)
    machine.command("launch_finish", {"guest": handle})
    assert machine.command("memory", asked) == {"data": SECRET}


def test_memory_of_a_process_keep_stays_closed() -> None:
    owner = Owner(amd.sev())
    handle = owner.launch({UUID(int=7): b"the tenant's secret"})
    with refuses(SevStatus.POLICY_FAILURE):
        owner.machine.command("memory", {"guest": handle, "address": SECRET_ADDRESS, "size": 64})
    owner.machine.command("stop", {"guest": handle})
    with refuses(SevStatus.INVALID_PLATFORM_STATE):
        owner.machine.command("memory", {"guest": handle, "address": SECRET_ADDRESS, "size": 64})
