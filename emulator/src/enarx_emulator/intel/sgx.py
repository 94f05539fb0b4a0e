"""EMULATED SGX: the instructions that build, start, report and key enclaves.

What the processor checks is checked in its order and answered by its codes. Left out, because nothing that enclaves
prove depends on it: address translation, paging of the EPC (EWB and the like), dynamic memory, running code.
Source: Intel SDM volume 3D, chapters on SGX instructions and data structures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Final

from enarx.attest.dcap._enclave import ENCLAVE_REPORT
from enarx.attest.measure import PageType, Permission, Sigstruct, SigstructRejected, verify_sigstruct
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Layout
from enarx_emulator.intel._structures import KEY_REQUEST, TARGET_INFO, fill, number
from enarx_emulator.intel.processor import KeyDependencies, Processor, cmac
from enarx_emulator.intel.status import SgxError, SgxStatus

PAGE_BYTES: Final = 4096
CHUNK_BYTES: Final = 256
"""What one EEXTEND measures."""
EPC_PAGES: Final = 1 << 18
"""1 GiB of enclave memory."""
MAX_ENCLAVE_BYTES: Final = 1 << 56
_BLOCK: Final = 64
_TCS_RESERVED: Final = 88
"""From here on a TCS must be zero."""


class Flag(IntFlag):
    """ATTRIBUTES.FLAGS."""

    INIT = 1 << 0
    DEBUG = 1 << 1
    MODE64 = 1 << 2
    PROVISION_KEY = 1 << 4
    EINITTOKEN_KEY = 1 << 5
    KSS = 1 << 7
    AEX_NOTIFY = 1 << 10


_SUPPORTED: Final = int(sum(Flag)) & ~Flag.INIT.value
XFRM: Final = 0x3
"""x87 and SSE, which every enclave may use."""
XFRM_SUPPORTED: Final = 0xE7
"""Those, AVX and AVX-512."""
_MISC_SUPPORTED: Final = 1
"""EXINFO."""


class KeyName(IntEnum):
    """KEYREQUEST.KEYNAME."""

    EINITTOKEN = 0
    PROVISION = 1
    PROVISION_SEAL = 2
    REPORT = 3
    SEAL = 4


class KeyPolicy(IntFlag):
    """KEYREQUEST.KEYPOLICY."""

    MRENCLAVE = 1 << 0
    MRSIGNER = 1 << 1
    NOISVPRODID = 1 << 2
    CONFIGID = 1 << 3
    ISVFAMILYID = 1 << 4
    ISVEXTPRODID = 1 << 5


_KSS_POLICY: Final = 0x3C
_KEY_POLICY: Final = 0x3F
_ALWAYS_SEALED: Final = (Flag.INIT | Flag.DEBUG).value


@dataclass(slots=True, kw_only=True)
class _Secs:
    """An enclave's control structure, and the pages that wait to be measured."""

    size: int
    attributes: int
    """FLAGS in the low half, XFRM in the high one."""
    misc_select: int
    config_id: bytes
    config_svn: int
    hash: hashlib._Hash
    pages: dict[int, bytes] = field(default_factory=dict)
    identity: Sigstruct | None = None
    mrenclave: bytes = b""

    @property
    def flags(self) -> int:
        return self.attributes & (1 << 64) - 1

    def identified(self) -> Sigstruct:
        if self.identity is None:
            raise SgxError(SgxStatus.GENERAL_PROTECTION, "the enclave was not initialised")
        return self.identity


def attributes(flags: int = Flag.MODE64, xfrm: int = XFRM_SUPPORTED) -> bytes:
    """Give ATTRIBUTES (16 bytes)."""
    return flags.to_bytes(8, "little") + xfrm.to_bytes(8, "little")


def key_request(name: KeyName, processor: Processor, **fields: int | bytes) -> bytes:
    """Give a KEYREQUEST (512 bytes) for the processor's security versions and all sealable attributes."""
    mask = attributes((1 << 64) - 1 & ~(Flag.AEX_NOTIFY.value | 0xFF00), 0)
    return fill(
        KEY_REQUEST, {"key_name": name, "cpu_svn": processor.cpu_svn, "attributes_mask": mask, **fields}
    )


