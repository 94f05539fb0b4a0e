"""The secure processor of this machine, real or emulated: certificates, version, and the commands of a launch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

from enarx.api.demo import CheckFailed
from enarx.host.backend import Backend, open_backend
from enarx.tcb.errors import EnarxError, Malformed, Unavailable
from enarx.tcb.wire import Value
from ketuvim import KetuvimError, KvmUnavailable, VirtualMachine, VmType
from ketuvim.sev_commands import KvmCommands, PlainCommands, SevCommands
from ketuvim.sev_platform import SevPlatform
from ketuvim.sev_status import SevRefused

Version = tuple[int, int, int]
"""API major, API minor, build."""
_CEK_AT: Final = 2 * 2084
"""Behind PEK and OCA in what firmware exports."""


class Commanded(Protocol):
    """A platform that takes the firmware's own commands."""

    def command(self, name: str, **arguments: Value) -> dict[str, Value]:
        """Run a command. Raises ``EnarxError``, which has the firmware's status as ``name``."""

    def close(self) -> None:
        """Let go of the platform."""


class CommandedBackend(Backend, Commanded, Protocol):
    """A backend of an emulated platform, which also starts programs."""

    def run(self, guest: int, argv: Sequence[str], *, channel: int) -> int:
        """Start a launched guest that is a program, with a descriptor as its 3; give its process id."""


class SecureProcessor(Protocol):
    """What the host of the SEV demo needs of it."""

    @property
    def vm_type(self) -> VmType:
        """The kind of machine that it launches."""

    def certificates(self) -> bytes:
        """Give PDH, PEK, OCA, CEK, ASK, ARK in a row. Raises ``EnarxError``."""

    def version(self) -> Version:
        """Give the firmware's version. Raises ``EnarxError``."""

    def commands(self, vm: VirtualMachine) -> SevCommands:
        """Give the commands that launch one machine."""

    def close(self) -> None:
        """Let go of it and of what was launched."""


def open_emulated(directory: Path) -> CommandedBackend:
    """Connect to the emulated platform whose state is in ``directory``. Raises ``Unavailable``."""
    backend = open_backend(f"emulated={directory}")
    if not hasattr(backend, "command"):
        raise Unavailable("the installed emulator takes no commands", hint="install the one of this release")
    return cast(CommandedBackend, backend)


class EmulatedProcessor:
    """The firmware of an emulated platform process."""

    vm_type = VmType.DEFAULT

    def __init__(self, backend: Commanded) -> None:
        self._backend = backend
        self._firmware: list[RemoteFirmware] = []

    def certificates(self) -> bytes:
        """As the platform has them, with those of its vendor."""
        return octets(self._backend.command("info"), "platform_chain")

    def version(self) -> Version:
        """Of PLATFORM_STATUS."""
        status = self._backend.command("platform_status")
        return number(status, "api_major"), number(status, "api_minor"), number(status, "build")

    def commands(self, vm: VirtualMachine) -> SevCommands:
        """The machine's memory is plain: nothing here can encrypt it."""
        self._firmware.append(RemoteFirmware(self._backend))
        return PlainCommands(vm, self._firmware[-1])

    def close(self) -> None:
        """Decommission what was launched."""
        for firmware in self._firmware:
            firmware.close()
        self._backend.close()


class HardwareProcessor:
    """The processor of this machine, through ``/dev/sev``. Needs an AMD EPYC with SEV."""

    vm_type = VmType.SEV

    def __init__(self, device: str, vendor: bytes) -> None:
        """``vendor``: the CEK that AMD signed for this chip, its ASK and its ARK, in a row. Raises ``Unavailable``."""
        self._device = device
        self._vendor = vendor
        with refusals("open"):
            self._platform = SevPlatform.open(device)
        self._launches: list[KvmCommands] = []

    def certificates(self) -> bytes:
        """The firmware's own export, whose CEK has no signature, with AMD's certificates in the CEK's place."""
        with refusals("pdh_cert_export"):
            pdh, chain = self._platform.export_pdh()
        return pdh + chain[:_CEK_AT] + self._vendor

    def version(self) -> Version:
        """Of PLATFORM_STATUS."""
        with refusals("platform_status"):
            status = self._platform.status()
        return status.api_major, status.api_minor, status.build

    def commands(self, vm: VirtualMachine) -> SevCommands:
        """KVM and the processor encrypt the machine's memory in place."""
        self._launches.append(KvmCommands(vm, device=self._device))
        return self._launches[-1]

    def close(self) -> None:
        """Close the device."""
        for launch in self._launches:
            launch.close()
        self._platform.close()


