"""However a host mixes the commands of several guests, firmware keeps them apart and answers by its codes alone."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.forge import intel

from enarx.attest.measure import Sigstruct, build_sigstruct
from enarx_emulator.intel import tdx
from enarx_emulator.intel.processor import MODELS, Processor
from enarx_emulator.intel.sgx import SgxCpu, attributes
from enarx_emulator.intel.status import SgxError, TdxError
from enarx_emulator.intel.tdx import TdxModule, td_params

PAGE = 4096
SIZE = 2 * PAGE
EPC = 9
HANDLES = st.integers(1, 4)
TDRS = [PAGE * at for at in range(1, 4)]


class Enclaves(RuleBasedStateMachine):
    """Enclaves of one processor against the log that each ought to have."""

    def __init__(self) -> None:
        super().__init__()
        self.cpu: SgxCpu = intel.cpu(epc_pages=EPC)
        self.logs: dict[int, bytes] = {}
        self.pages: dict[int, dict[int, bytes]] = {}
        self.started: dict[int, bytes] = {}

    @initialize()
    def begin(self) -> None:
        """Two enclaves with a page each, so that short runs are not all in vain."""
        for fill in range(2):
            self.create()
            self.add(fill + 1, 0, fill)

    @rule()
    def create(self) -> None:
        """ECREATE."""
        try:
            handle = self.cpu.ecreate(size=SIZE, attributes=attributes())
        except SgxError:
            assert self.used() == EPC
            return
        log = b"ECREATE\0" + (1).to_bytes(4, "little") + SIZE.to_bytes(8, "little")
        self.logs[handle], self.pages[handle] = log.ljust(64, b"\0"), {}

    @rule(handle=HANDLES, offset=st.sampled_from([0, PAGE, SIZE]), fill=st.integers(0, 255))
    def add(self, handle: int, offset: int, fill: int) -> None:
        """EADD."""
        contents = bytes([fill]) * PAGE
        pages = self.pages.get(handle)
        fits = pages is not None and handle not in self.started and offset < SIZE and offset not in pages
        try:
            self.cpu.eadd(handle, offset=offset, contents=contents, permissions=5)
        except SgxError:
            assert not fits or self.used() == EPC
            return
        assert fits
        assert pages is not None
        pages[offset] = contents
        block = b"EADD\0\0\0\0" + offset.to_bytes(8, "little") + (0x205).to_bytes(8, "little")
        self.logs[handle] += block.ljust(64, b"\0")

    @rule(handle=HANDLES, offset=st.sampled_from([0, 256, PAGE - 256, PAGE, SIZE]))
    def extend(self, handle: int, offset: int) -> None:
        """EEXTEND."""
        page = self.pages.get(handle, {}).get(offset - offset % PAGE)
        try:
            self.cpu.eextend(handle, offset=offset)
        except SgxError:
            assert page is None or handle in self.started
            return
        assert page is not None
        block = (b"EEXTEND\0" + offset.to_bytes(8, "little")).ljust(64, b"\0")
        self.logs[handle] += block + page[offset % PAGE : offset % PAGE + 256]

    @rule(handle=HANDLES)
    def start(self, handle: int) -> None:
        """EINIT with what ought to be measured."""
        measured = hashlib.sha256(self.logs.get(handle, b"")).digest()
        content = Sigstruct(
            date=0x20260101, attributes=attributes(), attributes_mask=b"\xff" * 16, enclave_hash=measured
        )
        try:
            assert self.cpu.einit(handle, build_sigstruct(content, intel.enclave_key())) == measured
        except SgxError:
            assert handle in self.started or handle not in self.logs
            return
        self.started[handle] = measured

    @rule(handle=HANDLES)
    def remove(self, handle: int) -> None:
        """EREMOVE."""
        try:
            self.cpu.eremove(handle)
        except SgxError:
            assert handle not in self.logs
            return
        del self.logs[handle], self.pages[handle]
        self.started.pop(handle, None)

    @rule(handle=HANDLES)
    def report(self, handle: int) -> None:
        """EREPORT."""
        try:
            report = self.cpu.ereport(handle, target_info=bytes(512), report_data=bytes(64))
        except SgxError:
            assert handle not in self.started
            return
        assert report[64:96] == self.started[handle]

    @invariant()
    def no_page_is_lost(self) -> None:
        """Every page is free or in use."""
        assert self.cpu.free_pages + self.used() == EPC

    def used(self) -> int:
        """Pages that ought to be in use."""
        return len(self.logs) + sum(len(pages) for pages in self.pages.values())


class Tds(RuleBasedStateMachine):
    """TDs of one module against a plain account of what was done to each."""

    def __init__(self) -> None:
        super().__init__()
        self.module = TdxModule(Processor(intel.SEED, MODELS["emeraldrapids"]))
        self.done: dict[int, list[str]] = {}
        self.logs: dict[int, Any] = {}
        self.pages: dict[int, set[int]] = {}
        self.rtmrs: dict[int, bytes] = {}

    def attempt(self, tdr: int, step: str, call: Any, *operands: object) -> bool:
        """Do it, and say whether the module did."""
        try:
            call(tdr, *operands)
        except TdxError:
            return False
        self.done.setdefault(tdr, []).append(step)
        return True

    @initialize()
    def begin(self) -> None:
        """Two TDs that are ready for memory, so that short runs are not all in vain."""
        for hkid, tdr in enumerate(TDRS[:2], 1):
            self.create(tdr, hkid)
            self.prepare(tdr)

    @rule(tdr=st.sampled_from(TDRS), hkid=st.integers(0, 4))
    def create(self, tdr: int, hkid: int) -> None:
        """TDH.MNG.CREATE."""
        exists = tdr in self.done
        if self.attempt(tdr, "create", self.module.tdh_mng_create, hkid):
            assert not exists
            self.logs[tdr], self.pages[tdr], self.rtmrs[tdr] = hashlib.sha384(), set(), bytes(48)

    @rule(tdr=st.sampled_from(TDRS))
    def prepare(self, tdr: int) -> None:
        """TDH.MNG.KEY.CONFIG, ADDCX and INIT, and a virtual processor."""
        module, vp = self.module, tdr + 0x100000
        steps = [
            ("key", module.tdh_mng_key_config, ()),
            *[("cx", module.tdh_mng_addcx, ())] * tdx.TDCS_PAGES,
            ("init", module.tdh_mng_init, (td_params(),)),
            ("vp", module.tdh_vp_create, (vp,)),
            *[("vpcx", module.tdh_vp_addcx, (vp,))] * tdx.TDVPS_PAGES,
            ("vpinit", module.tdh_vp_init, (vp,)),
        ]
        exists, fresh = tdr in self.done, self.done.get(tdr) == ["create"]
        results = [self.attempt(tdr, name, call, *operands) for name, call, operands in steps]
        assert all(results) if fresh else not (exists and any(results[:6]))

    @rule(tdr=st.sampled_from(TDRS), at=st.integers(0, 3), fill=st.integers(0, 255))
    def add(self, tdr: int, at: int, fill: int) -> None:
        """TDH.MEM.PAGE.ADD and one TDH.MR.EXTEND."""
        gpa, contents = at * PAGE, bytes([fill]) * PAGE
        ready = self.building(tdr) and gpa not in self.pages[tdr]
        assert self.attempt(tdr, "add", self.module.tdh_mem_page_add, gpa, contents) is ready
        if not ready:
            return
        self.pages[tdr].add(gpa)
        self.logs[tdr].update(_buffer(b"MEM.PAGE.ADD", gpa))
        assert self.attempt(tdr, "extend", self.module.tdh_mr_extend, gpa + 256)
        self.logs[tdr].update(_buffer(b"MR.EXTEND", gpa + 256) + contents[:256])

    @rule(tdr=st.sampled_from(TDRS))
    def finalize(self, tdr: int) -> None:
        """TDH.MR.FINALIZE."""
        ready = self.building(tdr)
        assert self.attempt(tdr, "finalize", self.module.tdh_mr_finalize) is ready

    @rule(tdr=st.sampled_from(TDRS), data=st.binary(min_size=48, max_size=48))
    def measure(self, tdr: int, data: bytes) -> None:
        """TDG.MR.RTMR.EXTEND."""
        if self.attempt(tdr, "rtmr", self.module.tdg_mr_rtmr_extend, 2, data):
            self.rtmrs[tdr] = hashlib.sha384(self.rtmrs[tdr] + data).digest()

    @rule(tdr=st.sampled_from(TDRS))
    def free(self, tdr: int) -> None:
        """TDH.MNG.KEY.FREEID."""
        exists = tdr in self.done
        assert self.attempt(tdr, "free", self.module.tdh_mng_key_freeid) is exists
        if exists:
            del self.done[tdr]

    @invariant()
    def reports_are_of_what_was_done(self) -> None:
        """Those that run report their own measurements, no others report."""
        for tdr in TDRS:
            if "finalize" in self.done.get(tdr, []):
                assert self.module.measurement(tdr) == self.logs[tdr].digest()
                assert self.module.rtmr(tdr, 2) == self.rtmrs[tdr]
            else:
                assert not self.attempt(tdr, "report", self.module.tdg_mr_report, bytes(64))

    def building(self, tdr: int) -> bool:
        """Whether memory may be added."""
        done = self.done.get(tdr, [])
        return "vpinit" in done and "finalize" not in done


def _buffer(tag: bytes, gpa: int) -> bytes:
    return (tag.ljust(16, b"\0") + gpa.to_bytes(8, "little")).ljust(128, b"\0")


_LIMITS = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestEnclaves = Enclaves.TestCase
TestEnclaves.settings = _LIMITS
TestTds = Tds.TestCase
TestTds.settings = _LIMITS
