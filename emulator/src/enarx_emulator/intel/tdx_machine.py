"""A machine with TDX, as the host's commands drive it.

A process keep's image is loaded from guest physical address 0x100000, all pages measured in their order as they are
added. There is no firmware in such a TD: RTMRs are zero, except what ``events`` of the launch put there, which stands
for firmware that measures (EV_* types of the TCG) and fills the event log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from enarx.attest._eventlog import Algorithm
from enarx.attest.dcap import BodyType
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value
from enarx_emulator.arguments import Arguments
from enarx_emulator.errors import FirmwareError
from enarx_emulator.eventlog import Entry, cc_log
from enarx_emulator.intel import tdx
from enarx_emulator.intel.platform import IntelPlatform
from enarx_emulator.intel.status import TdxError, TdxStatus
from enarx_emulator.intel.tdx import TdxModule
from enarx_emulator.machine import Setup
from enarx_emulator.tree import Faces, Tree
from enarx_emulator.tsm import MeasurementTree, Provider, Register, Report, ReportTree

KIND: Final = "tdx"
FIRMWARE: Final = "EMULATED TDX module"
IMAGE_GPA: Final = 0x100000
MAX_EVENTS: Final = 256
_FIRST_PAGE: Final = 1 << 40
"""Where the machine takes control pages from; the host's own commands may use lower ones."""
_FLAGS: Final = {"debug": tdx.DEBUG, "migratable": tdx.MIGRATABLE}


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxGuest:
    """One TD that runs."""

    faces: Tree
    event_log: bytes = field(repr=False)

    def tree(self) -> Tree:
        """Linux's files: ``report`` and ``measurements``."""
        return self.faces


