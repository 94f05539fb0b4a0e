"""The host of the SEV demo: it launches the guest for a tenant who does not trust it, or attacks on request."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from enarx.api.demo import (
    CertificateChain,
    ChainRequest,
    Dialogue,
    End,
    LaunchStart,
    Line,
    Measurement,
    Printed,
    Say,
    Secret,
    Side,
    expect,
)
from enarx.api.demo_guest import CODE, ENTRY, REGION_BYTES, measured_memory
from enarx.attest.sev import owner_certificate, parse_certificate
from enarx.host.demo.attacks import SevAttack
from enarx.host.demo.machine import GuestMachine, open_machine
from enarx.host.demo.processor import SecureProcessor, refusals
from ketuvim import sev
from ketuvim.interpreter import NOTICE

_KEY_OF_PDH: Final = slice(0x14, 0xA4)
"""Both coordinates in a certificate (AMD 55766, appendix C)."""
_UNUSED: Final = ENTRY + 0x800
_CERTIFICATE_BYTES: Final = 2084


@dataclass(frozen=True, slots=True, kw_only=True)
class SevHost:
    """Who has the machine."""

    processor: SecureProcessor
    kvm: str
    """The path of the device."""
    say: Say
    attack: SevAttack | None = None
    _machines: ExitStack = field(default_factory=ExitStack)

    def converse(self) -> Dialogue:
        """Serve one tenant. Raises ``FirmwareRefused``, ``Unavailable``, ``ProtocolViolation``.

        1. Show the platform's certificates. 2. Launch and measure. 3. Inject what the tenant sends. 4. Run.
        """
        with self._machines:
            expect(ChainRequest, (yield None))
            start = expect(LaunchStart, (yield self._chain()))  # 1
            machine, measured = self._launched(start)  # 2
            secret = expect(Secret, (yield self._measurement(measured)))
            launched = self._injected(machine, measured, start, secret)  # 3
            self._tell(
                f"Guest Launched on {self.kvm}" if not launched.interpreted else f"Guest Launched: {NOTICE}"
            )
            with refusals("run"):
                output = launched.run()  # 4
            self._tell(f"Guest printed {output.decode('ascii', 'backslashreplace').strip()!r}", to_peer=True)
            return End(message=Printed(output=output, interpreted=launched.interpreted))

    def _chain(self) -> CertificateChain:
        certificates = self.processor.certificates()
        if self.attack is SevAttack.CHAIN:
            self._tell("ATTACK: a key of mine takes the place of the platform's in the PDH certificate")
            curve = parse_certificate(certificates[:_CERTIFICATE_BYTES]).key.curve
            mine = owner_certificate(ec.generate_private_key(curve).public_key())[_KEY_OF_PDH]
            certificates = certificates[: _KEY_OF_PDH.start] + mine + certificates[_KEY_OF_PDH.stop :]
        if self.attack is SevAttack.FIRMWARE_VERSION:
            self._tell("ATTACK: the firmware's build passes for the next one")
        major, minor, build = self._version()
        self._tell(f"Certificate Chain; firmware {major}.{minor}.{build}", to_peer=True)
        return CertificateChain(certificates=certificates, api_major=major, api_minor=minor, build=build)

    def _version(self) -> tuple[int, int, int]:
        major, minor, build = self.processor.version()
        if self.attack is SevAttack.FIRMWARE_VERSION:
            build += 1
        return major, minor, build

    def _launched(self, start: LaunchStart) -> tuple[GuestMachine, sev.Measured]:
        """Make a machine, and launch it up to its measurement."""
        flags = sev.PolicyFlags(int.from_bytes(start.policy[:2], "little"))
        if self.attack is SevAttack.POLICY:
            self._tell("ATTACK: the policy is to allow debugging, so that I can read the guest's memory")
            flags &= ~sev.PolicyFlags.NODBG
        policy = sev.Policy(flags=flags, api_major=start.policy[2], api_minor=start.policy[3])
        with refusals("launch"):
            machine = self._machines.enter_context(open_machine(self.kvm, self.processor.vm_type))
            machine.vm.write(ENTRY, measured_memory())
            if self.attack is SevAttack.MEASUREMENT:
                self._tell("ATTACK: code of mine lies in the memory that is measured")
                machine.vm.write(_UNUSED, bytes.fromhex("f4"))
            launch = sev.Launch.new(machine.vm, self.processor.commands(machine.vm))
            asked = sev.Start(policy=policy, certificate=start.certificate, session=start.session)
            with refusals("launch_start"):
                started = launch.start(asked)
            with refusals("launch_update_data"):
                started.update_data(ENTRY, REGION_BYTES)
            with refusals("launch_measure"):
                return machine, started.measure()

    def _measurement(self, measured: sev.Measured) -> Measurement:
        said = measured.measurement
        major, minor, build = self._version()
        measure = said.measure + said.nonce
        self._tell(f"VM Measurement: {measure.hex()}", to_peer=True)
        return Measurement(measure=measure, api_major=major, api_minor=minor, build=build)

    def _injected(
        self, machine: GuestMachine, measured: sev.Measured, start: LaunchStart, secret: Secret
    ) -> GuestMachine:
        if self.attack is SevAttack.SECRET_REPLAY:
            self._tell("ATTACK: a second guest of the same session gets the code that was sent for the first")
            machine, measured = self._launched(start)
        self._tell(f"Inject Encrypted Code/Data at {CODE:#x}")
        with refusals("launch_secret"):
            measured.inject(sev.Secret(header=secret.header, payload=secret.payload), CODE)
        with refusals("launch_finish"):
            measured.finish()
        return machine

    def _tell(self, text: str, *, to_peer: bool = False) -> None:
        self.say(Line(speaker=Side.HOST, text=text, to_peer=to_peer))
