"""A machine with SGX, as the host's commands drive it.

A process keep's image is loaded from offset 0 as regular pages that may be read and run, all measured, into an enclave
of the smallest size that holds it. Its signer is one of the emulator's, unless a SIGSTRUCT comes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from enarx.attest.measure import (
    Permission,
    Sigstruct,
    build_sigstruct,
    enclave_size,
    flat_pages,
    mrenclave,
)
from enarx.tcb.wire import Value
from enarx_emulator.arguments import Arguments
from enarx_emulator.errors import EmulatorError, FirmwareError
from enarx_emulator.gramine import AttestationTree, Enclave
from enarx_emulator.intel.platform import IntelPlatform
from enarx_emulator.intel.quoting import SIGNED_ON, add_pages
from enarx_emulator.intel.sgx import PAGE_BYTES, Flag, KeyName, KeyPolicy, SgxCpu, attributes, key_request
from enarx_emulator.intel.status import SgxError, SgxStatus
from enarx_emulator.intel.vendor import stored_rsa_key
from enarx_emulator.machine import Setup
from enarx_emulator.tree import Faces, Tree

KIND: Final = "sgx"
FIRMWARE: Final = "EMULATED microcode 1"
QUOTE_VERSION: Final = 3
_DEVELOPER: Final = "sgx-developer-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxGuest:
    """One enclave that runs."""

    faces: Tree

    def tree(self) -> Tree:
        """The files that Gramine shows."""
        return self.faces


class SgxMachine:
    """One machine and its enclaves."""

    def __init__(self, setup: Setup) -> None:
        self._platform = IntelPlatform(setup)
        self._store = setup.vendor
        self._faults = setup.faults
        self._guests: dict[int, SgxGuest] = {}
        self._commands: Mapping[str, Callable[[Arguments], Mapping[str, Value]]] = {
            "info": self._info,
            "certificates": self._certificates,
            "launch": self._launch,
            "stop": self._stop,
            "restart": self._restart,
            "ecreate": self._ecreate,
            "eadd": self._eadd,
            "eextend": self._eextend,
            "einit": self._einit,
            "eremove": self._stop,
            "target_info": self._target_info,
            "quote": self._quote,
        }

    @property
    def kind(self) -> str:
        """``sgx``."""
        return KIND

    @property
    def _cpu(self) -> SgxCpu:
        return self._platform.cpu

    def command(self, name: str, arguments: Mapping[str, object]) -> Mapping[str, Value]:
        """Run a command. Raises ``FirmwareError``, ``Malformed``."""
        if name not in self._commands:
            raise SgxError(SgxStatus.UNDEFINED_OPCODE, f"{name} is no command of this machine")
        return self._commands[name](Arguments(name, arguments))

    def guest(self, handle: int) -> SgxGuest:
        """Give an initialised enclave. Raises ``FirmwareError``."""
        if handle not in self._guests:
            info = self._cpu.target_info(handle)
            self._guests[handle] = SgxGuest(faces=self._faces(handle, info, QUOTE_VERSION))
        return self._guests[handle]

    def save(self) -> Mapping[str, Value]:
        """The processor."""
        return self._platform.processor.save()

    def _info(self, arguments: Arguments) -> Mapping[str, Value]:
        arguments.end()
        return self._platform.info(KIND, FIRMWARE)

    def _certificates(self, arguments: Arguments) -> Mapping[str, Value]:
        arguments.end()
        return self._platform.collateral(KIND)

    def _launch(self, arguments: Arguments) -> Mapping[str, Value]:
        image = arguments.data("image")
        signed = arguments.data("sigstruct", b"")
        flags = Flag.MODE64
        for name, flag in (("debug", Flag.DEBUG), ("provision_key", Flag.PROVISION_KEY), ("kss", Flag.KSS)):
            if arguments.flag(name, default=False) or f"sgx-{name.replace('_', '-')}" in self._faults:
                flags |= flag
        config_id, config_svn = arguments.data("config_id", bytes(64)), arguments.number("config_svn", 0)
        prod_id, svn = (
            arguments.number("isv_prod_id", 0, below=1 << 16),
            arguments.number("isv_svn", 0, below=1 << 16),
        )
        version = arguments.number("quote_version", QUOTE_VERSION, below=6)
        arguments.end()
        if not image or version < QUOTE_VERSION:
            raise SgxError(SgxStatus.GENERAL_PROTECTION, "image is empty, or quotes have no such version")
        if "sgx-image-changed" in self._faults:
            image = bytes([image[0] ^ 1]) + image[1:]
        padded = image.ljust(-(-len(image) // PAGE_BYTES) * PAGE_BYTES, b"\0")
        pages = list(flat_pages(padded, tcs=(), permissions=Permission.R | Permission.X))
        size = enclave_size(len(padded))
        if not signed:
            content = Sigstruct(
                date=SIGNED_ON,
                attributes=attributes(flags),
                attributes_mask=b"\xff" * 16,
                enclave_hash=mrenclave(size=size, pages=pages),
                isv_prod_id=prod_id,
                isv_svn=svn,
            )
            signed = build_sigstruct(content, stored_rsa_key(self._store, _DEVELOPER))
        handle = self._cpu.ecreate(
            size=size, attributes=attributes(flags), config_id=config_id, config_svn=config_svn
        )
        try:
            add_pages(self._cpu, handle, pages)
            measured = self._cpu.einit(handle, signed)
        except FirmwareError:
            self._cpu.eremove(handle)
            raise
        faces = self._faces(handle, self._cpu.target_info(handle), version)
        self._guests[handle] = SgxGuest(faces=faces)
        return {"guest": handle, "measurement": measured}

    def _faces(self, handle: int, info: bytes, version: int) -> Tree:
        cpu, processor = self._cpu, self._platform.processor
        first: list[bytes] = []

        def report(target: bytes, data: bytes) -> bytes:
            return cpu.ereport(handle, target_info=target, report_data=data)

        def quote(data: bytes) -> bytes:
            made = self._platform.qe.quote(report(self._platform.qe.target_info, data), version=version)
            first.append(made)
            return first[0] if "sgx-report-replayed" in self._faults else made

        ask = partial(key_request, KeyName.SEAL, processor)
        keys = {
            "_sgx_mrenclave": cpu.egetkey(handle, ask(key_policy=KeyPolicy.MRENCLAVE)),
            "_sgx_mrsigner": cpu.egetkey(handle, ask(key_policy=KeyPolicy.MRSIGNER)),
        }
        enclave = Enclave(my_target_info=info, report=report, quote=quote, keys=keys)
        return Faces({"attestation": AttestationTree(enclave)})

    def _stop(self, arguments: Arguments) -> Mapping[str, Value]:
        handle = arguments.number("guest")
        arguments.end()
        self._cpu.eremove(handle)
        self._guests.pop(handle, None)
        return {}

    def _restart(self, arguments: Arguments) -> Mapping[str, Value]:
        self._platform.restart_by(arguments)
        self._guests.clear()
        return {}

    def _ecreate(self, arguments: Arguments) -> Mapping[str, Value]:
        wanted = {
            "size": arguments.number("size"),
            "ssa_frame_pages": arguments.number("ssa_frame_pages", 1),
            "misc_select": arguments.number("misc_select", 0),
            "config_svn": arguments.number("config_svn", 0),
        }
        asked, config_id = arguments.data("attributes", attributes()), arguments.data("config_id", bytes(64))
        arguments.end()
        return {"guest": self._cpu.ecreate(attributes=asked, config_id=config_id, **wanted)}

    def _eadd(self, arguments: Arguments) -> Mapping[str, Value]:
        handle, contents = arguments.number("guest"), arguments.data("contents")
        wanted = {name: arguments.number(name) for name in ("offset", "page_type", "permissions")}
        arguments.end()
        self._cpu.eadd(handle, contents=contents, **wanted)
        return {}

    def _eextend(self, arguments: Arguments) -> Mapping[str, Value]:
        handle, offset = arguments.number("guest"), arguments.number("offset")
        arguments.end()
        self._cpu.eextend(handle, offset=offset)
        return {}

    def _einit(self, arguments: Arguments) -> Mapping[str, Value]:
        handle, sigstruct = arguments.number("guest"), arguments.data("sigstruct")
        arguments.end()
        return {"measurement": self._cpu.einit(handle, sigstruct)}

    def _target_info(self, arguments: Arguments) -> Mapping[str, Value]:
        """The quoting enclave's, as the host's service gives it to enclaves."""
        arguments.end()
        return {"target_info": self._platform.qe.target_info}

    def _quote(self, arguments: Arguments) -> Mapping[str, Value]:
        """A quote of a report that an enclave handed out."""
        report = arguments.data("report")
        version = arguments.number("version", QUOTE_VERSION)
        arguments.end()
        try:
            return {"quote": self._platform.qe.quote(report, version=version)}
        except FirmwareError:
            raise
        except EmulatorError as error:
            raise SgxError(SgxStatus.GENERAL_PROTECTION, str(error)) from None