class TdxMachine:
    """One machine and its TDs."""

    def __init__(self, setup: Setup) -> None:
        self._platform = IntelPlatform(setup)
        self._faults = setup.faults
        self._module = _module(self._platform)
        self._guests: dict[int, TdxGuest] = {}
        self._next_page = _FIRST_PAGE
        self._commands: Mapping[str, Callable[[Arguments], Mapping[str, Value]]] = {
            "info": self._info,
            "certificates": self._certificates,
            "launch": self._launch,
            "stop": self._stop,
            "update": self._update,
            "restart": self._restart,
            "quote": self._quote,
            **{name: partial(self._function, name) for name in _FUNCTIONS},
        }

    @property
    def kind(self) -> str:
        """``tdx``."""
        return KIND

    def command(self, name: str, arguments: Mapping[str, object]) -> Mapping[str, Value]:
        """Run a command. Raises ``FirmwareError``, ``Malformed``."""
        if name not in self._commands:
            raise TdxError(TdxStatus.TDX_OPERAND_INVALID, f"{name} is no command of this machine")
        return self._commands[name](Arguments(name, arguments))

    def guest(self, handle: int) -> TdxGuest:
        """Give a TD that was finalised. Raises ``FirmwareError``."""
        if handle not in self._guests:
            self._module.tdg_mr_report(handle, bytes(64))
            self._guests[handle] = self._guest(handle, 4, b"")
        return self._guests[handle]

    def save(self) -> Mapping[str, Value]:
        """The processor."""
        return self._platform.processor.save()

    def _info(self, arguments: Arguments) -> Mapping[str, Value]:
        arguments.end()
        return {
            **self._platform.info(KIND, FIRMWARE),
            "mrseam": tdx.module_mrseam(self._module.tee_tcb_svn),
        }

    def _certificates(self, arguments: Arguments) -> Mapping[str, Value]:
        arguments.end()
        return self._platform.collateral(KIND)

    def _launch(self, arguments: Arguments) -> Mapping[str, Value]:
        sections = _sections(arguments)
        attributes = tdx.SEPT_VE_DISABLE if arguments.flag("sept_ve_disable", default=True) else 0
        for name, bit in _FLAGS.items():
            attributes |= bit if arguments.flag(name, default=False) or f"tdx-{name}" in self._faults else 0
        if "tdx-sept-ve-enabled" in self._faults:
            attributes &= ~tdx.SEPT_VE_DISABLE
        vcpus = arguments.number("vcpus", 1, below=1 << 16)
        params = tdx.td_params(
            attributes=attributes,
            xfam=arguments.number("xfam", tdx.XFAM),
            max_vcpus=vcpus,
            mr_config_id=_exactly(arguments, "mr_config_id"),
            mr_owner=_exactly(arguments, "mr_owner"),
            mr_owner_config=_exactly(arguments, "mr_owner_config"),
        )
        version = arguments.number("quote_version", 4, below=6)
        events, extensions = _events(arguments), _extensions(arguments)
        arguments.end()
        if not any(section.data for section in sections) or version not in (4, 5):
            raise TdxError(TdxStatus.TDX_OPERAND_INVALID, "image is empty, or quotes have no such version")
        if "tdx-image-changed" in self._faults:
            first = sections[0]
            sections[0] = replace(first, data=bytes([first.data[0] ^ 1]) + first.data[1:])
        tdr = self._begin(params)
        try:
            self._load(tdr, sections, vcpus)
        except FirmwareError:
            self._module.tdh_mng_key_freeid(tdr)
            raise
        for event in events:
            self._module.tdg_mr_rtmr_extend(tdr, event.index - 1, event.digest(Algorithm.SHA384))
        for register, digest in extensions:
            self._module.tdg_mr_rtmr_extend(tdr, register, digest)
        log = cc_log(events, area=_log_area(events)) if events else b""
        if "tdx-event-log-changed" in self._faults:
            log = cc_log(events[:-1], area=_log_area(events))
        self._guests[tdr] = self._guest(tdr, version, log)
        measured = self._module.measurement(tdr)
        return {"guest": tdr, "measurement": measured, "event_log": log}

    def _begin(self, params: bytes) -> int:
        """TDH.MNG.CREATE to TDH.MNG.INIT."""
        module, tdr = self._module, self._page()
        module.tdh_mng_create(tdr, module.free_hkid())
        try:
            module.tdh_mng_key_config(tdr)
            for _ in range(tdx.TDCS_PAGES):
                module.tdh_mng_addcx(tdr)
            module.tdh_mng_init(tdr, params)
        except FirmwareError:
            module.tdh_mng_key_freeid(tdr)
            raise
        return tdr

    def _load(self, tdr: int, sections: Sequence[_Section], vcpus: int) -> None:
        """TDH.VP.CREATE to TDH.MR.FINALIZE."""
        module, page = self._module, tdx.PAGE_BYTES
        for _ in range(vcpus):
            tdvpr = self._page()
            module.tdh_vp_create(tdr, tdvpr)
            for _ in range(tdx.TDVPS_PAGES):
                module.tdh_vp_addcx(tdr, tdvpr)
            module.tdh_vp_init(tdr, tdvpr)
        if "tdx-service-td" in self._faults:
            service = self._begin(tdx.td_params())
            self._faultless(service)
            module.tdh_servtd_bind(tdr, service, kind=0)
        for section in sections:
            for at in range(0, len(section.data), page):
                gpa = section.gpa + at
                module.tdh_mem_page_add(tdr, gpa, section.data[at : at + page].ljust(page, b"\0"))
                for chunk in range(gpa, gpa + page, tdx.CHUNK_BYTES) if section.extend else ():
                    module.tdh_mr_extend(tdr, chunk)
        module.tdh_mr_finalize(tdr)

    def _faultless(self, tdr: int) -> None:
        """Finish a TD with nothing in it."""
        tdvpr = self._page()
        self._module.tdh_vp_create(tdr, tdvpr)
        for _ in range(tdx.TDVPS_PAGES):
            self._module.tdh_vp_addcx(tdr, tdvpr)
        self._module.tdh_vp_init(tdr, tdvpr)
        self._module.tdh_mr_finalize(tdr)

    def _guest(self, tdr: int, version: int, log: bytes) -> TdxGuest:
        body_type = BodyType.TD_1_5 if version == 5 else BodyType.TD_1_0
        module = self._module

        def report(data: bytes, privlevel: int) -> Report:
            del privlevel  # the provider has none
            made = module.tdg_mr_report(tdr, data)
            return Report(outblob=self._platform.td_qe.quote(made, version=version, body_type=body_type))

        registers = {
            "mrtd:sha384": Register(read=partial(module.measurement, tdr), extend=None),
            **{
                f"rtmr{at}:sha384": Register(
                    read=partial(module.rtmr, tdr, at),
                    extend=partial(module.tdg_mr_rtmr_extend, tdr, at),
                )
                for at in range(tdx.RTMRS)
            },
        }
        provider = Provider(name="tdx_guest", new_report=report)
        faces = Faces(
            {
                "report": ReportTree(provider, faults=self._faults),
                "measurements": MeasurementTree(registers),
            }
        )
        return TdxGuest(faces=faces, event_log=log)

    def _stop(self, arguments: Arguments) -> Mapping[str, Value]:
        handle = arguments.number("guest")
        arguments.end()
        self._module.tdh_mng_key_freeid(handle)
        self._guests.pop(handle, None)
        return {}

    def _update(self, arguments: Arguments) -> Mapping[str, Value]:
        """Load another version of the module while TDs run."""
        svn = arguments.data("tee_tcb_svn")
        arguments.end()
        if len(svn) != len(self._module.tee_tcb_svn):
            raise Malformed(
                f"update: tee_tcb_svn has {len(svn)} bytes, expected {len(self._module.tee_tcb_svn)}"
            )
        self._module.update(svn)
        return {"mrseam": tdx.module_mrseam(svn)}

    def _restart(self, arguments: Arguments) -> Mapping[str, Value]:
        self._platform.restart_by(arguments)
        self._module = _module(self._platform)
        self._guests.clear()
        return {}

    def _quote(self, arguments: Arguments) -> Mapping[str, Value]:
        """A quote of a report that a TD handed out."""
        report, version = arguments.data("report"), arguments.number("version", 4)
        arguments.end()
        if version not in (4, 5):
            raise TdxError(TdxStatus.TDX_OPERAND_INVALID, f"there are no quotes of version {version}")
        body_type = BodyType.TD_1_5 if version == 5 else BodyType.TD_1_0
        return {"quote": self._platform.td_qe.quote(report, version=version, body_type=body_type)}

    def _function(self, name: str, arguments: Arguments) -> Mapping[str, Value]:
        """One function of the module with its operands by name."""
        operands: dict[str, int | bytes] = {}
        for operand, kind in _FUNCTIONS[name].items():
            operands[operand] = arguments.data(operand) if kind is bytes else arguments.number(operand)
        arguments.end()
        getattr(self._module, name)(**operands)
        if name == "tdh_mng_key_freeid":
            self._guests.pop(int(operands["tdr"]), None)
        return {}

    def _page(self) -> int:
        page, self._next_page = self._next_page, self._next_page + tdx.PAGE_BYTES
        return page


