"""A machine with SEV-SNP: the host's commands by name, and its guests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from enarx.attest.snp._launch import PageType
from enarx.attest.snp._report import SigningKey
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value
from enarx_emulator.amd.chip import Chip
from enarx_emulator.amd.commands import Action, Prepare, done, run, snp_commands, snp_finish
from enarx_emulator.amd.guest import GuestDriver, certificate_table
from enarx_emulator.amd.memory import PAGE_BYTES
from enarx_emulator.amd.snp import LARGE_PAGE_BYTES, SnpFirmware
from enarx_emulator.amd.status import SevStatus, require
from enarx_emulator.amd.vendor import CSP_ID, WRAPPED_VLEK_BYTES, AmdVendor
from enarx_emulator.arguments import Arguments
from enarx_emulator.tree import Tree
from enarx_emulator.tsm import Provider, Report, ReportTree

IMAGE_GPA: Final = 0x100000
"""Where a process keep's image is loaded."""
MAX_IMAGE_BYTES: Final = 64 * 1024 * 1024
DEFAULT_POLICY: Final = 0x30000
"""SMT is allowed, and nothing else: no debugging, no migration."""


class SnpMachine:
    """Implements ``enarx_emulator.machine.Machine``."""

    kind = "snp"

    def __init__(
        self, chip: Chip, vendor: AmdVendor, *, random: Callable[[int], bytes], faults: frozenset[str]
    ) -> None:
        self.firmware = SnpFirmware(chip, random=random, faults=faults)
        self.firmware.init()
        self._chip, self._vendor, self._random, self._faults = chip, vendor, random, faults
        self._guests: dict[int, SnpMachineGuest] = {}
        own: dict[str, Prepare] = {
            "info": lambda _: self._info,
            "certificates": lambda _: self._certificates,
            "launch": self._launch,
            "stop": self._stop,
            "vlek_load": self._vlek_load,
        }
        self._commands = {**snp_commands(self.firmware), **own}

    def command(self, name: str, arguments: Mapping[str, object]) -> Mapping[str, Value]:
        """Run a command. Raises ``FirmwareError``, ``Malformed``."""
        return run(self._commands, name, arguments)

    def guest(self, handle: int) -> SnpMachineGuest:
        """Give a launched guest."""
        running = self.firmware.running(handle)
        if handle not in self._guests:
            driver = GuestDriver(firmware=self.firmware, handle=handle, key=running.vmpcks[0])
            self._guests[handle] = SnpMachineGuest(driver, self.certificate_table, self._faults)
        return self._guests[handle]

    def save(self) -> Mapping[str, Value]:
        """Give the chip's state."""
        return {"chip": self._chip.save()}

    def endorsement(self) -> tuple[SigningKey, bytes, bytes, bytes]:
        """The kind of key that signs reports, its certificate, the intermediate's and the root's, in DER."""
        kind = SigningKey.VCEK if self.firmware.vlek is None else SigningKey.VLEK
        if "snp-vlek-for-vcek" in self._faults:
            kind = SigningKey.VLEK
        chip = self._chip
        if "snp-missing-vcek" in self._faults:
            vek = b""
        elif kind is SigningKey.VLEK:
            vek = self._vendor.vlek(chip.product, chip.reported)
        else:
            vek = self._vendor.vcek(chip.fuses, chip.reported)
        intermediate, root = self._vendor.chain(chip.product.line, kind)
        return kind, vek, intermediate, root

    def certificate_table(self) -> bytes:
        """What the host gives with an extended report."""
        kind, vek, intermediate, root = self.endorsement()
        return certificate_table(vek, intermediate, root, kind=kind.name)

    def _info(self) -> Mapping[str, Value]:
        fuses, status = self._chip.fuses, self.firmware.platform_status()
        shown = ("api_major", "api_minor", "build_id", "current_tcb", "reported_tcb", "committed_tcb")
        return {
            "kind": self.kind,
            "product": fuses.product.line.value,
            "emulated": True,
            "platform_id": fuses.chip_id,
            "hwid": fuses.hwid,
            "chip_id": fuses.chip_id,
            "roots": [self._vendor.root_pem(fuses.product.line)],
            "tcb": dict(self._chip.reported.components()),
            "firmware": "EMULATED {api_major}.{api_minor}.{build_id}".format_map(status),
            **{name: status[name] for name in shown},
        }

    def _certificates(self) -> Mapping[str, Value]:
        kind, vek, intermediate, root = self.endorsement()
        lists: list[Value] = []
        if "snp-missing-crl" not in self._faults:
            lists.append(self._vendor.crl(self._chip.product.line))
        given: list[Value] = [one for one in (vek, intermediate, root) if one]
        return {"kind": kind.value, "certificates": given, "crls": lists}

    def _launch(self, given: Arguments) -> Action:
        """All of a process keep: normal pages from ``IMAGE_GPA``, zero-padded, no save area.

        Or ``pages`` of a VM keep, each a type, an address and contents.
        """
        if "pages" in given:
            pages = [_range(item) for item in given.items("pages")]
        else:
            image = given.data("image", max_bytes=MAX_IMAGE_BYTES)
            require(len(image) > 0, SevStatus.INVALID_LENGTH, "the image is empty")
            pages = [(int(PageType.NORMAL), IMAGE_GPA, image + bytes(-len(image) % PAGE_BYTES))]
        policy = given.number("policy", DEFAULT_POLICY)
        handle = self.firmware.gctx_create()
        try:
            finish = snp_finish(self.firmware, handle, given)
            given.end()
            self._load(handle, policy, pages)
            launched = finish()
        except BaseException:
            self.firmware.decommission(handle)
            raise
        return lambda: launched

    def _load(self, handle: int, policy: int, ranges: Sequence[tuple[int, int, bytes]]) -> None:
        firmware = self.firmware
        firmware.launch_start(handle, policy)
        firmware.activate(handle, firmware.free_asid())
        for kind, gpa, data in ranges:
            at = 0
            while at < len(data):
                large = (gpa + at) % LARGE_PAGE_BYTES == 0 and len(data) - at >= LARGE_PAGE_BYTES
                page = data[at : at + (LARGE_PAGE_BYTES if large and kind == PageType.NORMAL else PAGE_BYTES)]
                firmware.launch_update(handle, kind, gpa + at, page)
                at += len(page)

    def _stop(self, given: Arguments) -> Action:
        handle = given.number("guest")

        def stop() -> None:
            self.firmware.decommission(handle)
            self._guests.pop(handle, None)

        return done(stop)

    def _vlek_load(self, given: Arguments) -> Action:
        """Without ``wrapped`` the vendor is asked for it, as a provider would do."""
        if "wrapped" in given:
            wrapped = given.data("wrapped", max_bytes=WRAPPED_VLEK_BYTES)
        else:
            wrapped = self._vendor.wrapped_vlek(
                self._chip.fuses,
                self._chip.reported,
                iv=self._random(12),
                csp_id=given.text("csp_id", CSP_ID, max_chars=64),
            )
        return done(lambda: self.firmware.vlek_load(wrapped))


def _range(item: object) -> tuple[int, int, bytes]:
    """Read one range of ``pages``: what it is, where it is, and what is in it."""
    match item:
        case [int(kind), int(gpa), bytes(data)] if len(data) % PAGE_BYTES == 0:
            return kind, gpa, data
    raise Malformed("launch: pages are lists of a type, an address and whole pages")


class SnpMachineGuest:
    """What runs in a launched guest of SNP sees Linux's configfs-tsm.

    A process keep has no secrets page, since only the pages of its image are measured: its driver is given the key
    that would stand there.
    """

    def __init__(
        self, driver: GuestDriver, certificates: Callable[[], bytes], faults: frozenset[str]
    ) -> None:
        self.driver, self._certificates = driver, certificates
        provider = Provider(name="sev_guest", new_report=self._report, privlevel_floor=0, auxblob=True)
        self._tree = ReportTree(provider, faults=faults)

    def tree(self) -> Tree:
        """The files."""
        return self._tree

    def _report(self, report_data: bytes, level: int) -> Report:
        return Report(outblob=self.driver.report(report_data, vmpl=level), auxblob=self._certificates())
