"""AMD SEV and SEV-ES: measured before they run; the tenant sees the measurement and gives a secret, then they start."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from enarx.api.vm_image import VmImage
from enarx.attest import Kind
from enarx.attest.material import SEV_CERTIFICATE_BYTES
from enarx.attest.measure import hash_kernel, parse_sev_firmware, sev_launch_digest
from enarx.host import platform
from enarx.host.backend import Endorsements, Fact, Launched, Support
from enarx.host.backends._machine import HARDWARE, MachineBackend, memory_encryption
from enarx.host.platform._machine import Machine, this_machine
from enarx.host.platform._sev import sev
from enarx.host.vm import Guest, Protection, VmKeep
from enarx.host.vm._options import MEMORY_MIB
from enarx.tcb.errors import Malformed, ProtocolViolation, Unavailable
from enarx.tcb.wire import decode, encode
from ketuvim.errors import KetuvimError
from ketuvim.sev_platform import SevPlatform

MAX_TENANT_BYTES: Final = 1 << 16
ENCRYPTED_STATE: Final = 1 << 2
"""SEV-ES, in the policy. Such a machine is made by KVM_SEV_INIT2 (Linux 6.10): the older call leaves the state of the
floating-point unit out of what is measured, and ``enarx.attest.measure`` computes it with that."""
FIRMWARE_MIB: Final = 16
"""Room for what is pinned beside the memory: the flash with OVMF, and what devices bring."""
PUBLISHED: Final = "AMD's certificates for this chip"
CEK_SERVICE: Final = "https://kdsintf.amd.com/cek/id"
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """What the tenant has prepared for the launch (AMD 55766, LAUNCH_START)."""

    policy: bytes
    certificate: bytes
    session: bytes

    @classmethod
    def parse(cls, tenant: bytes) -> Owner:
        """Read it. Raises ``Malformed``."""
        match decode(tenant, max_bytes=MAX_TENANT_BYTES):
            case {
                "policy": bytes(policy),
                "certificate": bytes(certificate),
                "session": bytes(session),
                **rest,
            }:
                if not rest and len(policy) == 4:
                    return cls(policy=policy, certificate=certificate, session=session)
        raise Malformed("launch on sev: expected a map of policy (4 bytes), certificate and session")

    def objects(self, c_bit: int, reduced_bits: int, folder: Path) -> Sequence[str]:
        """Give the argument of ``-object``; QEMU reads certificate and session from files in ``folder``, as base64."""
        for name, content in (("godh", self.certificate), ("session", self.session)):
            (folder / name).write_bytes(b64encode(content))
        policy = int.from_bytes(self.policy, "little")
        es = ",legacy-vm-type=off" if policy & ENCRYPTED_STATE else ""
        guest = f"sev-guest,id=tee0,cbitpos={c_bit},reduced-phys-bits={reduced_bits},policy={policy:#x}"
        files = f"dh-cert-file={folder}/godh,session-file={folder}/session"
        return (f"{guest},kernel-hashes=on{es},{files}",)


class SevKeep:
    """Implements ``enarx.host.backend.Launched``: a machine that waits for its secret."""

    def __init__(self, keep: VmKeep) -> None:
        self._keep = keep
        self.pid: int | None = keep.pid
        self.channel: socket.socket | None = None
        told = self._command("query-sev")
        measured = self._command("query-sev-launch-measure")
        self.launch = encode(
            {
                "measure": _taken(measured, "data", _octets),
                "api_major": _taken(told, "api-major", int),
                "api_minor": _taken(told, "api-minor", int),
                "build": _taken(told, "build-id", int),
            }
        )

    def secret(self, packet: bytes) -> None:
        """Inject the tenant's packet where the firmware has room for it, and let the machine run until it is ready."""
        if self.channel is not None:
            raise ProtocolViolation("this keep waits for no secret")
        match decode(packet, max_bytes=MAX_TENANT_BYTES):
            case {"header": bytes(header), "payload": bytes(payload), **rest} if not rest:
                given = {"packet-header": b64encode(header).decode(), "secret": b64encode(payload).decode()}
                self._command("sev-inject-launch-secret", **given)
            case _:
                raise Malformed("secret: expected a map of header and payload")
        self._command("cont")
        self._keep.await_ready()
        self.channel = self._keep.channel

    def stop(self) -> None:
        """End it."""
        self._keep.stop()

    def _command(self, name: str, **arguments: object) -> Any:
        if self._keep.control is None:
            raise Unavailable("QEMU did not start")
        return self._keep.control.command(name, **arguments)