class RemoteFirmware:
    """Implements ``ketuvim.sev_commands.SevFirmware`` with the commands of an emulated platform process."""

    def __init__(self, backend: Commanded) -> None:
        self._backend = backend
        self._handles: list[int] = []

    def free_asid(self) -> int:
        """Where ``activate`` begins to look."""
        return 1

    def activate(self, handle: int, asid: int) -> None:
        """ACTIVATE with the first identifier from ``asid`` on that no guest has."""
        while True:
            try:
                self._command("activate", guest=handle, asid=asid)
                return
            except FirmwareRefused as error:
                match error.status:
                    case "ASID_OWNED":
                        asid += 1
                    case "DFFLUSH_REQUIRED":
                        self._command("df_flush")
                    case _:
                        raise

    def launch_start(
        self, policy: bytes, *, certificate: bytes | None = None, session: bytes | None = None
    ) -> int:
        """LAUNCH_START."""
        if certificate is None or session is None:
            raise Malformed("launch: the tenant's certificate and session are missing")
        started = self._command("launch_start", policy=policy, certificate=certificate, session=session)
        self._handles.append(number(started, "guest"))
        return self._handles[-1]

    def launch_update_data(self, handle: int, address: int, data: bytes) -> None:
        """LAUNCH_UPDATE_DATA."""
        self._command("launch_update_data", guest=handle, address=address, data=data)

    def launch_update_vmsa(self, handle: int, vmsa: bytes) -> None:
        """LAUNCH_UPDATE_VMSA."""
        self._command("launch_update_vmsa", guest=handle, vmsa=vmsa)

    def launch_measure(self, handle: int) -> bytes:
        """LAUNCH_MEASURE."""
        return octets(self._command("launch_measure", guest=handle), "measure")

    def launch_secret(self, handle: int, *, header: bytes, payload: bytes, address: int) -> None:
        """LAUNCH_SECRET."""
        self._command("launch_secret", guest=handle, header=header, payload=payload, address=address)

    def launch_finish(self, handle: int) -> None:
        """LAUNCH_FINISH."""
        self._command("launch_finish", guest=handle)

    def running(self, handle: int) -> RunningGuest:
        """Give the guest whose memory the emulated processor shows to the guest alone."""
        return RunningGuest(memory=RemoteMemory(self, handle))

    def memory(self, handle: int, address: int, size: int) -> bytes:
        """Read memory of a running guest."""
        return octets(self._command("memory", guest=handle, address=address, size=size), "data")

    def close(self) -> None:
        """Deactivate and decommission every guest; a platform that is gone has none."""
        for handle in self._handles:
            try:
                self._backend.command("stop", guest=handle)
            except EnarxError:
                continue

    def _command(self, name: str, **arguments: Value) -> dict[str, Value]:
        with refusals(name):
            return self._backend.command(name, **arguments)


@dataclass(frozen=True, slots=True)
class RemoteMemory:
    """Of one running guest."""

    firmware: RemoteFirmware
    handle: int

    def read(self, address: int, size: int) -> bytes:
        """Read it as the guest does."""
        return self.firmware.memory(self.handle, address, size)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningGuest:
    """What ``ketuvim`` asks of a guest that was launched."""

    memory: RemoteMemory


class FirmwareRefused(CheckFailed):
    """The firmware refused a command; ``status`` is its own name for why."""

    def __init__(self, command: str, status: str, reason: str) -> None:
        super().__init__(f"firmware.{command}", reason, hint="the secure processor itself refused")
        self.status = status


@contextmanager
def refusals(command: str) -> Iterator[None]:
    """Turn what firmware and ``ketuvim`` raise into errors of ours."""
    try:
        yield
    except SevRefused as error:
        raise FirmwareRefused(command, error.status.name, str(error)) from None
    except KvmUnavailable as error:
        raise Unavailable(str(error), hint=error.hint) from None
    except KetuvimError as error:
        raise EnarxError(str(error), hint=error.hint) from None
    except EnarxError as error:
        status = getattr(error, "name", "")
        if not isinstance(status, str) or not status:
            raise
        raise FirmwareRefused(command, status, str(error)) from None


def octets(found: dict[str, Value], name: str) -> bytes:
    """Take bytes out of a platform's answer. Raises ``Malformed``."""
    value = found.get(name)
    if not isinstance(value, bytes):
        raise Malformed(f"the platform tells no {name}")
    return value


def number(found: dict[str, Value], name: str) -> int:
    """Take a number out of a platform's answer. Raises ``Malformed``."""
    value = found.get(name)
    if not isinstance(value, int):
        raise Malformed(f"the platform tells no {name}")
    return value
