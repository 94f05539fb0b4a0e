"""Hosts that call anything in any order: the firmware never crashes, and its state is that of a model."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from tests.forge import amd
from tests.forge.amd import Randomness

from enarx.tcb.errors import Malformed
from enarx.tcb.wire import encode
from enarx_emulator.amd.chip import Chip, product, raised
from enarx_emulator.amd.guest import GuestDriver
from enarx_emulator.amd.sev import SevFirmware
from enarx_emulator.amd.sev_machine import SevMachine
from enarx_emulator.amd.snp import SnpFirmware
from enarx_emulator.amd.snp_machine import SnpMachine
from enarx_emulator.amd.status import SevStatus
from enarx_emulator.errors import FirmwareError

HANDLES = st.integers(-1, 6)
FUSES = amd.vendor().manufacture(product("milan"), amd.setup("snp").seed)
PAGE = bytes(4096)


def status(act: Any, *arguments: Any, **more: Any) -> SevStatus:
    """What a command answers; anything but an answer ends the test."""
    try:
        act(*arguments, **more)
    except FirmwareError as refused:
        return SevStatus(refused.status)
    return SevStatus.SUCCESS


class SnpHost(RuleBasedStateMachine):
    """SNP: guests go from INIT over LAUNCH to RUNNING, and nothing else happens to them."""

    guests = Bundle("guests")

    def __init__(self) -> None:
        super().__init__()
        self.firmware = SnpFirmware(Chip(FUSES), random=Randomness())
        self.states: dict[int, str] = {}
        self.asids: dict[int, int] = {}
        self.digests: dict[int, bytes] = {}

    @initialize()
    def begin(self) -> None:
        self.firmware.init()

    @rule(target=guests)
    def create(self) -> int:
        handle = self.firmware.gctx_create()
        self.states[handle], self.digests[handle] = "INIT", bytes(48)
        return handle

    @rule(handle=guests | HANDLES, policy=st.sampled_from([0x30000, 0xB0000, 0, 1 << 63, 0x20000]))
    def start(self, handle: int, policy: int) -> None:
        found = status(self.firmware.launch_start, handle, policy)
        if handle not in self.states:
            assert found is SevStatus.INVALID_GUEST
        elif self.states[handle] != "INIT":
            assert found is SevStatus.INVALID_GUEST_STATE
        elif policy not in (0x30000, 0xB0000):
            assert found is SevStatus.POLICY_FAILURE
        else:
            assert found is SevStatus.SUCCESS
            self.states[handle] = "LAUNCH"

    @rule(handle=guests | HANDLES, asid=st.integers(-1, 4))
    def activate(self, handle: int, asid: int) -> None:
        found = status(self.firmware.activate, handle, asid)
        if found is SevStatus.SUCCESS:
            assert self.states[handle] != "INIT"
            assert handle not in self.asids
            assert asid not in self.asids.values()
            self.asids[handle] = asid
        elif self.states.get(handle, "INIT") != "INIT" and handle not in self.asids:
            wrong = (SevStatus.INVALID_ASID, SevStatus.ASID_OWNED, SevStatus.DFFLUSH_REQUIRED)
            assert found in wrong

    @rule(
        handle=guests | HANDLES,
        kind=st.integers(0, 8),
        gpa=st.sampled_from([0, 0x1000, 0x1001, 1 << 48, -4096]),
        page=st.sampled_from([PAGE, b"\xff" * 4096, b"", b"x"]),
    )
    def update(self, handle: int, kind: int, gpa: int, page: bytes) -> None:
        found = status(self.firmware.launch_update, handle, kind, gpa, page)
        if found is SevStatus.SUCCESS:
            assert (self.states[handle], handle in self.asids) == ("LAUNCH", True)
            contents = hashlib.sha384(page).digest() if kind in (1, 2) else bytes(48)
            info = b"\x70\0" + bytes((kind, 0, 0, 0, 0, 0)) + gpa.to_bytes(8, "little")
            self.digests[handle] = hashlib.sha384(self.digests[handle] + contents + info).digest()

    @rule(handle=guests | HANDLES, host_data=st.sampled_from([bytes(32), bytes(31)]))
    def finish(self, handle: int, host_data: bytes) -> None:
        found = status(self.firmware.launch_finish, handle, host_data=host_data)
        ready = self.states.get(handle) == "LAUNCH" and handle in self.asids and len(host_data) == 32
        assert (found is SevStatus.SUCCESS) == ready
        if ready:
            self.states[handle] = "RUNNING"

    @rule(handle=guests)
    def ask(self, handle: int) -> None:
        if self.states.get(handle) != "RUNNING":
            assert status(self.firmware.guest_request, handle, PAGE) in (
                SevStatus.INVALID_GUEST_STATE,
                SevStatus.INVALID_GUEST,
            )
            return
        context = self.firmware.running(handle)
        driver = GuestDriver(
            firmware=self.firmware, handle=handle, key=context.vmpcks[0], sequence=context.counts[0]
        )
        assert driver.report(bytes(64))[0x90:0xC0] == self.digests[handle]

    @rule(handle=guests | HANDLES, message=st.binary(max_size=300))
    def whisper(self, handle: int, message: bytes) -> None:
        assert status(self.firmware.guest_request, handle, message) is not SevStatus.SUCCESS

    @rule(handle=guests | HANDLES)
    def debug(self, handle: int) -> None:
        found = status(self.firmware.dbg_decrypt, handle, 0)
        if found is SevStatus.SUCCESS:
            assert self.firmware.guest_status(handle)["policy"] == 0xB0000

    @rule(handle=guests | HANDLES)
    def forget(self, handle: int) -> None:
        found = status(self.firmware.decommission, handle)
        assert (found is SevStatus.SUCCESS) == (handle in self.states)
        self.states.pop(handle, None)
        self.asids.pop(handle, None)

    @rule(newer=st.integers(-2, 2), commit=st.booleans())
    def update_firmware(self, newer: int, commit: bool) -> None:
        chip = self.firmware.chip
        before = chip.committed
        status(self.firmware.download_firmware_ex, raised(before, by=newer), commit=commit)
        assert before.tcb.within(chip.committed.tcb)

    @rule()
    def flush(self) -> None:
        self.firmware.df_flush()

    @invariant()
    def the_firmware_agrees(self) -> None:
        states = {handle: self.firmware.guest_status(handle)["state"] for handle in self.states}
        names = ("INIT", "LAUNCH", "RUNNING")
        assert {handle: names[amd.number(state)] for handle, state in states.items()} == self.states
        chip = self.firmware.chip
        assert chip.reported.within(chip.committed.tcb)
        assert chip.committed.tcb.within(chip.current.tcb)


class SevHost(RuleBasedStateMachine):
    """SEV: guests go from LUPDATE over LSECRET to RUNNING; the platform is WORKING while there is one."""

    guests = Bundle("guests")

    def __init__(self) -> None:
        super().__init__()
        self.firmware = SevFirmware(FUSES, random=Randomness())
        self.up = False
        self.states: dict[int, str] = {}
        self.active: set[int] = set()

    @rule(es=st.booleans())
    def init(self, es: bool) -> None:
        assert (status(self.firmware.init, es=es) is SevStatus.SUCCESS) == (not self.up)
        self.up = True

    @rule()
    def shutdown(self) -> None:
        self.firmware.shutdown()
        self.up = False
        self.states.clear()
        self.active.clear()

    @rule(target=guests, policy=st.sampled_from([bytes(4), b"\x29\0\1\x28", b"\x04\0\0\0", b"\0\0\2\0", b""]))
    def start(self, policy: bytes) -> Any:
        made: list[int] = []
        found = status(lambda: made.append(self.firmware.launch_start(policy)))
        assert self.up or found is SevStatus.INVALID_PLATFORM_STATE
        if found is not SevStatus.SUCCESS:
            return multiple()
        self.states[made[0]] = "LUPDATE"
        return made[0]

    @rule(handle=guests | HANDLES, asid=st.integers(-1, 4))
    def activate(self, handle: int, asid: int) -> None:
        if status(self.firmware.activate, handle, asid) is SevStatus.SUCCESS:
            assert handle in self.states
            assert handle not in self.active
            self.active.add(handle)

    @rule(handle=guests | HANDLES)
    def deactivate(self, handle: int) -> None:
        found = status(self.firmware.deactivate, handle)
        assert (found is SevStatus.SUCCESS) == (handle in self.active)
        self.active.discard(handle)

    @rule(
        handle=guests | HANDLES,
        address=st.sampled_from([0, 8, 4096]),
        size=st.sampled_from([0, 15, 16, 4096]),
    )
    def update(self, handle: int, address: int, size: int) -> None:
        found = status(self.firmware.launch_update_data, handle, address, bytes(size))
        good = self.states.get(handle) == "LUPDATE" and handle in self.active
        assert (found is SevStatus.SUCCESS) == (good and address != 8 and size in (16, 4096))

    @rule(handle=guests | HANDLES)
    def measure(self, handle: int) -> None:
        found = status(self.firmware.launch_measure, handle)
        assert (found is SevStatus.SUCCESS) == (self.states.get(handle) == "LUPDATE")
        if found is SevStatus.SUCCESS:
            self.states[handle] = "LSECRET"

    @rule(handle=guests | HANDLES, header=st.sampled_from([bytes(52), b""]))
    def secret(self, handle: int, header: bytes) -> None:
        found = status(self.firmware.launch_secret, handle, header=header, payload=bytes(16), address=0)
        assert found is not SevStatus.SUCCESS

    @rule(handle=guests | HANDLES)
    def finish(self, handle: int) -> None:
        found = status(self.firmware.launch_finish, handle)
        assert (found is SevStatus.SUCCESS) == (self.states.get(handle) == "LSECRET")
        if found is SevStatus.SUCCESS:
            self.states[handle] = "RUNNING"

    @rule(handle=guests | HANDLES)
    def forget(self, handle: int) -> None:
        found = status(self.firmware.decommission, handle)
        assert (found is SevStatus.SUCCESS) == (handle in self.states and handle not in self.active)
        if found is SevStatus.SUCCESS:
            del self.states[handle]

    @rule()
    def flush(self) -> None:
        assert (status(self.firmware.df_flush) is SevStatus.SUCCESS) == self.up

    @invariant()
    def the_firmware_agrees(self) -> None:
        said = self.firmware.platform_status()
        expected = 0 if not self.up else 2 if self.states else 1
        assert (said["state"], said["guest_count"]) == (expected, len(self.states))
        if self.up:
            names = ("UNINIT", "LUPDATE", "LSECRET", "RUNNING")
            found = {one: self.firmware.guest_status(one)["state"] for one in self.states}
            assert {one: names[amd.number(state)] for one, state in found.items()} == self.states


TestSnpHost = SnpHost.TestCase
TestSnpHost.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSevHost = SevHost.TestCase
TestSevHost.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

ARGUMENTS = (
    *("guest", "image", "policy", "asid", "page_type", "gpa", "page", "address", "data", "size", "header"),
    *("payload", "session", "certificate", "vmsa", "pek", "oca", "es", "major", "minor", "build", "tcb"),
    *("commit", "reported_tcb", "message", "id_block", "id_auth", "auth_key_en", "host_data", "wrapped"),
    *("csp_id", "share", "colour"),
)
VALUES = st.one_of(
    st.integers(-2, 1 << 66),
    st.sampled_from([0, 1, 2, 3, 4096, 0x30000]),
    st.binary(max_size=70),
    st.sampled_from([bytes(size) for size in (4, 8, 16, 32, 52, 96, 128, 432, 2084, 4096)]),
    st.booleans(),
    st.text(max_size=70),
    st.none(),
)
MACHINES = (amd.snp(), amd.sev("sev-es"))


@given(
    machine=st.sampled_from(MACHINES),
    wanted=st.data(),
    arguments=st.dictionaries(st.sampled_from(ARGUMENTS), VALUES, max_size=6),
)
@settings(max_examples=400, deadline=None)
def test_any_command_with_any_arguments_answers_or_refuses(
    machine: SnpMachine | SevMachine, wanted: st.DataObject, arguments: dict[str, object]
) -> None:
    """Malformed arguments, or the firmware's own status: nothing else comes out."""
    name = wanted.draw(st.sampled_from([*machine._commands, "nothing"]))
    if name == "launch" and len(machine.firmware._guests) > 20:
        machine.firmware.shutdown()
        machine.firmware.init()
    with contextlib.suppress(FirmwareError, Malformed):
        encode(dict(machine.command(name, arguments)))
