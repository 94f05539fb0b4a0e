"""The firmware of SEV-SNP: platform, launch, and messages with guests (AMD 56860, SEV-SNP ABI 1.57).

Every command raises ``FirmwareError`` with the status that the specification names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from enarx.attest.amd._keys import KEY_BYTES, key_digest, signature_holds, unpack_key
from enarx.attest.snp._id_block import _AUTH, _BLOCK, ECDSA_P384_SHA384, IdBlock, parse_id_block
from enarx.attest.snp._launch import DIGEST_BYTES, PageType
from enarx.attest.snp._report import GuestPolicy, Tcb
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value
from enarx_emulator.amd.chip import Chip, Firmware
from enarx_emulator.amd.memory import PAGE_BYTES, Asids, GuestMemory
from enarx_emulator.amd.messages import VMPCK_BYTES
from enarx_emulator.amd.requests import answer
from enarx_emulator.amd.status import SevStatus, require
from enarx_emulator.amd.vendor import WRAPPED_VLEK_BYTES

LARGE_PAGE_BYTES: Final = 2 * 1024 * 1024
MAX_GUESTS: Final = 1006
MAX_CPUID_FUNCTIONS: Final = 64
SECRETS_VERSION: Final = 4
NO_MIGRATION_AGENT: Final = b"\xff" * 32
_MEASURED: Final = (PageType.NORMAL, PageType.VMSA)
_SMALL_ONLY: Final = (PageType.VMSA, PageType.SECRETS, PageType.CPUID)
_TSC_SCALE: Final = slice(0x2F0, 0x300)
"""GUEST_TSC_SCALE and GUEST_TSC_OFFSET of a save area, which are measured as zero."""


class PlatformState(IntEnum):
    """Of SNP, beside that of SEV."""

    UNINIT = 0
    INIT = 1


class GuestState(IntEnum):
    """GSTATE."""

    INIT = 0
    LAUNCH = 1
    RUNNING = 2


@dataclass(slots=True, kw_only=True)
class SnpGuest:
    """GCTX: the firmware's context of one guest."""

    handle: int
    state: GuestState = GuestState.INIT
    asid: int | None = None
    policy: GuestPolicy = field(default_factory=lambda: GuestPolicy(0))
    measurement: bytes = bytes(DIGEST_BYTES)
    memory: GuestMemory = field(default_factory=GuestMemory)
    vmpcks: tuple[bytes, ...] = field(default=(), repr=False)
    vmrk: bytes = field(default=b"", repr=False)
    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """Messages so far under each key, both ways."""
    report_id: bytes = b""
    report_id_ma: bytes = NO_MIGRATION_AGENT
    gosvw: bytes = bytes(16)
    host_data: bytes = bytes(32)
    id_block: IdBlock | None = None
    id_key_digest: bytes = bytes(DIGEST_BYTES)
    author_key_digest: bytes = bytes(DIGEST_BYTES)
    author_key_en: bool = False
    vcek_dis: bool = False
    launch_tcb: Tcb
    launch_mitigations: int
    first_report_data: bytes = b""
    """For the fault of an old report that is given again."""