class SevBackend(MachineBackend):
    """``--backend sev=FILE``."""

    protection = Protection.SEV
    least_qemu = (7, 2)

    def __init__(self, argument: str) -> None:
        """``argument``: a file with what AMD published for this chip, CEK, ASK and ARK in a row."""
        super().__init__("")
        self._vendor = Path(argument) if argument else None

    def judge(self, machine: Machine) -> platform.Backend:
        """Look for SEV, and whether the whole of a keep can be pinned, which SNP does not ask for."""
        found = sev(machine)
        return replace(found, configuration=(*found.configuration, pinning(machine, os.geteuid())))

    def firmware(self, image: VmImage) -> Path | None:
        """Take the OVMF that holds the kernel against its hashes."""
        return image.sev_firmware

    def check_firmware(self, content: bytes) -> None:
        """Refuse OVMF that would start any kernel."""
        sev_launch_digest(parse_sev_firmware(content), kernel=hash_kernel(b""))

    def support(self) -> Support:
        """Look at the machine, and whether AMD's certificates for it are here."""
        found = super().support()
        try:
            self._published()
            fact = Fact(name=PUBLISHED, passed=True, detail=str(self._vendor))
        except Unavailable as error:
            fact = Fact(name=PUBLISHED, passed=False, detail=str(error), advice=error.hint)
        return Support(ready=found.ready and fact.passed, facts=(*found.facts, fact))

    def endorsements(self) -> Endorsements:
        """Give the platform's own certificates (AMD 55766, PDH_CERT_EXPORT): PDH, PEK, OCA; then those of AMD.

        The CEK that the platform exports has no signature; AMD's does.
        """
        published = self._published()
        try:
            with SevPlatform.open() as firmware:
                pdh, chain = firmware.export_pdh()
        except (KetuvimError, OSError) as error:
            raise Unavailable(f"the secure processor gives no certificates: {error}") from None
        own = pdh + chain[: 2 * SEV_CERTIFICATE_BYTES]
        return Endorsements(documents=((Kind.SEV_CERTIFICATE.value, own + published),))

    def _published(self) -> bytes:
        """Give what AMD published for this chip. Raises ``Unavailable``."""
        hint = f"{_where()}, put AMD's ASK and ARK behind it, and name the file: --backend {self.name}=FILE"
        if self._vendor is None:
            raise Unavailable("no file with AMD's certificates for this chip was named", hint=hint)
        try:
            content = self._vendor.read_bytes()
        except OSError as error:
            raise Unavailable(
                f"{self._vendor}: {(error.strerror or str(error)).lower()}", hint=hint
            ) from None
        if len(content) <= SEV_CERTIFICATE_BYTES:
            found = f"{len(content)} bytes are no CEK with ASK and ARK behind it"
            raise Unavailable(f"{self._vendor}: {found}", hint=hint)
        return content

    def objects(self) -> Sequence[str]:
        """Give none: each launch has its owner's."""
        return ()

    def start(self, image: VmImage, tenant: bytes) -> Launched:
        """Launch it up to what its tenant must see. Raises ``EnarxError``."""
        owner = Owner.parse(tenant)
        with tempfile.TemporaryDirectory(prefix="enarx-sev-") as folder:
            objects = owner.objects(*memory_encryption(this_machine()), Path(folder))
            guest = Guest(cmdline=image.cmdline, objects=objects)
            keep = VmKeep(self.protection, self.boot(image), guest, accelerator=HARDWARE)
            try:
                return SevKeep(keep)  # which waits until QEMU has read the files
            except BaseException:
                keep.stop()
                raise


def pinning(machine: Machine, user: int) -> platform.Fact:
    """State that ``user`` may pin one keep: KVM counts all memory of a SEV guest as locked."""
    soft, needed = machine.memlock[0], MEMORY_MIB + FIRMWARE_MIB
    passed = user == 0 or soft < 0 or soft >= needed << 20
    return platform.Fact(
        name="A whole keep can be locked in memory",
        passed=passed,
        info=f"{needed} MiB, limit {'none' if user == 0 or soft < 0 else f'{soft >> 20} MiB'}",
        advice="" if passed else "raise it with ulimit -l unlimited, or LimitMEMLOCK=infinity for a service",
    )


def _where() -> str:
    """Say where AMD serves the certificate of this chip."""
    chip = "ID (what the secure processor answers to GET_ID)"
    with contextlib.suppress(KetuvimError, OSError), SevPlatform.open() as firmware:
        chip = firmware.identity().hex()
    return f"fetch {CEK_SERVICE}/{chip}"


def _taken(answer: object, name: str, read: Callable[[Any], _Found]) -> _Found:
    """Take one value of an answer of QEMU. Raises ``Unavailable``."""
    try:
        return read(answer[name])  # type: ignore[index] # whatever it is
    except (KeyError, TypeError, ValueError):
        raise Unavailable(f"QEMU did not tell {name}") from None


def _octets(value: str) -> bytes:
    return b64decode(value, validate=True)
