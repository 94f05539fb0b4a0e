"""The firmware of SEV and SEV-ES: platform, launch, secret (AMD 55766, SEV API 0.24).

Every command raises ``FirmwareError`` with the status that the specification names. What it calls a system address is
an address in the guest's memory here, because there is no memory controller in between.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from enarx.attest.sev._certs import Algorithm, Usage
from enarx.attest.sev._encode import NO_SIGNATURE
from enarx.attest.sev._session import MAX_SECRET_BYTES, GuestPolicy, SessionKeys, _aes_ctr, _derive, _mac
from enarx.tcb.wire import Layout, Value
from enarx_emulator.amd.chip import Fuses
from enarx_emulator.amd.memory import Asids, GuestMemory
from enarx_emulator.amd.sev_identity import Identity, parsed
from enarx_emulator.amd.status import SevStatus, require

VMSA_BYTES: Final = 4096
MAX_GUESTS: Final = 509
"""One for each address space identifier of a processor."""
SESSION: Final = Layout(
    "session",
    128,
    {
        "nonce": range(16),
        "wrap_tk": range(16, 48),
        "wrap_iv": range(48, 64),
        "wrap_mac": range(64, 96),
        "policy_mac": range(96, 128),
    },
)
PACKET: Final = Layout("packet header", 52, {"flags": range(4), "iv": range(4, 20), "mac": range(20, 52)})
_POLICY_BITS: Final = 0x3F
_SECRET, _MEASURE = b"\x01", b"\x04"
"""Contexts of the two authentication codes."""
_CERTIFICATE_BYTES: Final = 2084


class PlatformState(IntEnum):
    """Section 5.1.2."""

    UNINIT = 0
    INIT = 1
    WORKING = 2


class GuestState(IntEnum):
    """Section 6.1.1; the states of migration are missing, because there is none."""

    UNINIT = 0
    LUPDATE = 1
    LSECRET = 2
    RUNNING = 3


_UP: Final = (PlatformState.INIT, PlatformState.WORKING)


@dataclass(slots=True, kw_only=True)
class SevGuest:
    """The firmware's context of one guest."""

    handle: int
    policy: bytes
    keys: SessionKeys | None = field(repr=False)
    vek: bytes = field(repr=False)
    state: GuestState = GuestState.LUPDATE
    asid: int | None = None
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    measure: bytes = b""
    memory: GuestMemory = field(default_factory=GuestMemory)
    vmsas: list[bytes] = field(default_factory=list)

    @property
    def flags(self) -> GuestPolicy:
        """The low half of POLICY."""
        return GuestPolicy(int.from_bytes(self.policy[:2], "little") & _POLICY_BITS)