_FUNCTIONS: Final[Mapping[str, Mapping[str, type]]] = {
    "tdh_mng_create": {"tdr": int, "hkid": int},
    "tdh_mng_key_config": {"tdr": int},
    "tdh_mng_addcx": {"tdr": int},
    "tdh_mng_init": {"tdr": int, "params": bytes},
    "tdh_vp_create": {"tdr": int, "tdvpr": int},
    "tdh_vp_addcx": {"tdr": int, "tdvpr": int},
    "tdh_vp_init": {"tdr": int, "tdvpr": int},
    "tdh_mem_page_add": {"tdr": int, "gpa": int, "contents": bytes},
    "tdh_mr_extend": {"tdr": int, "gpa": int},
    "tdh_mr_finalize": {"tdr": int},
    "tdh_servtd_bind": {"tdr": int, "service": int, "kind": int, "attributes": int},
    "tdh_mng_key_freeid": {"tdr": int},
}
"""What the host may call; the functions of guests (TDG) are not among them."""


def _module(platform: IntelPlatform) -> TdxModule:
    faults, processor = platform.faults, platform.processor
    svn = processor.tee_tcb_svn or bytes(16)
    if "tdx-module-unknown" in faults:
        svn = bytes([svn[0], 0x7F]) + svn[2:]
    if "tdx-module-old" in faults:
        svn = bytes([svn[0] - 1]) + svn[1:]
    return TdxModule(
        processor,
        tee_tcb_svn=svn,
        seam_attributes=b"\x01" + bytes(7) if "tdx-seam-attributes" in faults else bytes(8),
        mrsigner_seam=b"\x5e" * 48 if "tdx-module-signer" in faults else bytes(48),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """Memory that is set up before the TD starts, measured with its contents or by its addresses alone."""

    gpa: int
    data: bytes
    extend: bool


def _sections(arguments: Arguments) -> list[_Section]:
    """The argument ``image`` of a process keep, or ``sections`` of a VM keep: lists of address, data and truth."""
    if "sections" not in arguments:
        return [_Section(gpa=IMAGE_GPA, data=arguments.data("image"), extend=True)]
    found = []
    for one in arguments.items("sections"):
        match one:
            case [int() as gpa, bytes() as data, bool() as extend] if gpa % tdx.PAGE_BYTES == 0:
                found.append(_Section(gpa=gpa, data=data, extend=extend))
            case _:
                raise Malformed("launch: a section is no list of an address of a page, data and truth")
    return found


def _extensions(arguments: Arguments) -> list[tuple[int, bytes]]:
    """The argument ``extensions``: lists of RTMR and digest, for what the firmware in the TD measures as it boots."""
    given = arguments.items("extensions")
    found = []
    for one in given:
        match one:
            case [int() as register, bytes() as digest] if 0 <= register < tdx.RTMRS and len(digest) == 48:
                found.append((register, digest))
            case _:
                raise Malformed("launch: an extension is no list of a register and a digest")
    if len(found) > MAX_EVENTS:
        raise Malformed(f"launch: extensions has {len(found)} items, at most {MAX_EVENTS} are allowed")
    return found


def _exactly(arguments: Arguments, name: str) -> bytes:
    value = arguments.data(name, bytes(48))
    if len(value) != 48:
        raise Malformed(f"launch: {name} has {len(value)} bytes, expected 48")
    return value


def _events(arguments: Arguments) -> list[Entry]:
    """The argument ``events``: a list of [RTMR, event type, data]."""
    given = arguments.items("events")
    if len(given) > MAX_EVENTS:
        raise Malformed(f"launch: events has {len(given)} items, at most {MAX_EVENTS} are allowed")
    found = []
    for one in given:
        match one:
            case [int() as register, int() as kind, bytes() as data] if (
                0 <= register < tdx.RTMRS and 0 <= kind < 1 << 32
            ):
                found.append(Entry(index=register + 1, kind=kind, data=data))
            case _:
                raise Malformed("launch: an event is no list of a register, a type and data")
    return found


def _log_area(events: Sequence[Entry]) -> int:
    """As OVMF: 64 KiB, or more when they do not suffice."""
    return max(1 << 16, sum(len(event.data) + 128 for event in events))
