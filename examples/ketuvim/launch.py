"""Launch a SEV guest whose code arrives encrypted: ``python examples/ketuvim/launch.py A B``.

The library's side of ``enarx demo sev`` on one page. Tenant and host are functions here, the secure processor is an
object of the emulator's, which protects nothing, and the guest runs on ``/dev/kvm``.
"""

from __future__ import annotations

import hashlib
import os
import sys

from cryptography.hazmat.primitives.asymmetric import ec

from enarx.attest.sev import (
    SessionKeys,
    owner_certificate,
    pack_secret,
    parse_certificate,
    parse_launch_measure,
    prepare_session,
)
from enarx_emulator.amd.chip import Fuses, product
from enarx_emulator.amd.sev import SevFirmware
from enarx_emulator.seed import Seed
from ketuvim import Bus, Console, Kvm, KvmUnavailable, Mode, Registers, enter_mode
from ketuvim.sev import Launch, Launched, Measured, Policy, PolicyFlags, Secret, Start
from ketuvim.sev_commands import PlainCommands
from ketuvim.vm import VirtualMachine

PORT, ENTRY, PAGE_BYTES, LARGEST = 0x3F8, 0x1000, 4096, 4


class Tenant:
    """Who owns the code, and gives it to no guest but the one that was measured."""

    def __init__(self, pdh: bytes) -> None:
        """``pdh``: the platform's key. A real tenant verifies the chain above it first (``verify_chain``)."""
        platform = parse_certificate(pdh).key
        owner = ec.generate_private_key(platform.curve)
        self.keys = SessionKeys(tek=os.urandom(16), tik=os.urandom(16))
        self.policy = Policy(flags=PolicyFlags.NODBG | PolicyFlags.NOKS | PolicyFlags.NOSEND, api_major=1)
        session = prepare_session(
            platform,
            owner=owner,
            keys=self.keys,
            policy=self.policy.pack(),
            nonce=os.urandom(16),
            iv=os.urandom(16),
        )
        self.start = Start(
            policy=self.policy, certificate=owner_certificate(owner.public_key()), session=session
        )

    def secret(self, measured: Measured, version: tuple[int, int, int], code: bytes) -> Secret:
        """Compare the measurement with that of an empty page, and encrypt ``code`` for this launch."""
        said = measured.measurement
        launch = parse_launch_measure(said.measure + said.nonce, api=version[:2], build=version[2])
        digest = hashlib.sha256(bytes(PAGE_BYTES)).digest()
        verified = launch.check(self.keys.tik, policy=self.policy.pack(), digest=digest)
        packet = pack_secret(verified, code, keys=self.keys, iv=os.urandom(16))
        return Secret(header=packet.header, payload=packet.payload)


def launch(vm: VirtualMachine, firmware: SevFirmware, tenant: Tenant, code: bytes) -> Launched:
    """What the host does: each step gives the state that has the next."""
    vm.add_region(ENTRY, PAGE_BYTES)
    started = Launch.new(vm, PlainCommands(vm, firmware)).start(tenant.start)
    started.update_data(ENTRY, PAGE_BYTES)
    measured = started.measure()
    measured.inject(tenant.secret(measured, (*firmware.api, firmware.build), code), ENTRY)
    return measured.finish()


def run(launched: Launched) -> bytes:
    """Let the guest run until it halts, and give what it printed."""
    vcpu, console, bus = launched.vm.create_vcpu(), Console(), Bus()
    enter_mode(vcpu, Mode.REAL)
    vcpu.registers = Registers(rip=ENTRY)
    bus.attach_ports(range(PORT, PORT + 1), console)
    bus.serve(vcpu, timeout_s=10)
    return bytes(console.output)


def main(arguments: list[str]) -> int:
    """Check the operands, launch, run, print."""
    if len(arguments) != 2 or not all(text in "01234" and len(text) == 1 for text in arguments):
        print(f"usage: launch NUMBER NUMBER, each between 0 and {LARGEST}", file=sys.stderr)
        return 2
    a, b = (int(text) for text in arguments)
    # mov dx, PORT; mov al, a; mov bl, b; add al, bl; add al, '0'; out dx, al; mov al, '\n'; out dx, al; hlt
    code = bytes.fromhex(f"ba{PORT & 0xFF:02x}{PORT >> 8:02x} b0{a:02x} b3{b:02x} 00d8 0430 ee b00a ee f4")
    firmware = SevFirmware(Fuses(product("milan"), Seed(os.urandom(32))), random=os.urandom)
    firmware.init()
    try:
        with Kvm.open() as kvm, kvm.create_vm() as vm:
            output = run(launch(vm, firmware, Tenant(firmware.pdh_cert_export()[0]), code))
    except KvmUnavailable as error:
        print(f"launch: {error}", file=sys.stderr)
        return 4
    print(output.decode(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