class SevFirmware:
    """One secure processor's SEV firmware. ``random`` gives as many bytes as asked for."""

    def __init__(
        self,
        fuses: Fuses,
        *,
        api: tuple[int, int] = (1, 55),
        build: int = 29,
        random: Callable[[int], bytes],
        faults: frozenset[str] = frozenset(),
        saved: Mapping[str, Value] | None = None,
    ) -> None:
        saved = saved or {}
        self.api, self.build = _installed(saved.get("firmware"), (*api, build))
        self.state = PlatformState.UNINIT
        self.es = False
        self._fuses, self._random, self._faults = fuses, random, faults
        self._guests: dict[int, SevGuest] = {}
        self._asids = Asids(MAX_GUESTS)
        self._identity = Identity(fuses, saved, self.api, faults)

    def save(self) -> dict[str, Value]:
        """Give the persistent state: what runs, how often keys were made anew, and an owner's certificates."""
        return {**self._identity.save(), "firmware": [*self.api, self.build]}

    # Platform commands, section 5

    def init(self, *, es: bool = False) -> None:
        """INIT: UNINIT to INIT; ``es`` allows guests of SEV-ES."""
        self._platform(PlatformState.UNINIT)
        self.state, self.es = PlatformState.INIT, es

    def shutdown(self) -> None:
        """SHUTDOWN: every guest is gone."""
        self._guests.clear()
        self._asids = Asids(MAX_GUESTS)
        self.state, self.es = PlatformState.UNINIT, False

    def platform_reset(self) -> None:
        """PLATFORM_RESET: factory settings; keys are made anew and an owner is forgotten."""
        self._platform(PlatformState.UNINIT)
        self._identity.renew_owner()

    def platform_status(self) -> dict[str, Value]:
        """PLATFORM_STATUS, in every state."""
        up = self.state is not PlatformState.UNINIT
        return {
            "api_major": self.api[0],
            "api_minor": self.api[1],
            "build": self.build,
            "state": int(self.state),
            "owner": int(up and self._identity.owned),
            "es": int(self.es),
            "guest_count": len(self._guests),
        }

    def get_id(self) -> bytes:
        """GET_ID: the chip (64 bytes), under which the vendor gives its CEK certificate."""
        return self._fuses.chip_id

    def pek_gen(self) -> None:
        """PEK_GEN: a new OCA, PEK and PDH; the platform owns itself again."""
        self._platform(PlatformState.INIT)
        self._identity.renew_owner()

    def pdh_gen(self) -> None:
        """PDH_GEN: a new Diffie-Hellman key."""
        self._platform(*_UP)
        self._identity.renew_pdh()

    def pek_csr(self) -> bytes:
        """PEK_CSR: the PEK without signatures (2084 bytes), for an owner to sign."""
        self._platform(*_UP)
        return self._identity.pek_body() + NO_SIGNATURE * 2

    def pek_cert_import(self, pek: bytes, oca: bytes) -> None:
        """PEK_CERT_IMPORT: take an owner, whose OCA signed the PEK that PEK_CSR gave."""
        self._platform(PlatformState.INIT)
        require(not self._identity.owned, SevStatus.ALREADY_OWNED, "the platform has an owner")
        for name, data in (("pek", pek), ("oca", oca)):
            _length(name, data, _CERTIFICATE_BYTES)
        self._identity.take_owner(pek, oca)

    def pdh_cert_export(self) -> tuple[bytes, bytes]:
        """PDH_CERT_EXPORT: the PDH (2084 bytes), and PEK, OCA, CEK in a row (6252 bytes).

        The CEK has no signature: firmware cannot give itself one. The vendor's takes its place (``cek_certificate``).
        """
        self._platform(*_UP)
        return self._identity.pdh_certificate(), self._identity.chain()

    def df_flush(self) -> None:
        """DF_FLUSH: identifiers of former guests can be used again."""
        self._platform(*_UP)
        self._asids.flush()

    def download_firmware(self, api: tuple[int, int], build: int) -> None:
        """DOWNLOAD_FIRMWARE: run other firmware; older is refused."""
        self._platform(PlatformState.UNINIT)
        older = (*api, build) < (*self.api, self.build)
        require(not older, SevStatus.BAD_VERSION, f"firmware {api} build {build} is older than what runs")
        self.api, self.build = api, build
        self._identity.api = api

    # Guest commands, section 6

    def launch_start(
        self, policy: bytes, *, certificate: bytes | None = None, session: bytes | None = None, share: int = 0
    ) -> int:
        """LAUNCH_START: give the handle. Without ``certificate`` nobody shares secrets with the guest.

        ``share``: handle of a guest whose memory key is to be used, if its policy allows.
        """
        self._platform(*_UP)
        _length("policy", policy, 4)
        keys = None
        if certificate is not None:
            _length("session", session or b"", SESSION.size)
            _length("dh certificate", certificate, _CERTIFICATE_BYTES)
            keys = self._open(certificate, session or b"", policy)
        vek = self._random(16) if share == 0 else self._shared_key(share, policy)
        flags = int.from_bytes(policy[:2], "little")
        require(
            self.es or not flags & GuestPolicy.ES, SevStatus.UNSUPPORTED, "SEV-ES was not enabled at INIT"
        )
        handle = next((one for one in range(1, MAX_GUESTS + 1) if one not in self._guests), None)
        require(handle is not None, SevStatus.RESOURCE_LIMIT, f"{MAX_GUESTS} guests exist already")
        assert handle is not None  # noqa: S101 -- required above
        self._guests[handle] = SevGuest(handle=handle, policy=policy, keys=keys, vek=vek)
        self.state = PlatformState.WORKING
        return handle

    def activate(self, handle: int, asid: int) -> None:
        """ACTIVATE: give the guest the identifier under which its memory is encrypted."""
        guest = self._guest(handle)
        self._asids.check(asid)
        require(guest.asid is None, SevStatus.ACTIVE, f"guest {handle} has asid {guest.asid}")
        self._asids.assign(asid, handle)
        guest.asid = asid

    def deactivate(self, handle: int) -> None:
        """DEACTIVATE: take it away."""
        guest = self._active(handle)
        assert guest.asid is not None  # noqa: S101 -- it is active
        self._asids.release(guest.asid, used=guest.state is GuestState.RUNNING)
        guest.asid = None

    def decommission(self, handle: int) -> None:
        """DECOMMISSION: forget an inactive guest and its keys."""
        guest = self._guest(handle)
        require(guest.asid is None, SevStatus.ACTIVE, f"guest {handle} has asid {guest.asid}")
        del self._guests[handle]
        if not self._guests:
            self.state = PlatformState.INIT

    def guest_status(self, handle: int) -> dict[str, Value]:
        """GUEST_STATUS; of a guest that does not exist, that it is not initialised."""
        self._platform(*_UP)
        guest = self._guests.get(handle)
        if guest is None:
            return {"policy": b"", "asid": 0, "state": int(GuestState.UNINIT)}
        return {"policy": guest.policy, "asid": guest.asid or 0, "state": int(guest.state)}

    def launch_update_data(self, handle: int, address: int, data: bytes) -> None:
        """LAUNCH_UPDATE_DATA: measure and encrypt; address and length are multiples of 16."""
        self._update(handle, address, data)

    def launch_update_vmsa(self, handle: int, vmsa: bytes) -> None:
        """LAUNCH_UPDATE_VMSA: measure and encrypt a processor's state (4096 bytes) of an SEV-ES guest."""
        _length("vmsa", vmsa, VMSA_BYTES)
        guest = self._guest(handle, GuestState.LUPDATE)
        require(bool(guest.flags & GuestPolicy.ES), SevStatus.UNSUPPORTED, "the guest is none of SEV-ES")
        self._active(handle)
        guest.digest.update(vmsa)
        guest.vmsas.append(vmsa)

    def launch_measure(self, handle: int) -> bytes:
        """LAUNCH_MEASURE: give MEASURE and MNONCE (48 bytes); nothing can be added to the guest any more."""
        guest = self._guest(handle, GuestState.LUPDATE)
        nonce = self._random(16)
        digest = guest.digest.digest()
        if "sev-wrong-digest" in self._faults:
            digest = hashlib.sha256(digest).digest()
        api = (self.api[0], self.api[1] + 1) if "sev-wrong-api" in self._faults else self.api
        policy = bytes(4) if "sev-wrong-policy" in self._faults else guest.policy
        said = _MEASURE + bytes((*api, self.build)) + policy + digest + nonce
        guest.measure = _mac(self._tik(guest), said)
        guest.state = GuestState.LSECRET
        return guest.measure + nonce

    def launch_secret(
        self, handle: int, *, header: bytes, payload: bytes, address: int, size: int | None = None
    ) -> None:
        """LAUNCH_SECRET: decrypt a packet that was made for this very launch into the guest's memory."""
        guest = self._guest(handle)
        size = len(payload) if size is None else size
        require(address % 16 == 0, SevStatus.INVALID_ADDRESS, f"address {address:#x} is no multiple of 16")
        _length("header", header, PACKET.size)
        fits = 0 < size <= MAX_SECRET_BYTES and size % 16 == 0 and size == len(payload)
        require(fits, SevStatus.INVALID_LENGTH, f"secret has {len(payload)} bytes for {size} of the guest")
        self._guest(handle, GuestState.LSECRET)
        self._active(handle)
        fields = PACKET.split(header)
        sizes = size.to_bytes(4, "little") + len(payload).to_bytes(4, "little")
        said = _SECRET + fields["flags"] + fields["iv"] + sizes + payload + guest.measure
        _authentic("packet", _mac(self._tik(guest), said), fields["mac"])
        compressed = bool(fields["flags"][0] & 1)
        require(not compressed, SevStatus.UNSUPPORTED, "the packet is compressed")
        assert guest.keys is not None  # noqa: S101 -- its TIK was used above
        guest.memory.write(address, _aes_ctr(guest.keys.tek, fields["iv"], payload))

    def launch_finish(self, handle: int) -> None:
        """LAUNCH_FINISH: the guest may run, and the session's keys are forgotten."""
        guest = self._guest(handle, GuestState.LSECRET)
        guest.keys = None
        guest.state = GuestState.RUNNING

    def dbg_decrypt(self, handle: int, address: int, size: int) -> bytes:
        """DBG_DECRYPT: read the guest's memory, if its policy allows."""
        return self._debugged(handle).memory.read(address, size)

    def dbg_encrypt(self, handle: int, address: int, data: bytes) -> None:
        """DBG_ENCRYPT: write the guest's memory, if its policy allows."""
        self._debugged(handle).memory.write(address, data)

    # Not commands

    def running(self, handle: int) -> SevGuest:
        """Give a guest that was launched, to the machine that runs it."""
        return self._guest(handle, GuestState.RUNNING)

    def guest_is_es(self, handle: int) -> bool:
        """Whether a guest's policy asks for SEV-ES."""
        return bool(self._guest(handle).flags & GuestPolicy.ES)

    def free_asid(self) -> int:
        """Give an identifier that can be activated; flushes when only used ones are left."""
        asid = self._asids.free()
        if asid is None:
            self._asids.flush()
            asid = self._asids.free()
        require(asid is not None, SevStatus.RESOURCE_LIMIT, "no asid is free")
        assert asid is not None  # noqa: S101 -- required above
        return asid

    def _platform(self, *states: PlatformState) -> None:
        wanted = " or ".join(state.name for state in states)
        require(
            self.state in states,
            SevStatus.INVALID_PLATFORM_STATE,
            f"platform is {self.state.name}, expected {wanted}",
        )

    def _guest(self, handle: int, state: GuestState | None = None) -> SevGuest:
        self._platform(PlatformState.WORKING)
        guest = self._guests.get(handle)
        require(guest is not None, SevStatus.INVALID_GUEST, f"no guest has handle {handle}")
        assert guest is not None  # noqa: S101 -- required above
        if state is not None:
            require(
                guest.state is state,
                SevStatus.INVALID_GUEST_STATE,
                f"guest {handle} is {guest.state.name}, expected {state.name}",
            )
        return guest

    def _active(self, handle: int) -> SevGuest:
        guest = self._guest(handle)
        require(guest.asid is not None, SevStatus.INACTIVE, f"guest {handle} has no asid")
        return guest

    def _debugged(self, handle: int) -> SevGuest:
        guest = self._active(handle)
        refused = bool(guest.flags & GuestPolicy.NODBG)
        require(not refused, SevStatus.POLICY_FAILURE, f"guest {handle} forbids debugging")
        return guest

    def _update(self, handle: int, address: int, data: bytes) -> None:
        guest = self._guest(handle, GuestState.LUPDATE)
        self._active(handle)
        require(address % 16 == 0, SevStatus.INVALID_ADDRESS, f"address {address:#x} is no multiple of 16")
        whole = len(data) > 0 and len(data) % 16 == 0
        require(whole, SevStatus.INVALID_LENGTH, f"{len(data)} bytes are no multiple of 16")
        guest.memory.write(address, data)
        guest.digest.update(data)

    def _tik(self, guest: SevGuest) -> bytes:
        """The integrity key; of a guest without an owner, one that nobody knows."""
        if guest.keys is None:
            guest.keys = SessionKeys(tek=self._random(16), tik=self._random(16))
        return guest.keys.tik

    def _shared_key(self, handle: int, policy: bytes) -> bytes:
        other = self._guests.get(handle)
        require(other is not None, SevStatus.INVALID_GUEST, f"no guest has handle {handle}")
        assert other is not None  # noqa: S101 -- required above
        allowed = other.policy == policy and not other.flags & GuestPolicy.NOKS
        require(
            allowed, SevStatus.POLICY_FAILURE, f"guest {handle} shares its key with nobody, or not with this"
        )
        return other.vek

    def _open(self, certificate: bytes, session: bytes, policy: bytes) -> SessionKeys:
        """Derive the session's keys as the owner did, and check who made them and for which policy (2.2.2)."""
        owner = _agreement_key(certificate)
        pdh = self._identity.pdh
        require(
            owner.curve.name == pdh.curve.name,
            SevStatus.INVALID_CERTIFICATE,
            f"key is on {owner.curve.name}, expected {pdh.curve.name}",
        )
        fields = SESSION.split(session)
        master = _derive(pdh.exchange(ec.ECDH(), owner), "sev-master-secret", fields["nonce"])
        kek, kik = _derive(master, "sev-kek"), _derive(master, "sev-kik")
        _authentic("wrapped keys", _mac(kik, fields["wrap_tk"]), fields["wrap_mac"])
        unwrapped = _aes_ctr(kek, fields["wrap_iv"], fields["wrap_tk"])
        keys = SessionKeys(tek=unwrapped[:16], tik=unwrapped[16:])
        _authentic("policy", _mac(keys.tik, policy), fields["policy_mac"])
        require(
            (policy[2], policy[3]) <= self.api,
            SevStatus.POLICY_FAILURE,
            f"policy wants api {policy[2]}.{policy[3]}, this is {self.api[0]}.{self.api[1]}",
        )
        reserved = int.from_bytes(policy[:2], "little") & ~_POLICY_BITS
        require(not reserved, SevStatus.POLICY_FAILURE, f"policy has the reserved bits {reserved:#x}")
        return keys


def _installed(saved: Value | None, first: tuple[int, int, int]) -> tuple[tuple[int, int], int]:
    """The firmware that was installed last: API version and build."""
    if not isinstance(saved, list) or len(saved) != 3:
        return first[:2], first[2]
    major, minor, build = (part if isinstance(part, int) else 0 for part in saved)
    return (major, minor), build


def _length(name: str, data: bytes, size: int) -> None:
    require(len(data) == size, SevStatus.INVALID_LENGTH, f"{name} has {len(data)} bytes, expected {size}")


def _authentic(name: str, expected: bytes, found: bytes) -> None:
    genuine = hmac.compare_digest(expected, found)
    require(genuine, SevStatus.BAD_MEASUREMENT, f"the authentication code of the {name} does not hold")


def _agreement_key(certificate: bytes) -> ec.EllipticCurvePublicKey:
    owner = parsed("dh certificate", certificate)
    agrees = owner.usage is Usage.PDH and owner.algorithm in (Algorithm.ECDH_SHA256, Algorithm.ECDH_SHA384)
    require(
        agrees,
        SevStatus.INVALID_CERTIFICATE,
        f"dh certificate is {owner.usage.name} {owner.algorithm.name}, expected PDH ECDH",
    )
    return owner.key