class SnpFirmware:
    """One secure processor's SNP firmware. ``random`` gives as many bytes as asked for."""

    def __init__(
        self,
        chip: Chip,
        *,
        random: Callable[[int], bytes],
        report_version: int | None = None,
        smt: bool = True,
        platform_info: int = 0x24,
        faults: frozenset[str] = frozenset(),
    ) -> None:
        """``platform_info``: bits of PLATFORM_INFO beside that of SMT (ECC and ALIAS_CHECK_COMPLETE by default)."""
        self.chip, self.faults = chip, faults
        self.report_version = chip.product.report_version if report_version is None else report_version
        self.platform_info = platform_info | int(smt)
        self.state = PlatformState.UNINIT
        self.mask_chip_id = "snp-hidden-chip" in faults
        self.mask_chip_key = "snp-masked-key" in faults
        self.vlek: bytes | None = None
        self._random = random
        self._guests: dict[int, SnpGuest] = {}
        self._asids = Asids(MAX_GUESTS)
        self._handles = 0

    # Platform commands

    def init(self) -> None:
        """SNP_INIT."""
        self._platform(PlatformState.UNINIT)
        self.state = PlatformState.INIT

    def shutdown(self) -> None:
        """SNP_SHUTDOWN: every guest is gone."""
        self._guests.clear()
        self._asids = Asids(MAX_GUESTS)
        self.state = PlatformState.UNINIT

    def platform_status(self) -> dict[str, Value]:
        """SNP_PLATFORM_STATUS."""
        major, minor, build = self.chip.current.version
        return {
            "api_major": major,
            "api_minor": minor,
            "build_id": build,
            "state": int(self.state),
            "guest_count": len(self._guests),
            "mask_chip_id": int(self.mask_chip_id),
            "mask_chip_key": int(self.mask_chip_key),
            "vlek_en": int(self.vlek is not None),
            "current_tcb": self.chip.pack(self.chip.current.tcb),
            "reported_tcb": self.chip.pack(self.chip.reported),
            "committed_tcb": self.chip.pack(self.chip.committed.tcb),
        }

    def config(
        self, *, reported_tcb: bytes = bytes(8), mask_chip_id: bool = False, mask_chip_key: bool = False
    ) -> None:
        """SNP_CONFIG: which TCB to report (zeros: the committed one), and what to hide."""
        _size("reported_tcb", reported_tcb, 8)
        wanted = self.chip.parse(reported_tcb) if any(reported_tcb) else self.chip.committed.tcb
        before = self.chip.reported
        self.chip.report_as(wanted)
        self.mask_chip_id, self.mask_chip_key = mask_chip_id, mask_chip_key
        self._forget_vlek(before)

    def download_firmware_ex(self, firmware: Firmware, *, commit: bool = False) -> None:
        """SNP_DOWNLOAD_FIRMWARE_EX: run other firmware, which guests survive."""
        self.chip.update(firmware)
        if commit:
            self.commit()

    def commit(self) -> None:
        """SNP_COMMIT: from now on no older firmware runs here."""
        before = self.chip.reported
        self.chip.commit()
        self._forget_vlek(before)

    def vlek_load(self, wrapped: bytes) -> None:
        """SNP_VLEK_LOAD: take a provider's key that the vendor wrapped for this chip (432 bytes)."""
        _size("wrapped vlek", wrapped, WRAPPED_VLEK_BYTES, SevStatus.INVALID_LENGTH)
        said = wrapped[0x190:0x1A0]
        try:
            secret = AESGCM(self.chip.fuses.vlek_wrapping_key()).decrypt(
                wrapped[:12], wrapped[0x10:0x190] + wrapped[0x1A0:], said
            )
        except InvalidTag:
            require(False, SevStatus.BAD_MEASUREMENT, "the vlek is not wrapped for this chip")
            raise
        require(
            self.chip.parse(said[:8]) == self.chip.reported,
            SevStatus.INVALID_PARAM,
            f"the vlek is for {self.chip.parse(said[:8])}, reported is {self.chip.reported}",
        )
        self.vlek = secret

    def df_flush(self) -> None:
        """SNP_DF_FLUSH: identifiers of former guests can be used again."""
        self._platform(PlatformState.INIT)
        self._asids.flush()

    # Guest commands

    def gctx_create(self) -> int:
        """SNP_GCTX_CREATE: give the handle of an empty context."""
        self._platform(PlatformState.INIT)
        require(
            len(self._guests) < MAX_GUESTS, SevStatus.RESOURCE_LIMIT, f"{MAX_GUESTS} guests exist already"
        )
        self._handles += 1
        self._guests[self._handles] = SnpGuest(
            handle=self._handles,
            launch_tcb=self.chip.committed.tcb,
            launch_mitigations=self.chip.product.mitigations,
        )
        return self._handles

    def launch_start(
        self, handle: int, policy: int, *, gosvw: bytes = bytes(16), migration_agent: int | None = None
    ) -> None:
        """SNP_LAUNCH_START: fix the policy, and make the guest's keys."""
        guest = self._guest(handle, GuestState.INIT)
        _size("gosvw", gosvw, 16)
        require(0 <= policy < 1 << 64, SevStatus.INVALID_PARAM, "policy does not fit into 64 bits")
        agent = None if migration_agent is None else self._guest(migration_agent)
        self._check_policy(GuestPolicy(policy), agent)
        guest.policy = GuestPolicy(policy)
        guest.gosvw = gosvw
        guest.vmpcks = tuple(self._random(VMPCK_BYTES) for _ in range(4))
        guest.vmrk, guest.report_id = self._random(32), self._random(32)
        guest.report_id_ma = NO_MIGRATION_AGENT if agent is None else agent.report_id
        guest.launch_tcb = self.chip.current.tcb
        guest.state = GuestState.LAUNCH

    def activate(self, handle: int, asid: int) -> None:
        """SNP_ACTIVATE: give the guest the identifier under which its memory is encrypted."""
        guest = self._guest(handle, GuestState.LAUNCH, GuestState.RUNNING)
        self._asids.check(asid)
        require(guest.asid is None, SevStatus.ACTIVE, f"guest {handle} has asid {guest.asid}")
        self._asids.assign(asid, handle)
        guest.asid = asid

    def launch_update(
        self,
        handle: int,
        page_type: int,
        gpa: int,
        data: bytes,
        *,
        vmpl_perms: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        """SNP_LAUNCH_UPDATE: measure one page of 4 KiB or 2 MiB and make it the guest's.

        ``vmpl_perms``: what VMPL 1, 2 and 3 may do with it.
        """
        self._platform(PlatformState.INIT)
        self._guest(handle)
        known = page_type in tuple(PageType)
        require(known, SevStatus.INVALID_PARAM, f"page type {page_type} is unknown")
        sizes = (PAGE_BYTES,) if page_type in _SMALL_ONLY else (PAGE_BYTES, LARGE_PAGE_BYTES)
        require(
            len(data) in sizes, SevStatus.INVALID_PAGE_SIZE, f"page has {len(data)} bytes, expected {sizes}"
        )
        aligned = 0 <= gpa < 1 << 48 and gpa % len(data) == 0
        require(
            aligned, SevStatus.INVALID_ADDRESS, f"address {gpa:#x} is not that of a page of {len(data)} bytes"
        )
        fits = all(0 <= one < 256 for one in vmpl_perms)
        require(fits, SevStatus.INVALID_PARAM, f"permissions are {vmpl_perms}, expected bytes")
        guest = self._guest(handle, GuestState.LAUNCH)
        require(guest.asid is not None, SevStatus.INACTIVE, f"guest {handle} has no asid")
        if page_type == PageType.CPUID:
            _check_cpuid(data)
        info = (0x70).to_bytes(2, "little") + bytes((page_type, 0, *reversed(vmpl_perms), 0))
        for at in range(0, len(data), PAGE_BYTES):
            page = data[at : at + PAGE_BYTES]
            contents = _contents(PageType(page_type), page)
            link = guest.measurement + contents + info + (gpa + at).to_bytes(8, "little")
            guest.measurement = hashlib.sha384(link).digest()
        guest.memory.write(gpa, self._filled(guest, PageType(page_type), data))

    def launch_finish(
        self,
        handle: int,
        *,
        id_block: bytes | None = None,
        id_auth: bytes | None = None,
        auth_key_en: bool = False,
        vcek_dis: bool = False,
        host_data: bytes = bytes(32),
    ) -> None:
        """SNP_LAUNCH_FINISH: check the owner's ID block, if there is one, and let the guest run."""
        guest = self._guest(handle, GuestState.LAUNCH)
        require(guest.asid is not None, SevStatus.INACTIVE, f"guest {handle} has no asid")
        _size("host_data", host_data, 32)
        if id_block is not None:
            self._identify(guest, id_block, id_auth or b"", auth_key_en)
        guest.host_data, guest.vcek_dis = host_data, vcek_dis
        guest.state = GuestState.RUNNING

    def guest_status(self, handle: int) -> dict[str, Value]:
        """SNP_GUEST_STATUS."""
        guest = self._guest(handle)
        return {
            "policy": guest.policy.value,
            "asid": guest.asid or 0,
            "state": int(guest.state),
            "vcek_dis": int(guest.vcek_dis),
        }

    def decommission(self, handle: int) -> None:
        """SNP_DECOMMISSION: forget the guest and its keys."""
        guest = self._guest(handle)
        if guest.asid is not None:
            self._asids.release(guest.asid, used=guest.state is GuestState.RUNNING)
        del self._guests[handle]

    def dbg_decrypt(self, handle: int, gpa: int) -> bytes:
        """SNP_DBG_DECRYPT: read a page of 4 KiB, if the guest's policy allows."""
        guest = self._debugged(handle, gpa)
        return guest.memory.read(gpa, PAGE_BYTES)

    def dbg_encrypt(self, handle: int, gpa: int, page: bytes) -> None:
        """SNP_DBG_ENCRYPT: write a page of 4 KiB, if the guest's policy allows."""
        guest = self._debugged(handle, gpa)
        _size("page", page, PAGE_BYTES, SevStatus.INVALID_PAGE_SIZE)
        guest.memory.write(gpa, page)

    def guest_request(self, handle: int, message: bytes) -> bytes:
        """SNP_GUEST_REQUEST: carry a guest's message to the firmware, and the response back (at most one page)."""
        return answer(self, self._guest(handle, GuestState.RUNNING), message)

    # Not commands

    def running(self, handle: int) -> SnpGuest:
        """Give a guest that was launched: to the part that answers its messages, and the machine that runs it."""
        return self._guest(handle, GuestState.RUNNING)

    def free_asid(self) -> int:
        """Give an identifier that can be activated; flushes when only used ones are left."""
        asid = self._asids.free()
        if asid is None:
            self._asids.flush()
            asid = self._asids.free()
        require(asid is not None, SevStatus.RESOURCE_LIMIT, "no asid is free")
        assert asid is not None  # noqa: S101 -- required above
        return asid

    def _platform(self, state: PlatformState) -> None:
        require(
            self.state is state,
            SevStatus.INVALID_PLATFORM_STATE,
            f"platform is {self.state.name}, expected {state.name}",
        )

    def _guest(self, handle: int, *states: GuestState) -> SnpGuest:
        self._platform(PlatformState.INIT)
        guest = self._guests.get(handle)
        require(guest is not None, SevStatus.INVALID_GUEST, f"no guest has handle {handle}")
        assert guest is not None  # noqa: S101 -- required above
        wanted = " or ".join(state.name for state in states)
        require(
            not states or guest.state in states,
            SevStatus.INVALID_GUEST_STATE,
            f"guest {handle} is {guest.state.name}, expected {wanted}",
        )
        return guest

    def _debugged(self, handle: int, gpa: int) -> SnpGuest:
        guest = self._guest(handle)
        require(guest.policy.debug, SevStatus.POLICY_FAILURE, f"guest {handle} forbids debugging")
        require(guest.asid is not None, SevStatus.INACTIVE, f"guest {handle} has no asid")
        require(gpa % PAGE_BYTES == 0, SevStatus.INVALID_ADDRESS, f"address {gpa:#x} is not that of a page")
        return guest

    def _forget_vlek(self, before: Tcb) -> None:
        """A provider's key is for one TCB."""
        if self.chip.reported != before:
            self.vlek = None

    def _check_policy(self, policy: GuestPolicy, agent: SnpGuest | None) -> None:
        major, minor, _ = self.chip.current.version
        tio = self.platform_info
        for holds, why in (
            (policy.value & GuestPolicy.RESERVED_ONE != 0, "bit 17 is not set"),
            (not policy.value & ~GuestPolicy.KNOWN, "bits without a meaning are set"),
            (policy.abi <= (major, minor), f"abi {policy.abi} is newer than {major}.{minor}"),
            (policy.smt or not tio & 1, "SMT is on"),
            (agent is None or policy.migrate_ma, "a migration agent is given and not allowed"),
            (
                agent is None or agent.report_id_ma == NO_MIGRATION_AGENT,
                "the migration agent has one of its own",
            ),
            (
                agent is None or not policy.single_socket or agent.policy.single_socket,
                "the migration agent is not bound to a single socket",
            ),
            (not policy.rapl_disable or bool(tio >> 3 & 1), "RAPL is on"),
            (not policy.ciphertext_hiding or bool(tio >> 4 & 1), "ciphertext is not hidden"),
        ):
            require(holds, SevStatus.POLICY_FAILURE, f"guest policy {policy.value:#x}: {why}")

    def _filled(self, guest: SnpGuest, page_type: PageType, data: bytes) -> bytes:
        """The page as the guest finds it."""
        if page_type is PageType.ZERO:
            return bytes(len(data))
        if page_type is not PageType.SECRETS:
            return data
        family, model, stepping = self.chip.product.cpuid
        fms = family << 16 | model << 8 | stepping
        head = SECRETS_VERSION.to_bytes(4, "little") + bytes(4) + fms.to_bytes(4, "little") + bytes(4)
        page = bytearray((head + guest.gosvw + b"".join(guest.vmpcks)).ljust(PAGE_BYTES, b"\0"))
        page[0x168:0x170] = guest.launch_mitigations.to_bytes(8, "little")
        return bytes(page)

    def _identify(self, guest: SnpGuest, block: bytes, auth: bytes, author: bool) -> None:
        """Check launch digest, policy and both signatures in the firmware's order."""
        _size("id block", block, _BLOCK.size)
        _size("id authentication", auth, _AUTH.size)
        fields = {name: auth[at.start : at.stop] for name, at in _AUTH.fields.items()}
        try:
            parsed = parse_id_block(block)
        except Malformed as wrong:
            require(False, SevStatus.BAD_VERSION, str(wrong))
            raise
        require(
            parsed.launch_digest == guest.measurement,
            SevStatus.BAD_MEASUREMENT,
            "the id block is for another launch digest",
        )
        require(
            parsed.policy == guest.policy.value,
            SevStatus.POLICY_FAILURE,
            "the id block is for another policy",
        )
        wanted = ("id_key_algo", "author_key_algo") if author else ("id_key_algo",)
        for name in wanted:
            algorithm = int.from_bytes(fields[name], "little")
            require(
                algorithm == ECDSA_P384_SHA384, SevStatus.INVALID_PARAM, f"{name} is {algorithm}, expected 1"
            )
        _signed("id block", fields["id_key"], fields["id_block_sig"], block)
        if author:
            _signed("id key", fields["author_key"], fields["id_key_sig"], fields["id_key"])
            guest.author_key_digest = key_digest(fields["author_key"])
        guest.id_block, guest.author_key_en = parsed, author
        guest.id_key_digest = key_digest(fields["id_key"])


def _contents(page_type: PageType, page: bytes) -> bytes:
    """CONTENTS of PAGE_INFO."""
    if page_type not in _MEASURED:
        return bytes(DIGEST_BYTES)
    if page_type is PageType.VMSA:
        page = page[: _TSC_SCALE.start] + bytes(16) + page[_TSC_SCALE.stop :]
    return hashlib.sha384(page).digest()


def _check_cpuid(page: bytes) -> None:
    """COUNT u32, 12 reserved bytes, then functions of 48 bytes."""
    count = int.from_bytes(page[:4], "little")
    require(not any(page[4:16]), SevStatus.INVALID_PARAM, "cpuid page: reserved bytes are not zero")
    require(
        count <= MAX_CPUID_FUNCTIONS,
        SevStatus.INVALID_PARAM,
        f"cpuid page has {count} functions, at most {MAX_CPUID_FUNCTIONS} are allowed",
    )


def _signed(name: str, key: bytes, signature: bytes, data: bytes) -> None:
    assert len(key) == KEY_BYTES  # noqa: S101 -- cut by a layout
    try:
        holds = signature_holds(unpack_key(key), signature, data)
    except Malformed:
        holds = False
    require(holds, SevStatus.BAD_SIGNATURE, f"the signature of the {name} does not hold")


def _size(name: str, data: bytes, size: int, status: SevStatus = SevStatus.INVALID_PARAM) -> None:
    require(len(data) == size, status, f"{name} has {len(data)} bytes, expected {size}")
