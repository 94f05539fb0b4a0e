"""A POWER machine with an ultravisor, as the host's commands drive it.

A process keep's image is loaded as the kernel, with an empty initrd and the command line ``enarx``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from enarx.attest.pef import RTAS
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value
from enarx_emulator.arguments import Arguments
from enarx_emulator.coco import SecretTree
from enarx_emulator.errors import EmulatorError, FirmwareError
from enarx_emulator.ibm.ultravisor import KEY_BITS, Loaded, Status, Ultravisor
from enarx_emulator.machine import Setup
from enarx_emulator.tree import Tree

KIND: Final = "pef"
BOOTARGS: Final = "enarx"
MAX_GUESTS: Final = 1024
FIRMWARE: Final = "EMULATED ultravisor 1"


@dataclass(slots=True)
class PefGuest:
    """One virtual machine; it has secrets once it is secure."""

    loaded: Loaded
    blob: bytes
    secrets: SecretTree | None = None

    def tree(self) -> Tree:
        """The files of the blob."""
        if self.secrets is None:
            raise FirmwareError(Status.U_NOT_AVAILABLE, "the guest is not secure")
        return self.secrets


class PefMachine:
    """One machine and its virtual machines."""

    def __init__(self, setup: Setup) -> None:
        self._saved = dict(setup.saved or {})
        self._faults = setup.faults
        self._firmware: Ultravisor | None = None
        self._guests: dict[int, PefGuest] = {}
        self._next = 1
        self._commands: Mapping[str, Callable[[Arguments], Mapping[str, Value]]] = {
            "info": self._info,
            "launch": self._launch,
            "measure": self._measure,
            "finish": self._finish,
            "stop": self._stop,
        }

    @property
    def kind(self) -> str:
        """``pef``."""
        return KIND

    def command(self, name: str, arguments: Mapping[str, object]) -> Mapping[str, Value]:
        """Run a command. Raises ``FirmwareError``, ``Malformed``."""
        if name not in self._commands:
            raise FirmwareError(Status.U_FUNCTION, f"{name} is no command of this machine")
        return self._commands[name](Arguments(name, arguments))

    def guest(self, handle: int) -> PefGuest:
        """Give a secure guest. Raises ``FirmwareError``."""
        guest = self._found(handle)
        if guest.secrets is None:
            raise FirmwareError(Status.U_NOT_AVAILABLE, f"guest {handle} is not secure")
        return guest

    def save(self) -> Mapping[str, Value]:
        """The machine's key, once there is one."""
        return self._saved

    def _ultravisor(self) -> Ultravisor:
        """The firmware with the machine's key, which is made when it is first needed."""
        if self._firmware is None:
            if "key" not in self._saved:
                key = rsa.generate_private_key(65537, KEY_BITS)
                self._saved["key"] = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            stored = self._saved["key"]
            try:
                loaded = load_der_private_key(stored, None) if isinstance(stored, bytes) else None
            except (ValueError, UnsupportedAlgorithm):
                loaded = None
            if not isinstance(loaded, rsa.RSAPrivateKey):
                raise EmulatorError("the saved machine has no RSA key")
            self._firmware = Ultravisor(loaded, faults=self._faults)
        return self._firmware

    def _info(self, arguments: Arguments) -> Mapping[str, Value]:
        arguments.end()
        firmware = self._ultravisor()
        return {
            "kind": KIND,
            "product": "power9",
            "emulated": True,
            "platform_id": firmware.fingerprint,
            "machine_key": firmware.public_key,
            "roots": [],
            "tcb": {},
            "firmware": FIRMWARE,
        }

    def _launch(self, arguments: Arguments) -> Mapping[str, Value]:
        loaded = Loaded(
            kernel=arguments.data("image"),
            initrd=arguments.data("initrd", b""),
            bootargs=arguments.text("bootargs", BOOTARGS),
            rtas=arguments.data("rtas", RTAS),
        )
        blob = arguments.data("esm_blob", max_bytes=1 << 24)
        arguments.end()
        if not loaded.kernel:
            raise FirmwareError(Status.U_PARAMETER, "image is empty")
        if len(self._guests) >= MAX_GUESTS:
            raise FirmwareError(Status.U_BUSY, f"{MAX_GUESTS} guests run already")
        handle, self._next = self._next, self._next + 1
        self._guests[handle] = PefGuest(loaded=loaded, blob=blob)
        return {"guest": handle, "measurement": loaded.digests().measurement}

    def _measure(self, arguments: Arguments) -> Mapping[str, Value]:
        guest = self._found(_handle(arguments))
        return {"measurement": guest.loaded.digests().measurement}

    def _finish(self, arguments: Arguments) -> Mapping[str, Value]:
        guest = self._found(_handle(arguments))
        if guest.secrets is None:
            firmware = self._ultravisor()
            if "pef-other-machine" in self._faults:
                firmware = Ultravisor(rsa.generate_private_key(65537, KEY_BITS))
            guest.secrets = SecretTree(firmware.esm(guest.loaded, guest.blob))
        return {}

    def _stop(self, arguments: Arguments) -> Mapping[str, Value]:
        handle = _handle(arguments)
        self._found(handle)
        del self._guests[handle]
        return {}

    def _found(self, handle: int) -> PefGuest:
        if handle not in self._guests:
            raise FirmwareError(Status.U_PARAMETER, f"there is no guest {handle}")
        return self._guests[handle]


def _handle(arguments: Arguments) -> int:
    handle = arguments.number("guest")
    arguments.end()
    return handle


def make(setup: Setup) -> PefMachine:
    """Make a machine, or the one that was saved."""
    if setup.product not in (None, "power9"):
        raise Malformed(f"product is {setup.product!r}, expected 'power9'")
    return PefMachine(setup)
