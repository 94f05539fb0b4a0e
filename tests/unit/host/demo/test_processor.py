"""Secure processors as the SEV demo's host has them: errors by name, identifiers, and certificates in their order."""

from __future__ import annotations

import pytest
from tests.forge import amd

from enarx.attest.checks import Ledger
from enarx.attest.sev import parse_chain, verify_chain
from enarx.host.demo.processor import (
    EmulatedProcessor,
    FirmwareRefused,
    HardwareProcessor,
    RemoteFirmware,
    refusals,
)
from enarx.tcb.errors import EnarxError, Malformed, Unavailable
from enarx.tcb.wire import Value
from enarx_emulator.amd.sev_machine import SevMachine
from enarx_emulator.errors import FirmwareError, Refused
from ketuvim import KvmError, KvmUnavailable, Misuse
from ketuvim.sev_platform import PlatformStatus, SevPlatform
from ketuvim.sev_status import SevRefused, SevStatus

CERTIFICATE_BYTES = 2084


class Process:
    """Commands go straight to a machine, and refusals come as a platform process tells them."""

    def __init__(self, machine: SevMachine) -> None:
        self.machine = machine

    def command(self, name: str, **arguments: Value) -> dict[str, Value]:
        try:
            return dict(self.machine.command(name, arguments))
        except FirmwareError as error:
            raise Refused(str(error), status=int(error.status), name=error.status.name) from None

    def close(self) -> None: ...


@pytest.fixture
def backend() -> Process:
    return Process(amd.sev())


def started(backend: Process, firmware: RemoteFirmware) -> int:
    owner = amd.Owner(backend.machine)
    return firmware.launch_start(owner.policy, certificate=owner.certificate, session=owner.session)


def test_each_guest_gets_an_identifier_that_nobody_has(backend: Process) -> None:
    firmware = RemoteFirmware(backend)
    handles = [started(backend, firmware) for _ in range(3)]
    for handle in handles:
        firmware.activate(handle, firmware.free_asid())
    found = [backend.command("guest_status", guest=handle)["asid"] for handle in handles]
    assert found == [1, 2, 3]
    with pytest.raises(FirmwareRefused) as refused:
        firmware.activate(handles[0], 4)
    assert (refused.value.check, refused.value.status) == ("firmware.activate", "ACTIVE")


def test_identifiers_of_guests_that_ran_are_flushed(backend: Process) -> None:
    firmware = RemoteFirmware(backend)
    handle = started(backend, firmware)
    firmware.activate(handle, firmware.free_asid())
    firmware.launch_update_data(handle, 0x1000, bytes(16))
    firmware.launch_measure(handle)
    firmware.launch_finish(handle)
    firmware.close()
    again = started(backend, firmware)
    firmware.activate(again, firmware.free_asid())
    assert backend.command("guest_status", guest=again)["asid"] == 1


def test_closed_it_leaves_no_guest(backend: Process) -> None:
    firmware = RemoteFirmware(backend)
    started(backend, firmware)
    assert backend.command("platform_status")["guest_count"] == 1
    firmware.close()
    assert backend.command("platform_status")["guest_count"] == 0


def test_an_emulated_processor_shows_its_platform(backend: Process) -> None:
    processor = EmulatedProcessor(backend)
    assert processor.version() == (1, 55, 29)
    platform = verify_chain(
        parse_chain(processor.certificates()), anchors=amd.anchors(backend.machine), ledger=Ledger()
    )
    assert platform.api == (1, 55)


def test_a_real_processor_shows_the_vendors_certificates_in_place_of_its_own(
    backend: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = amd.octets(backend.command("info")["platform_chain"])

    class Device(SevPlatform):
        __slots__ = ()

        def __init__(self) -> None: ...

        def export_pdh(self) -> tuple[bytes, bytes]:
            return backend.machine.firmware.pdh_cert_export()

        def status(self) -> PlatformStatus:
            return PlatformStatus(api_major=1, api_minor=55, build=29, state=1, flags=0, guest_count=0)

        def close(self) -> None: ...

    monkeypatch.setattr(SevPlatform, "open", lambda path: Device())
    processor = HardwareProcessor("/dev/sev", whole[3 * CERTIFICATE_BYTES :])
    assert processor.version() == (1, 55, 29)
    assert processor.certificates() == whole
    processor.close()


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (
            SevRefused("KVM_SEV command 2", SevStatus.BAD_MEASUREMENT),
            FirmwareRefused,
            "firmware.x: .*BAD_MEAS",
        ),
        (
            Refused("POLICY_FAILURE: no", status=7, name="POLICY_FAILURE"),
            FirmwareRefused,
            "firmware.x: POLICY",
        ),
        (Refused("not the firmware"), Refused, "not the firmware"),
        (KvmUnavailable("no device", hint="load a module"), Unavailable, "no device"),
        (KvmError("KVM_RUN", 5), EnarxError, "KVM_RUN failed"),
        (Misuse("out of order"), EnarxError, "out of order"),
        (Malformed("wrong"), Malformed, "wrong"),
    ],
)
def test_every_refusal_is_an_error_of_ours(
    raised: Exception, expected: type[EnarxError], message: str
) -> None:
    with pytest.raises(expected, match=message), refusals("x"):
        raise raised


def test_a_platform_that_tells_nonsense() -> None:
    class Silent(Process):
        def command(self, name: str, **arguments: Value) -> dict[str, Value]:
            return {"api_major": "one"}

    processor = EmulatedProcessor(Silent(amd.sev()))
    with pytest.raises(Malformed, match="tells no api_major"):
        processor.version()
    with pytest.raises(Malformed, match="tells no platform_chain"):
        processor.certificates()
