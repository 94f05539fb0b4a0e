"""EMULATED TDX module: the functions that build, start, measure and report trust domains (TDs).

Functions check in the module's order and answer by its codes, with the operand they speak of. Left out, because nothing
that TDs prove depends on it: secure EPT pages, TLB tracking, migration, running code. Memory is measured and forgotten.
Source: Intel TDX Module 1.5 ABI and Base Specification.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from enarx.attest._eventlog import Algorithm, extend
from enarx.attest.tdx._body import XFAM_FIXED
from enarx.tcb.errors import Malformed
from enarx_emulator.errors import EmulatorError
from enarx_emulator.intel._structures import (
    REPORT_MAC,
    TD_INFO,
    TD_PARAMS,
    TD_REPORT_BYTES,
    TEE_TCB_INFO,
    fill,
    number,
)
from enarx_emulator.intel.processor import Processor
from enarx_emulator.intel.status import TdxError, TdxOperand, TdxStatus

PAGE_BYTES: Final = 4096
CHUNK_BYTES: Final = 256
"""What one TDH.MR.EXTEND measures."""
HKIDS: Final = range(1, 128)
"""Private key identifiers: one a TD."""
TDCS_PAGES: Final = 4
TDVPS_PAGES: Final = 5
"""Control pages that TDH.MNG.ADDCX and TDH.VP.ADDCX must have added."""
MAX_VCPUS: Final = 64
GPA_BITS: Final = 51
"""Private memory in a guest with 52 address bits; the highest one says that a page is shared."""
PHYSICAL_BITS: Final = 52
RTMRS: Final = 4

ATTRIBUTES_ALLOWED: Final = 0x80000000_70000001
"""PERFMON, PKS, MIGRATABLE, SEPT_VE_DISABLE, DEBUG."""
DEBUG: Final = 1 << 0
SEPT_VE_DISABLE: Final = 1 << 28
MIGRATABLE: Final = 1 << 29
XFAM_ALLOWED: Final = 0x0006DBE7
XFAM: Final = 0x000000E7
"""x87, SSE, AVX and AVX-512: what TDs are given unless asked otherwise."""

_CONTROLS: Final = (
    ("eptp_controls", TdxOperand.EPTP_CONTROLS, (0x1E, 0x26)),
    ("config_flags", TdxOperand.EXEC_CONTROLS, range(8)),
    ("tsc_frequency", TdxOperand.TSC_FREQUENCY, range(4, 401)),
)
"""Page tables of 4 or 5 levels, write-back; address width and two more flags; 100 MHz to 10 GHz in units of 25."""
_TEE_TDX: Final = 0x81
_VALID: Final = 0x301FF


class State(Enum):
    """How far a TD has come."""

    CREATED = auto()
    KEYED = auto()
    ALLOCATED = auto()
    INITIALIZED = auto()
    FINALIZED = auto()


@dataclass(slots=True, kw_only=True)
class _Td:
    hkid: int
    state: State = State.CREATED
    tdcx: int = 0
    params: Mapping[str, bytes] = field(default_factory=dict)
    tee_tcb_svn: bytes = bytes(16)
    measurement: hashlib._Hash = field(default_factory=hashlib.sha384)
    pages: dict[int, bytes] = field(default_factory=dict)
    mrtd: bytes = bytes(48)
    rtmrs: list[bytes] = field(default_factory=lambda: [bytes(48)] * RTMRS)
    vcpus: dict[int, int] = field(default_factory=dict)
    """Control pages that each has; -1 when it is initialised."""
    service_tds: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    """TDINFO hash and attributes of the service TDs bound to it, by type."""


def td_params(
    *,
    attributes: int = SEPT_VE_DISABLE,
    xfam: int = XFAM,
    max_vcpus: int = 1,
    mr_config_id: bytes = bytes(48),
    mr_owner: bytes = bytes(48),
    mr_owner_config: bytes = bytes(48),
) -> bytes:
    """Give TD_PARAMS (1024 bytes)."""
    return fill(
        TD_PARAMS,
        {
            "attributes": attributes,
            "xfam": xfam,
            "max_vcpus": max_vcpus,
            "eptp_controls": 0x1E,
            "tsc_frequency": 80,
            "mr_config_id": mr_config_id,
            "mr_owner": mr_owner,
            "mr_owner_config": mr_owner_config,
        },
    )


def module_mrseam(tee_tcb_svn: bytes) -> bytes:
    """MRSEAM (48 bytes) of the emulated module of these versions."""
    return hashlib.sha384(b"EMULATED TDX module\0" + tee_tcb_svn[:2]).digest()


class TdxModule:
    """The module and the TDs of one platform, by handle (the TDR page's address). Raises ``TdxError`` throughout."""

    def __init__(
        self,
        processor: Processor,
        *,
        tee_tcb_svn: bytes | None = None,
        seam_attributes: bytes = bytes(8),
        mrsigner_seam: bytes = bytes(48),
    ) -> None:
        """``tee_tcb_svn``: of another module than the processor's own."""
        if processor.tee_tcb_svn is None:
            raise EmulatorError(f"model is {processor.model.name}, which has no TDX")
        self.processor = processor
        self.tee_tcb_svn = processor.tee_tcb_svn if tee_tcb_svn is None else tee_tcb_svn
        """The versions that new TDs start under; an update that preserves TDs changes it."""
        self._seam_attributes = seam_attributes
        self._mrsigner_seam = mrsigner_seam
        self._tds: dict[int, _Td] = {}

    def update(self, tee_tcb_svn: bytes) -> None:
        """Load another version of the module while TDs go on running (TDH.SYS.SHUTDOWN, TDH.SYS.UPDATE)."""
        if len(tee_tcb_svn) != len(self.tee_tcb_svn):
            raise EmulatorError(f"tee_tcb_svn has {len(tee_tcb_svn)} bytes, expected {len(self.tee_tcb_svn)}")
        self.tee_tcb_svn = self.processor.tee_tcb_svn = tee_tcb_svn

    def free_hkid(self) -> int:
        """A key identifier that no TD has."""
        used = {td.hkid for td in self._tds.values()}
        found = next((hkid for hkid in HKIDS if hkid not in used), None)
        if found is None:
            raise TdxError(
                TdxStatus.TDX_HKID_NOT_FREE,
                f"all {len(HKIDS)} key identifiers are in use",
                operand=TdxOperand.RDX,
            )
        return found

    def tdh_mng_create(self, tdr: int, hkid: int) -> None:
        """Begin a TD: its root page, and the identifier of the key that encrypts it."""
        _check_address(tdr)
        if tdr in self._tds:
            raise TdxError(
                TdxStatus.TDX_PAGE_METADATA_INCORRECT, f"page {tdr:#x} is in use", operand=TdxOperand.RCX
            )
        if hkid not in HKIDS:
            raise _operand(TdxOperand.RDX, f"hkid {hkid} is none of {HKIDS.start} to {HKIDS.stop - 1}")
        if any(td.hkid == hkid for td in self._tds.values()):
            raise TdxError(TdxStatus.TDX_HKID_NOT_FREE, f"hkid {hkid} is in use", operand=TdxOperand.RDX)
        self._tds[tdr] = _Td(hkid=hkid)

    def tdh_mng_key_config(self, tdr: int) -> None:
        """Make the TD's memory key on this package."""
        td = self._td(tdr)
        if td.state is not State.CREATED:
            raise TdxError(
                TdxStatus.TDX_KEY_CONFIGURED, "the key is configured already", operand=TdxOperand.TDR
            )
        td.state = State.KEYED

    def tdh_mng_addcx(self, tdr: int) -> None:
        """Add one page of control structures."""
        td = self._keyed(tdr)
        if td.tdcx >= TDCS_PAGES:
            raise TdxError(
                TdxStatus.TDX_TDCX_NUM_INCORRECT,
                f"the td has its {TDCS_PAGES} control pages",
                operand=TdxOperand.TDCX,
            )
        td.tdcx += 1
        if td.tdcx == TDCS_PAGES:
            td.state = State.ALLOCATED

    def tdh_mng_init(self, tdr: int, params: bytes) -> None:
        """Fix what the TD is: attributes, features, and the measurements that the host gives it."""
        td = self._keyed(tdr)
        if td.state is State.KEYED:
            raise TdxError(
                TdxStatus.TDX_TDCX_NUM_INCORRECT,
                f"the td has {td.tdcx} control pages",
                operand=TdxOperand.TDCS,
            )
        if td.state is not State.ALLOCATED:
            raise TdxError(TdxStatus.TDX_TD_INITIALIZED, "the td is initialised already")
        try:
            given = TD_PARAMS.split(params)
        except Malformed as error:
            raise _operand(TdxOperand.RDX, str(error)) from None
        attributes, xfam = number(given["attributes"]), number(given["xfam"])
        if attributes & ~ATTRIBUTES_ALLOWED or (attributes & MIGRATABLE and attributes & (DEBUG | 1 << 63)):
            raise _operand(TdxOperand.ATTRIBUTES, f"attributes are {attributes:#x}")
        if xfam & XFAM_FIXED != XFAM_FIXED or xfam & ~XFAM_ALLOWED or not _consistent(xfam):
            raise _operand(TdxOperand.XFAM, f"xfam is {xfam:#x}")
        if not 1 <= number(given["max_vcpus"]) <= MAX_VCPUS:
            raise _operand(TdxOperand.MAX_VCPUS, f"max_vcpus is {number(given['max_vcpus'])}")
        for name, operand, allowed in _CONTROLS:
            if number(given[name]) not in allowed:
                raise _operand(operand, f"{name} is {number(given[name]):#x}")
        td.params, td.state, td.tee_tcb_svn = given, State.INITIALIZED, self.tee_tcb_svn

    def tdh_vp_create(self, tdr: int, tdvpr: int) -> None:
        """Begin a virtual processor."""
        td = self._initialized(tdr)
        _check_address(tdvpr)
        if tdvpr in self._tds or any(tdvpr in one.vcpus for one in self._tds.values()):
            raise TdxError(
                TdxStatus.TDX_PAGE_METADATA_INCORRECT, f"page {tdvpr:#x} is in use", operand=TdxOperand.RCX
            )
        td.vcpus[tdvpr] = 0

    def tdh_vp_addcx(self, tdr: int, tdvpr: int) -> None:
        """Add one page of a virtual processor's control structures."""
        td = self._initialized(tdr)
        if not 0 <= self._vcpu(td, tdvpr) < TDVPS_PAGES:
            raise TdxError(
                TdxStatus.TDX_TDCX_NUM_INCORRECT,
                "the vcpu has its control pages",
                operand=TdxOperand.TDVPR,
            )
        td.vcpus[tdvpr] += 1

    def tdh_vp_init(self, tdr: int, tdvpr: int) -> None:
        """Make a virtual processor ready to run."""
        td = self._initialized(tdr)
        have = self._vcpu(td, tdvpr)
        if have < 0:
            raise TdxError(TdxStatus.TDX_VCPU_STATE_INCORRECT, "the vcpu is initialised already")
        if have != TDVPS_PAGES:
            raise TdxError(
                TdxStatus.TDX_TDCX_NUM_INCORRECT,
                f"the vcpu has {have} control pages",
                operand=TdxOperand.TDVPR,
            )
        ready = sum(pages < 0 for pages in td.vcpus.values())
        if ready >= number(td.params["max_vcpus"]):
            raise TdxError(TdxStatus.TDX_MAX_VCPUS_EXCEEDED, f"the td has its {ready} vcpus")
        td.vcpus[tdvpr] = -1

    def tdh_mem_page_add(self, tdr: int, gpa: int, contents: bytes) -> None:
        """Put a page into the TD before it runs; its address is measured, its contents are not."""
        td = self._measurable(tdr)
        if gpa % PAGE_BYTES or not 0 <= gpa < 1 << GPA_BITS:
            raise _operand(TdxOperand.RCX, f"gpa {gpa:#x} is no private page")
        if len(contents) != PAGE_BYTES:
            raise _operand(TdxOperand.R9, f"page has {len(contents)} bytes, expected {PAGE_BYTES}")
        if gpa in td.pages:
            raise TdxError(
                TdxStatus.TDX_EPT_ENTRY_STATE_INCORRECT, f"page {gpa:#x} is mapped", operand=TdxOperand.RCX
            )
        td.pages[gpa] = contents
        td.measurement.update(_buffer(b"MEM.PAGE.ADD", gpa))

    def tdh_mr_extend(self, tdr: int, gpa: int) -> None:
        """Measure 256 bytes of a page."""
        td = self._measurable(tdr)
        if gpa % CHUNK_BYTES or not 0 <= gpa < 1 << GPA_BITS:
            raise _operand(TdxOperand.RCX, f"gpa {gpa:#x} is no multiple of {CHUNK_BYTES}")
        page = td.pages.get(gpa - gpa % PAGE_BYTES)
        if page is None:
            raise TdxError(
                TdxStatus.TDX_EPT_WALK_FAILED, f"page {gpa:#x} is not mapped", operand=TdxOperand.RCX
            )
        at = gpa % PAGE_BYTES
        td.measurement.update(_buffer(b"MR.EXTEND", gpa) + page[at : at + CHUNK_BYTES])

    def tdh_mr_finalize(self, tdr: int) -> None:
        """End the measurement. From now on the TD may run."""
        td = self._measurable(tdr)
        if not any(pages < 0 for pages in td.vcpus.values()):
            raise TdxError(TdxStatus.TDX_NO_VCPUS, "no vcpu is initialised")
        td.mrtd, td.state = td.measurement.digest(), State.FINALIZED
        td.pages.clear()

    def tdh_servtd_bind(self, tdr: int, service: int, *, kind: int, attributes: int = 0) -> None:
        """Give a service TD (a migration TD has type 0) power over another; it will show in SERVTD_HASH."""
        td = self._initialized(tdr)
        if td.state is State.FINALIZED and kind not in td.service_tds:
            raise TdxError(
                TdxStatus.TDX_TD_FINALIZED, "a service td must be known before the td is finalised"
            )
        if not 0 <= kind < 1 << 16:
            raise _operand(TdxOperand.R8, f"there is no service td of type {kind}")
        bound = (hashlib.sha384(self._td_info(self._finalized(service))).digest(), attributes)
        before = td.service_tds.setdefault(kind, bound)
        if before[0] == bound[0] and before != bound:
            raise TdxError(
                TdxStatus.TDX_SERVTD_ATTR_MISMATCH,
                "the service td is bound with other attributes",
                operand=TdxOperand.SERVTD_BINDINGS,
            )
        if before != bound:
            raise TdxError(
                TdxStatus.TDX_SERVTD_ALREADY_BOUND_FOR_TYPE,
                f"another service td of type {kind} is bound",
                operand=TdxOperand.SERVTD_BINDINGS,
            )

    def tdh_mng_key_freeid(self, tdr: int) -> None:
        """Take a TD apart and free its key identifier and pages."""
        self._td(tdr)
        del self._tds[tdr]

    def measurement(self, tdr: int) -> bytes:
        """MRTD of a TD (48 bytes)."""
        return self._finalized(tdr).mrtd

    def rtmr(self, tdr: int, index: int) -> bytes:
        """One of the registers that the guest measures into (48 bytes)."""
        return self._finalized(tdr).rtmrs[index]

    def tdg_mr_rtmr_extend(self, tdr: int, index: int, digest: bytes) -> None:
        """Extend one of the registers that the guest measures into."""
        td = self._finalized(tdr)
        if index not in range(RTMRS):
            raise _operand(TdxOperand.RDX, f"there is no rtmr {index}")
        if len(digest) != Algorithm.SHA384.digest_bytes:
            raise _operand(TdxOperand.RCX, f"digest has {len(digest)} bytes, expected 48")
        td.rtmrs[index] = extend(Algorithm.SHA384, td.rtmrs[index], digest)

    def tdg_mr_report(self, tdr: int, report_data: bytes, *, sub_type: int = 0) -> bytes:
        """Report the TD to any enclave of this platform (1024 bytes: TDREPORT_STRUCT)."""
        td = self._finalized(tdr)
        if sub_type:
            raise _operand(TdxOperand.R8, f"there is no report of subtype {sub_type}")
        if len(report_data) != 64:
            raise _operand(TdxOperand.RDX, f"report data has {len(report_data)} bytes, expected 64")
        tcb_info = self._tcb_info(td)
        td_info = self._td_info(td)
        version = 1 if td.service_tds else 0
        mac = fill(
            REPORT_MAC,
            {
                "report_type": bytes([_TEE_TDX, 0, version, 0]),
                "cpu_svn": self.processor.cpu_svn,
                "tee_tcb_info_hash": hashlib.sha384(tcb_info).digest(),
                "tee_info_hash": hashlib.sha384(td_info).digest(),
                "report_data": report_data,
            },
        )
        mac = mac[:-32] + self.processor.seam_mac(mac[:-32])
        report = mac + tcb_info + bytes(17) + td_info
        if len(report) != TD_REPORT_BYTES:
            raise AssertionError("the parts of TDREPORT_STRUCT do not fit")
        return report

    def tdg_mr_verifyreport(self, tdr: int, report_mac: bytes) -> None:
        """Check that this platform made a REPORTMACSTRUCT (256 bytes)."""
        self._finalized(tdr)
        verify_report_mac(self.processor, report_mac)

    def _tcb_info(self, td: _Td) -> bytes:
        return fill(
            TEE_TCB_INFO,
            {
                "valid": _VALID,
                "tee_tcb_svn": td.tee_tcb_svn,
                "mrseam": module_mrseam(self.tee_tcb_svn),
                "mrsigner_seam": self._mrsigner_seam,
                "seam_attributes": self._seam_attributes,
                "tee_tcb_svn2": self.tee_tcb_svn,
            },
        )

    def _td_info(self, td: _Td) -> bytes:
        return fill(
            TD_INFO,
            {
                "td_attributes": td.params["attributes"],
                "xfam": td.params["xfam"],
                "mrtd": td.mrtd,
                "mr_config_id": td.params["mr_config_id"],
                "mr_owner": td.params["mr_owner"],
                "mr_owner_config": td.params["mr_owner_config"],
                **{f"rtmr{at}": value for at, value in enumerate(td.rtmrs)},
                "mr_service_td": _service_td_hash(td.service_tds),
            },
        )

    def _td(self, tdr: int) -> _Td:
        td = self._tds.get(tdr)
        if td is None:
            raise TdxError(
                TdxStatus.TDX_PAGE_METADATA_INCORRECT, f"page {tdr:#x} is no tdr", operand=TdxOperand.RCX
            )
        return td

    def _keyed(self, tdr: int) -> _Td:
        td = self._td(tdr)
        if td.state is State.CREATED:
            raise TdxError(TdxStatus.TDX_TD_KEYS_NOT_CONFIGURED, "the td has no key", operand=TdxOperand.TDR)
        return td

    def _initialized(self, tdr: int) -> _Td:
        td = self._keyed(tdr)
        if td.state is State.KEYED:
            raise TdxError(
                TdxStatus.TDX_TDCS_NOT_ALLOCATED,
                f"the td has {td.tdcx} control pages",
                operand=TdxOperand.TDR,
            )
        if td.state is State.ALLOCATED:
            raise TdxError(
                TdxStatus.TDX_TD_NOT_INITIALIZED, "the td is not initialised", operand=TdxOperand.TDR
            )
        return td

    def _measurable(self, tdr: int) -> _Td:
        td = self._initialized(tdr)
        if td.state is State.FINALIZED:
            raise TdxError(TdxStatus.TDX_TD_FINALIZED, "the td is finalised", operand=TdxOperand.TDR)
        return td

    def _finalized(self, tdr: int) -> _Td:
        td = self._initialized(tdr)
        if td.state is not State.FINALIZED:
            raise TdxError(TdxStatus.TDX_TD_NOT_FINALIZED, "the td is not finalised", operand=TdxOperand.TDR)
        return td

    def _vcpu(self, td: _Td, tdvpr: int) -> int:
        if tdvpr not in td.vcpus:
            raise TdxError(
                TdxStatus.TDX_PAGE_METADATA_INCORRECT,
                f"page {tdvpr:#x} is no tdvpr",
                operand=TdxOperand.TDVPR,
            )
        return td.vcpus[tdvpr]


def verify_report_mac(processor: Processor, report_mac: bytes) -> None:
    """Check REPORTMACSTRUCT as EVERIFYREPORT2 and TDG.MR.VERIFYREPORT do. Raises ``TdxError``."""
    try:
        parts = REPORT_MAC.split(report_mac)
    except Malformed as error:
        raise _operand(TdxOperand.RCX, str(error)) from None
    if not processor.reaches(parts["cpu_svn"]):
        raise TdxError(TdxStatus.TDX_INVALID_CPUSVN, "the report's cpusvn is above the processor's")
    if not hmac.compare_digest(parts["mac"], processor.seam_mac(report_mac[:-32])):
        raise TdxError(
            TdxStatus.TDX_INVALID_REPORTMACSTRUCT, "the report is not of this platform, or was changed"
        )


def _check_address(page: int) -> None:
    """Control pages lie in physical memory, at multiples of their size."""
    if page % PAGE_BYTES:
        raise _operand(TdxOperand.RCX, f"{page:#x} is no page")
    if not 0 <= page < 1 << PHYSICAL_BITS:
        raise TdxError(
            TdxStatus.TDX_OPERAND_ADDR_RANGE_ERROR, f"there is no page {page:#x}", operand=TdxOperand.RCX
        )


def _consistent(xfam: int) -> bool:
    """AVX-512, CET and AMX come with all of their bits; AVX-512 needs AVX."""
    groups = (0xE0, 0x1800, 0x60000)
    return all(xfam & group in (0, group) for group in groups) and not (xfam & 0xE0 and not xfam & 4)


def _service_td_hash(bound: Mapping[int, tuple[bytes, int]]) -> bytes:
    """SERVTD_HASH: SHA-384 over TDINFO hash, type and attributes of each in the order of types; zero without any."""
    if not bound:
        return bytes(48)
    parts = (
        digest + kind.to_bytes(2, "little") + attributes.to_bytes(8, "little")
        for kind, (digest, attributes) in sorted(bound.items())
    )
    return hashlib.sha384(b"".join(parts)).digest()


def _buffer(tag: bytes, gpa: int) -> bytes:
    return (tag.ljust(16, b"\0") + gpa.to_bytes(8, "little")).ljust(128, b"\0")


def _operand(operand: TdxOperand, message: str) -> TdxError:
    return TdxError(TdxStatus.TDX_OPERAND_INVALID, message, operand=operand)