class SgxCpu:
    """The enclaves of one platform, by handle (the address of the SECS page). Raises ``SgxError`` throughout."""

    def __init__(self, processor: Processor, *, epc_pages: int = EPC_PAGES) -> None:
        self.processor = processor
        self._free = epc_pages
        self._enclaves: dict[int, _Secs] = {}
        self._next = 1

    @property
    def free_pages(self) -> int:
        """Pages of the EPC that hold nothing."""
        return self._free

    def ecreate(
        self,
        *,
        size: int,
        ssa_frame_pages: int = 1,
        attributes: bytes,
        misc_select: int = 0,
        config_id: bytes = bytes(64),
        config_svn: int = 0,
    ) -> int:
        """Begin an enclave of ``size`` bytes; give its handle."""
        if len(attributes) != 16 or len(config_id) != 64 or not 0 <= config_svn < 1 << 16:
            raise _protection("the SECS is not in its form")
        wanted = number(attributes)
        flags, xfrm = wanted & (1 << 64) - 1, wanted >> 64
        if size < 2 * PAGE_BYTES or size & (size - 1) or size > MAX_ENCLAVE_BYTES:
            raise _protection(f"size {size:#x} is no power of two of at least two pages")
        if not 1 <= ssa_frame_pages < 1 << 32:
            raise _protection(f"ssaframesize is {ssa_frame_pages}, expected at least 1")
        if flags & ~_SUPPORTED:
            raise _protection(f"attributes have {flags & ~_SUPPORTED:#x}, which cannot be asked for")
        if xfrm & XFRM != XFRM or xfrm & ~XFRM_SUPPORTED:
            raise _protection(f"xfrm is {xfrm:#x}, of {XFRM_SUPPORTED:#x} and with {XFRM:#x}")
        if misc_select & ~_MISC_SUPPORTED:
            raise _protection(f"miscselect is {misc_select:#x}, only {_MISC_SUPPORTED:#x} is supported")
        if not flags & Flag.KSS and (any(config_id) or config_svn):
            raise _protection("configid and configsvn need key separation and sharing (KSS)")
        self._take_page()
        block = b"ECREATE\0" + ssa_frame_pages.to_bytes(4, "little") + size.to_bytes(8, "little")
        secs = _Secs(
            size=size,
            attributes=wanted,
            misc_select=misc_select,
            config_id=config_id,
            config_svn=config_svn,
            hash=hashlib.sha256(block.ljust(_BLOCK, b"\0")),
        )
        handle, self._next = self._next, self._next + 1
        self._enclaves[handle] = secs
        return handle

    def eadd(
        self,
        handle: int,
        *,
        offset: int,
        contents: bytes,
        page_type: int = PageType.REG,
        permissions: int = Permission.RWX,
    ) -> None:
        """Add a page at ``offset``. The permissions of a TCS are none, whatever is asked."""
        secs = self._building(handle)
        if len(contents) != PAGE_BYTES:
            raise _protection(f"page has {len(contents)} bytes, expected {PAGE_BYTES}")
        if page_type not in (PageType.TCS, PageType.REG) or not 0 <= permissions <= Permission.RWX:
            raise _protection(f"secinfo has page type {page_type} and permissions {permissions:#x}")
        if offset % PAGE_BYTES or not 0 <= offset < secs.size:
            raise _protection(f"offset {offset:#x} is no page of the enclave")
        if page_type == PageType.TCS:
            permissions = Permission.NONE
            if any(contents[_TCS_RESERVED:]):
                raise _protection("reserved bytes of the tcs are not zero")
        elif permissions & Permission.W and not permissions & Permission.R:
            raise _protection("a page is writable and not readable")
        if offset in secs.pages:
            raise SgxError(SgxStatus.PAGE_FAULT, f"there is a page at {offset:#x} already")
        self._take_page()
        secs.pages[offset] = contents
        flags = page_type << 8 | permissions
        block = b"EADD\0\0\0\0" + offset.to_bytes(8, "little") + flags.to_bytes(8, "little")
        secs.hash.update(block.ljust(_BLOCK, b"\0"))

    def eextend(self, handle: int, *, offset: int) -> None:
        """Measure 256 bytes of a page that was added."""
        secs = self._building(handle)
        if offset % CHUNK_BYTES:
            raise _protection(f"offset {offset:#x} is no multiple of {CHUNK_BYTES}")
        page = secs.pages.get(offset - offset % PAGE_BYTES)
        if page is None:
            raise SgxError(SgxStatus.PAGE_FAULT, f"there is no page at {offset:#x}")
        at = offset % PAGE_BYTES
        secs.hash.update((b"EEXTEND\0" + offset.to_bytes(8, "little")).ljust(_BLOCK, b"\0"))
        secs.hash.update(page[at : at + CHUNK_BYTES])

    def einit(self, handle: int, sigstruct: bytes) -> bytes:
        """Check what its author signed and make the enclave runnable; give MRENCLAVE (32 bytes)."""
        secs = self._building(handle)
        try:
            signed = verify_sigstruct(sigstruct)
        except SigstructRejected as error:
            raise SgxError(SgxStatus.SGX_INVALID_SIGNATURE, str(error)) from None
        except Malformed as error:
            raise SgxError(SgxStatus.SGX_INVALID_SIG_STRUCT, str(error)) from None
        if not secs.flags & Flag.KSS and any(signed.isv_family_id + signed.isv_ext_prod_id):
            raise SgxError(SgxStatus.SGX_INVALID_SIG_STRUCT, "family and extended product need KSS")
        measured = secs.hash.digest()
        if signed.enclave_hash != measured:
            raise SgxError(
                SgxStatus.SGX_INVALID_MEASUREMENT,
                f"the enclave measures {measured.hex()}, signed is {signed.enclave_hash.hex()}",
            )
        mask = number(signed.attributes_mask)
        if secs.attributes & mask != number(signed.attributes) & mask:
            raise SgxError(SgxStatus.SGX_INVALID_ATTRIBUTE, "attributes are not those that were signed")
        if (secs.misc_select ^ signed.miscselect) & signed.miscmask:
            raise SgxError(SgxStatus.SGX_INVALID_ATTRIBUTE, "miscselect is not the one that was signed")
        secs.identity, secs.mrenclave = signed, measured
        secs.attributes |= Flag.INIT
        secs.pages = dict.fromkeys(secs.pages, b"")
        return measured

    def eremove(self, handle: int) -> None:
        """Take the enclave apart and free its pages."""
        secs = self._secs(handle)
        self._free += len(secs.pages) + 1
        del self._enclaves[handle]

    def target_info(self, handle: int) -> bytes:
        """What an enclave says of itself to whoever makes a report for it (512 bytes)."""
        secs = self._secs(handle)
        secs.identified()
        return fill(
            TARGET_INFO,
            {
                "mrenclave": secs.mrenclave,
                "attributes": secs.attributes,
                "misc_select": secs.misc_select,
                "config_svn": secs.config_svn,
                "config_id": secs.config_id,
            },
        )

    def ereport(self, handle: int, *, target_info: bytes, report_data: bytes) -> bytes:
        """Report the enclave to the one in ``target_info`` (432 bytes: body, KEYID, MAC)."""
        secs = self._secs(handle)
        signed = secs.identified()
        target = self._split(TARGET_INFO, target_info)
        if len(report_data) != 64:
            raise _protection(f"report data has {len(report_data)} bytes, expected 64")
        body = fill(
            ENCLAVE_REPORT,
            {
                "cpu_svn": self.processor.cpu_svn,
                "misc_select": secs.misc_select,
                "isv_ext_prod_id": signed.isv_ext_prod_id,
                "attributes": secs.attributes,
                "mrenclave": secs.mrenclave,
                "mrsigner": signed.mrsigner,
                "config_id": secs.config_id,
                "isv_prod_id": signed.isv_prod_id,
                "isv_svn": signed.isv_svn,
                "config_svn": secs.config_svn,
                "isv_family_id": signed.isv_family_id,
                "report_data": report_data,
            },
        )
        key_id = self.processor.report_key_id
        key = self._report_key(
            attributes=target["attributes"],
            mrenclave=target["mrenclave"],
            misc_select=number(target["misc_select"]),
            config_id=target["config_id"],
            config_svn=number(target["config_svn"]),
            key_id=key_id,
        )
        return body + key_id + cmac(key, body)

    def egetkey(self, handle: int, request: bytes) -> bytes:
        """Give one of the enclave's keys (16 bytes)."""
        secs = self._secs(handle)
        signed = secs.identified()
        wanted = self._split(KEY_REQUEST, request)
        policy, config_svn = number(wanted["key_policy"]), number(wanted["config_svn"])
        if policy & ~_KEY_POLICY:
            raise _protection(f"key policy is {policy:#x}, known are {_KEY_POLICY:#x}")
        if not secs.flags & Flag.KSS and (policy & _KSS_POLICY or config_svn):
            raise _protection("this key policy needs key separation and sharing (KSS)")
        try:
            name = KeyName(number(wanted["key_name"]))
        except ValueError:
            raise SgxError(
                SgxStatus.SGX_INVALID_KEYNAME, f"there is no key {number(wanted['key_name'])}"
            ) from None
        if name is KeyName.REPORT:
            return self._report_key(
                attributes=secs.attributes.to_bytes(16, "little"),
                mrenclave=secs.mrenclave,
                misc_select=secs.misc_select,
                config_id=secs.config_id,
                config_svn=secs.config_svn,
                key_id=wanted["key_id"],
            )
        self._check_svns(secs, name, wanted, config_svn)
        return self.processor.derive(self._dependencies(secs, signed, name, wanted))

    def _check_svns(self, secs: _Secs, name: KeyName, wanted: Mapping[str, bytes], config_svn: int) -> None:
        """Only its own and older versions of processor and enclave, and only keys that its attributes allow."""
        needed = {
            KeyName.EINITTOKEN: Flag.EINITTOKEN_KEY,
            KeyName.PROVISION: Flag.PROVISION_KEY,
            KeyName.PROVISION_SEAL: Flag.PROVISION_KEY,
        }.get(name)
        if needed is not None and not secs.flags & needed:
            raise SgxError(SgxStatus.SGX_INVALID_ATTRIBUTE, f"{name.name} needs the attribute {needed.name}")
        if not self.processor.reaches(wanted["cpu_svn"]):
            raise SgxError(SgxStatus.SGX_INVALID_CPUSVN, "cpusvn is above the processor's")
        if number(wanted["isv_svn"]) > secs.identified().isv_svn or config_svn > secs.config_svn:
            raise SgxError(SgxStatus.SGX_INVALID_ISVSVN, "isvsvn or configsvn is above the enclave's")

    def _dependencies(
        self, secs: _Secs, signed: Sigstruct, name: KeyName, wanted: Mapping[str, bytes]
    ) -> KeyDependencies:
        """What the five kinds of key depend on (SDM, table "Key derivation")."""
        mask = number(wanted["attributes_mask"])
        common = KeyDependencies(
            key_name=name,
            isv_prod_id=signed.isv_prod_id,
            isv_svn=number(wanted["isv_svn"]),
            attributes=((mask | _ALWAYS_SEALED) & secs.attributes).to_bytes(16, "little"),
            mrsigner=signed.mrsigner,
            cpu_svn=wanted["cpu_svn"],
            misc_select=secs.misc_select & number(wanted["misc_mask"]),
        )
        if name is KeyName.EINITTOKEN:
            return _with(
                common,
                owner_epoch=self.processor.owner_epoch,
                key_id=wanted["key_id"],
                seal_fuses=self.processor.seal_fuses,
            )
        masked = _with(
            common,
            attributes_mask=wanted["attributes_mask"],
            misc_mask=~number(wanted["misc_mask"]) & 0xFFFFFFFF,
        )
        if name is KeyName.PROVISION:
            return masked
        policy = KeyPolicy(number(wanted["key_policy"]))
        with_config = KeyPolicy.CONFIGID in policy
        sealed = _with(
            masked,
            seal_fuses=self.processor.seal_fuses,
            key_policy=int(policy),
            isv_prod_id=0 if KeyPolicy.NOISVPRODID in policy else signed.isv_prod_id,
            isv_family_id=signed.isv_family_id if KeyPolicy.ISVFAMILYID in policy else bytes(16),
            isv_ext_prod_id=signed.isv_ext_prod_id if KeyPolicy.ISVEXTPRODID in policy else bytes(16),
            config_id=secs.config_id if with_config else bytes(64),
            config_svn=number(wanted["config_svn"]) if with_config else 0,
        )
        if name is KeyName.PROVISION_SEAL:
            return sealed
        return _with(
            sealed,
            owner_epoch=self.processor.owner_epoch,
            key_id=wanted["key_id"],
            mrenclave=secs.mrenclave if KeyPolicy.MRENCLAVE in policy else bytes(32),
            mrsigner=signed.mrsigner if KeyPolicy.MRSIGNER in policy else bytes(32),
        )

    def _report_key(self, **target: bytes | int) -> bytes:
        """The key by which the enclave described knows reports made for it."""
        common = KeyDependencies(
            key_name=KeyName.REPORT,
            owner_epoch=self.processor.owner_epoch,
            seal_fuses=self.processor.seal_fuses,
            cpu_svn=self.processor.cpu_svn,
        )
        return self.processor.derive(_with(common, **target))

    def _split(self, layout: Layout, data: bytes) -> dict[str, bytes]:
        try:
            return layout.split(data)
        except Malformed as error:
            raise _protection(str(error)) from None

    def _secs(self, handle: int) -> _Secs:
        secs = self._enclaves.get(handle)
        if secs is None:
            raise SgxError(SgxStatus.PAGE_FAULT, f"{handle} is no SECS page")
        return secs

    def _building(self, handle: int) -> _Secs:
        secs = self._secs(handle)
        if secs.identity is not None:
            raise _protection("the enclave is initialised already")
        return secs

    def _take_page(self) -> None:
        if not self._free:
            raise SgxError(SgxStatus.PAGE_FAULT, "no page of the EPC is free")
        self._free -= 1


def _with(dependencies: KeyDependencies, **changes: bytes | int) -> KeyDependencies:
    values = {name: getattr(dependencies, name) for name in KeyDependencies.__slots__}
    return KeyDependencies(**{**values, **changes})


def _protection(message: str) -> SgxError:
    return SgxError(SgxStatus.GENERAL_PROTECTION, message)
