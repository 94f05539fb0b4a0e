"""An attested launch on the real ``/dev/kvm`` with an emulated secure processor: code that only arrives as a secret."""

from __future__ import annotations

import hashlib

import pytest
from tests.forge import amd
from tests.forge.amd import Randomness
from tests.forge.pki import ec_key

from enarx.attest.sev import (
    SessionKeys,
    owner_certificate,
    pack_secret,
    parse_certificate,
    parse_launch_measure,
)
from enarx.attest.sev import prepare_session as session_for
from enarx_emulator.amd.chip import product
from enarx_emulator.amd.sev import SevFirmware
from enarx_emulator.errors import FirmwareError
from ketuvim import Bus, Console, Halt, Kvm, KvmUnavailable, Misuse, Mode, enter_mode
from ketuvim.registers import Registers
from ketuvim.sev import Launch, Launched, Measured, Policy, PolicyFlags, Secret, Start, Started
from ketuvim.sev_commands import KvmCommands, PlainCommands
from ketuvim.vm import VirtualMachine

KEYS = SessionKeys(tek=bytes(range(16)), tik=bytes(range(16, 32)))
POLICY = Policy(flags=PolicyFlags.NODBG | PolicyFlags.NOKS | PolicyFlags.NOSEND, api_major=1)
PORT = 0x3F8
ENTRY = 0x1000
PAGE = bytes(4096)
# mov dx, 0x3f8; mov al, 2; mov bl, 2; add al, bl; add al, '0'; out dx, al; mov al, '\n'; out dx, al; hlt
ADD = bytes.fromhex("baf803 b002 b302 00d8 0430 ee b00a ee f4").ljust(32, b"\0")


@pytest.fixture
def firmware() -> SevFirmware:
    fuses = amd.vendor().manufacture(product("milan"), amd.setup("sev").seed)
    made = SevFirmware(fuses, random=Randomness())
    made.init()
    return made


def begin(vm: VirtualMachine, firmware: SevFirmware) -> Started:
    """What host and tenant do up to the measured memory."""
    owner = ec_key("owner of a guest")
    pdh = parse_certificate(firmware.pdh_cert_export()[0]).key
    session = session_for(pdh, owner=owner, keys=KEYS, policy=POLICY.pack(), nonce=b"n" * 16, iv=b"i" * 16)
    vm.add_region(ENTRY, len(PAGE))
    launch = Launch.new(vm, PlainCommands(vm, firmware))
    return launch.start(
        Start(policy=POLICY, certificate=owner_certificate(owner.public_key()), session=session)
    )


def packet_for(measured: Measured, firmware: SevFirmware, *, digest: bytes) -> Secret:
    """What the tenant does with the measurement."""
    said = measured.measurement
    parsed = parse_launch_measure(said.measure + said.nonce, api=firmware.api, build=firmware.build)
    verified = parsed.check(KEYS.tik, policy=POLICY.pack(), digest=digest)
    packet = pack_secret(verified, ADD, keys=KEYS, iv=bytes(16))
    return Secret(header=packet.header, payload=packet.payload)


def output(launched: Launched) -> bytes:
    """What the guest prints until it halts."""
    vcpu, console, bus = launched.vm.create_vcpu(), Console(), Bus()
    enter_mode(vcpu, Mode.REAL)
    vcpu.registers = Registers(rip=ENTRY)
    bus.attach_ports(range(PORT, PORT + 1), console)
    assert bus.serve(vcpu, timeout_s=20) == Halt()
    return bytes(console.output)


def test_code_that_was_delivered_as_a_secret_adds(kvm: Kvm, firmware: SevFirmware) -> None:
    with kvm.create_vm() as vm:
        started = begin(vm, firmware)
        started.update_data(ENTRY, len(PAGE))
        measured = started.measure()
        secret = packet_for(measured, firmware, digest=hashlib.sha256(PAGE).digest())
        assert ADD not in secret.payload + secret.header
        measured.inject(secret, ENTRY)
        assert vm.read(ENTRY, len(PAGE)) == PAGE  # nothing is there before the launch is finished
        assert output(measured.finish()) == b"4\n"


def test_a_secret_of_another_launch_is_refused(kvm: Kvm, firmware: SevFirmware) -> None:
    secrets = []
    for _ in range(2):
        with kvm.create_vm() as vm:
            started = begin(vm, firmware)
            started.update_data(ENTRY, len(PAGE))
            measured = started.measure()
            secrets.append(packet_for(measured, firmware, digest=hashlib.sha256(PAGE).digest()))
            if len(secrets) > 1:
                with pytest.raises(FirmwareError):
                    measured.inject(secrets[0], ENTRY)
                measured.inject(secrets[1], ENTRY)


def test_a_state_that_was_left_refuses_every_step(kvm: Kvm, firmware: SevFirmware) -> None:
    with kvm.create_vm() as vm:
        started = begin(vm, firmware)
        started.update_data(ENTRY, len(PAGE))
        measured = started.measure()
        for step in (lambda: started.update_data(ENTRY, 16), started.update_vmsa, started.measure):
            with pytest.raises(Misuse, match="past the state Started"):
                step()
        secret = packet_for(measured, firmware, digest=hashlib.sha256(PAGE).digest())
        measured.finish()
        with pytest.raises(Misuse, match="past the state Measured"):
            measured.inject(secret, ENTRY)
        with pytest.raises(Misuse, match="past the state Measured"):
            measured.finish()


def test_a_secret_outside_memory_is_refused(kvm: Kvm, firmware: SevFirmware) -> None:
    with kvm.create_vm() as vm:
        started = begin(vm, firmware)
        started.update_data(ENTRY, len(PAGE))
        measured = started.measure()
        secret = packet_for(measured, firmware, digest=hashlib.sha256(PAGE).digest())
        with pytest.raises(Misuse, match="no region holds"):
            measured.inject(secret, 0x100000)


def test_where_there_is_no_secure_processor(kvm: Kvm) -> None:
    with kvm.create_vm() as vm, pytest.raises(KvmUnavailable, match="cannot be opened") as caught:
        KvmCommands(vm, device="/dev/sev-that-is-not-there")
    assert "EPYC" in caught.value.hint
