"""A machine with SEV or SEV-ES: the host's commands by name, and its guests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from uuid import UUID

from enarx.attest.sev import parse_secret_table
from enarx.attest.sev._certs import CERTIFICATE_BYTES
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value
from enarx_emulator.amd.chip import Chip
from enarx_emulator.amd.commands import Action, Prepare, done, run, sev_commands, sev_start
from enarx_emulator.amd.memory import PAGE_BYTES
from enarx_emulator.amd.sev import VMSA_BYTES, SevFirmware
from enarx_emulator.amd.status import SevStatus, require
from enarx_emulator.amd.vendor import AmdVendor
from enarx_emulator.arguments import Arguments
from enarx_emulator.coco import SecretTree
from enarx_emulator.tree import Tree

IMAGE_ADDRESS: Final = 0x100000
"""Where a process keep's image is loaded; no digest covers it."""
SECRET_ADDRESS: Final = 0x80000
"""Where its secrets are put, below the image; no digest covers it either."""
MAX_IMAGE_BYTES: Final = 64 * 1024 * 1024


class SevMachine:
    """Implements ``enarx_emulator.machine.Machine``."""

    def __init__(
        self,
        kind: str,
        chip: Chip,
        vendor: AmdVendor,
        *,
        random: Callable[[int], bytes],
        faults: frozenset[str],
        saved: Mapping[str, Value],
    ) -> None:
        self.kind = kind
        major, minor, build = chip.current.version
        self.firmware = SevFirmware(
            chip.fuses, api=(major, minor), build=build, random=random, faults=faults, saved=saved
        )
        self.firmware.init(es=kind == "sev-es")
        self._chip, self._vendor = chip, vendor
        self._guests: dict[int, SevMachineGuest] = {}
        self._secrets: dict[int, int] = {}
        self._keeps: set[int] = set()
        own: dict[str, Prepare] = {
            "info": lambda _: self._info,
            "launch": self._launch,
            "measure": self._measure,
            "secret": self._secret,
            "finish": self._finish,
            "memory": self._memory,
            "stop": self._stop,
        }
        self._commands = {**sev_commands(self.firmware), **own}

    def command(self, name: str, arguments: Mapping[str, object]) -> Mapping[str, Value]:
        """Run a command. Raises ``FirmwareError``, ``Malformed``."""
        return run(self._commands, name, arguments)

    def guest(self, handle: int) -> SevMachineGuest:
        """Give a launched guest."""
        running = self.firmware.running(handle)
        if handle not in self._guests:
            size = self._secrets.get(handle, 0)
            self._guests[handle] = SevMachineGuest(running.memory.read(SECRET_ADDRESS, size))
        return self._guests[handle]

    def save(self) -> Mapping[str, Value]:
        """Give the chip's state and that of the platform's keys."""
        return {"chip": self._chip.save(), "sev": self.firmware.save()}

    def platform_chain(self) -> bytes:
        """PDH, PEK, OCA, CEK, ASK, ARK: the firmware's export, with the CEK that the vendor signed."""
        pdh, chain = self.firmware.pdh_cert_export()
        own = pdh + chain[: 2 * CERTIFICATE_BYTES]
        return own + self._vendor.cek(self._chip.fuses) + self._vendor.ask_ark(self._chip.product.line)

    def _info(self) -> Mapping[str, Value]:
        fuses = self._chip.fuses
        major, minor = self.firmware.api
        return {
            "kind": self.kind,
            "product": fuses.product.line.value,
            "emulated": True,
            "platform_id": self.firmware.get_id(),
            "tcb": {"build": self.firmware.build},
            "firmware": f"EMULATED {major}.{minor}.{self.firmware.build}",
            "chip_id": self.firmware.get_id(),
            "api_major": major,
            "api_minor": minor,
            "build": self.firmware.build,
            "platform_chain": self.platform_chain(),
            "roots": [self._vendor.root_pem(fuses.product.line)],
        }

    def _launch(self, given: Arguments) -> Action:
        """A process keep up to its measurement: the image zero-padded; with SEV-ES one zeroed save area.

        Or a VM keep: ``parts``, each an address and data, and the save areas ``vmsas``.
        """
        if "parts" in given:
            parts = [_part(item) for item in given.items("parts")]
            vmsas = [item for item in given.items("vmsas") if isinstance(item, bytes)]
        else:
            image = given.data("image", max_bytes=MAX_IMAGE_BYTES)
            require(len(image) > 0, SevStatus.INVALID_LENGTH, "the image is empty")
            parts = [(IMAGE_ADDRESS, image + bytes(-len(image) % PAGE_BYTES))]
            vmsas = [bytes(VMSA_BYTES)]
        start = sev_start(self.firmware, given)

        def launch() -> Mapping[str, Value]:
            started = start()
            handle = started["guest"]
            assert isinstance(handle, int)  # noqa: S101 -- the firmware's own answer
            try:
                self.firmware.activate(handle, self.firmware.free_asid())
                for address, data in parts:
                    self.firmware.launch_update_data(handle, address, data)
                for vmsa in vmsas if self.firmware.guest_is_es(handle) else ():
                    self.firmware.launch_update_vmsa(handle, vmsa)
            except BaseException:
                self._forget(handle)
                raise
            self._keeps.add(handle)
            return started

        return launch

    def _measure(self, given: Arguments) -> Action:
        handle = given.number("guest")
        firmware = self.firmware
        return lambda: {
            "measure": firmware.launch_measure(handle),
            "api_major": firmware.api[0],
            "api_minor": firmware.api[1],
            "build": firmware.build,
        }

    def _secret(self, given: Arguments) -> Action:
        """Inject one packet where the guest looks for it."""
        handle = given.number("guest")
        header, payload = given.data("header"), given.data("payload")

        def inject() -> None:
            self.firmware.launch_secret(handle, header=header, payload=payload, address=SECRET_ADDRESS)
            self._secrets[handle] = len(payload)

        return done(inject)

    def _finish(self, given: Arguments) -> Action:
        handle = given.number("guest")
        return done(lambda: self.firmware.launch_finish(handle))

    def _memory(self, given: Arguments) -> Action:
        """What the processor would show a running guest, for a host that runs one by KVM in the processor's place."""
        handle = given.number("guest")
        address, size = given.number("address"), given.number("size", below=MAX_IMAGE_BYTES)

        def read() -> Mapping[str, Value]:
            closed = handle in self._keeps
            require(not closed, SevStatus.POLICY_FAILURE, f"guest {handle} is a process with its own port")
            return {"data": self.firmware.running(handle).memory.read(address, size)}

        return read

    def _stop(self, given: Arguments) -> Action:
        handle = given.number("guest")
        return done(lambda: self._forget(handle))

    def _forget(self, handle: int) -> None:
        if self.firmware.guest_status(handle)["asid"]:
            self.firmware.deactivate(handle)
        self.firmware.decommission(handle)
        self._guests.pop(handle, None)
        self._secrets.pop(handle, None)
        self._keeps.discard(handle)


def _part(item: object) -> tuple[int, bytes]:
    """Read one of ``parts``: where it is, and what is in it."""
    match item:
        case [int(address), bytes(data)]:
            return address, data
    raise Malformed("launch: parts are lists of an address and data")


class SevMachineGuest:
    """What runs in a launched guest of SEV sees the secrets that were injected, as Linux shows them."""

    def __init__(self, area: bytes) -> None:
        """``area``: the secret table, or nothing. What is no table shows no secret, as Linux does."""
        found: Mapping[UUID, bytes] = {}
        try:
            found = parse_secret_table(area) if area else {}
        except Malformed:
            found = {}
        self._tree = SecretTree({str(guid): secret for guid, secret in found.items()})

    def tree(self) -> Tree:
        """The files."""
        return self._tree
