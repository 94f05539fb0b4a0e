"""EMULATED architectural enclaves of Intel's: the PCE and the quoting enclaves for enclaves and for TDs.

Each is an enclave of the platform's processor: it is built and started by the same instructions as any other, checks
reports with its own report key, and has its keys from EGETKEY. Source: Intel, "SGX DCAP ECDSA Orientation Guide".
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enarx.attest.dcap import BodyType, CertificationType
from enarx.attest.dcap._enclave import ENCLAVE_REPORT
from enarx.attest.dcap._quote import INTEL_QE_VENDOR_ID
from enarx.attest.measure import Page, PageType, Permission, Sigstruct, build_sigstruct, mrenclave
from enarx.attest.tdx._body import TD_REPORT_1_0, TD_REPORT_1_5
from enarx_emulator.errors import EmulatorError
from enarx_emulator.intel import quote
from enarx_emulator.intel._recovery import ENCLAVES
from enarx_emulator.intel._structures import (
    KEY_REQUEST,
    REPORT_BYTES,
    REPORT_MAC,
    TD_INFO,
    TD_INFO_AT,
    TD_REPORT_BYTES,
    TEE_TCB_INFO,
    fill,
)
from enarx_emulator.intel.documents import sign
from enarx_emulator.intel.pck import point
from enarx_emulator.intel.processor import PCE_ID, cmac, pck_key, ppid_of
from enarx_emulator.intel.sgx import CHUNK_BYTES, PAGE_BYTES, Flag, KeyName, KeyPolicy, SgxCpu, attributes
from enarx_emulator.intel.status import SgxError, SgxStatus
from enarx_emulator.intel.tdx import verify_report_mac
from enarx_emulator.intel.vendor import PCE_KEY_MASK, PCE_PROD_ID
from enarx_emulator.seed import Seed

AUTH_DATA: Final = bytes(range(32))
"""What most real quotes have here; some have zeros."""
SIGNED_ON: Final = 0x20240313
_BODY: Final = slice(0, ENCLAVE_REPORT.size)
_EXACT: Final = b"\xff" * 16
_QE_FLAGS: Final = Flag.MODE64 | Flag.PROVISION_KEY


def load(
    cpu: SgxCpu,
    image: bytes,
    key: rsa.RSAPrivateKey,
    *,
    flags: int = Flag.MODE64,
    isv_prod_id: int = 0,
    isv_svn: int = 0,
) -> int:
    """Start an enclave of one's own: ``image`` as pages that may be read and run, signed here; give its handle."""
    pages = [
        Page(
            offset=at,
            page_type=PageType.REG,
            permissions=Permission.R | Permission.X,
            contents=image[at : at + PAGE_BYTES].ljust(PAGE_BYTES, b"\0"),
        )
        for at in range(0, max(len(image), 1), PAGE_BYTES)
    ]
    size = max(2 * PAGE_BYTES, 1 << (len(pages) * PAGE_BYTES - 1).bit_length())
    signed = Sigstruct(
        vendor=0x8086,
        date=SIGNED_ON,
        attributes=attributes(flags),
        attributes_mask=_EXACT,
        enclave_hash=mrenclave(size=size, pages=pages),
        isv_prod_id=isv_prod_id,
        isv_svn=isv_svn,
    )
    handle = cpu.ecreate(size=size, attributes=attributes(flags))
    add_pages(cpu, handle, pages)
    cpu.einit(handle, build_sigstruct(signed, key))
    return handle


def add_pages(cpu: SgxCpu, handle: int, pages: list[Page]) -> None:
    """EADD pages and EEXTEND all of those that are measured."""
    for page in pages:
        cpu.eadd(
            handle,
            offset=page.offset,
            contents=page.contents,
            page_type=page.page_type,
            permissions=page.permissions,
        )
        if page.measured:
            for at in range(page.offset, page.offset + PAGE_BYTES, CHUNK_BYTES):
                cpu.eextend(handle, offset=at)


class _Enclave:
    """An enclave with the code that it would run."""

    def __init__(self, cpu: SgxCpu, handle: int) -> None:
        self._cpu = cpu
        self._handle = handle

    @property
    def target_info(self) -> bytes:
        """What a report must be made for so that this enclave can check it (512 bytes)."""
        return self._cpu.target_info(self._handle)

    def checked(self, report: bytes) -> bytes:
        """Give the body of a REPORT that the processor made for this enclave. Raises ``SgxError``."""
        if len(report) != REPORT_BYTES:
            raise SgxError(
                SgxStatus.GENERAL_PROTECTION, f"report has {len(report)} bytes, expected {REPORT_BYTES}"
            )
        body, key_id, mac = report[_BODY], report[384:416], report[416:]
        key = self._cpu.egetkey(
            self._handle, fill(KEY_REQUEST, {"key_name": KeyName.REPORT, "key_id": key_id})
        )
        if not hmac.compare_digest(mac, cmac(key, body)):
            raise SgxError(SgxStatus.SGX_MAC_COMPARE_FAIL, "the report was not made for this enclave here")
        return body

    def key(self, name: KeyName, **wanted: int | bytes) -> bytes:
        return self._cpu.egetkey(
            self._handle,
            fill(KEY_REQUEST, {"key_name": name, "attributes_mask": PCE_KEY_MASK, **wanted}),
        )

    def report(self, target_info: bytes, report_data: bytes) -> bytes:
        return self._cpu.ereport(self._handle, target_info=target_info, report_data=report_data)


class Pce(_Enclave):
    """The provisioning certification enclave: it alone has the platform's key, and signs for quoting enclaves."""

    def __init__(self, cpu: SgxCpu, key: rsa.RSAPrivateKey) -> None:
        """``key``: of Intel's enclaves."""
        svn = cpu.processor.pce_svn
        handle = load(cpu, b"EMULATED PCE", key, flags=_QE_FLAGS, isv_prod_id=PCE_PROD_ID, isv_svn=svn)
        super().__init__(cpu, handle)

    @property
    def ppid(self) -> bytes:
        """The platform's name (16 bytes)."""
        return ppid_of(self.key(KeyName.PROVISION))

    def certify(self, report: bytes, *, cpu_svn: bytes, pce_svn: int) -> bytes:
        """Sign the report of a quoting enclave with the PCK of these versions (64 bytes). Raises ``SgxError``."""
        body = self.checked(report)
        if not body[48] & Flag.PROVISION_KEY:
            raise SgxError(
                SgxStatus.SGX_INVALID_ATTRIBUTE, "only enclaves with the provisioning key are certified"
            )
        provisioning = self.key(KeyName.PROVISION, cpu_svn=cpu_svn, isv_svn=pce_svn)
        return sign(pck_key(provisioning), body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certification:
    """How the platform's key is known to verifiers: what the host's quote provider gives to the quoting enclave."""

    kind: CertificationType
    data: bytes

    @classmethod
    def chain(cls, pem: bytes) -> Certification:
        """By its certificates."""
        return cls(kind=CertificationType.PCK_CHAIN, data=pem)

    @classmethod
    def ppid(cls, ppid: bytes, *, cpu_svn: bytes, pce_svn: int) -> Certification:
        """By name alone, so that the verifier has to find the certificate."""
        data = ppid + cpu_svn + pce_svn.to_bytes(2, "little") + PCE_ID
        return cls(kind=CertificationType.PPID_PLAIN, data=data)


class _QuotingEnclave(_Enclave):
    """What both quoting enclaves do: an attestation key of their own, certified by the PCE, that signs quotes."""

    kind: str
    """Which of ``ENCLAVES``."""

    def __init__(
        self,
        cpu: SgxCpu,
        pce: Pce,
        key: rsa.RSAPrivateKey,
        certification: Certification,
        *,
        faults: frozenset[str] = frozenset(),
    ) -> None:
        """``key``: of Intel's enclaves, or of somebody else's."""
        product, svn = ENCLAVES[self.kind]
        flags = _QE_FLAGS | (Flag.DEBUG if "intel-qe-debug" in faults else 0)
        if "intel-qe-other-product" in faults:
            product = 0x99
        handle = load(
            cpu, f"EMULATED {self.kind}".encode(), key, flags=flags, isv_prod_id=product, isv_svn=svn
        )
        super().__init__(cpu, handle)
        self._faults = faults
        self._svn = svn
        self._certification = certification
        sealing = self.key(KeyName.SEAL, key_policy=KeyPolicy.MRSIGNER, isv_svn=svn)
        self._attestation_key = Seed(sealing).ec_key("attestation key", ec.SECP256R1())
        self._id = Seed(sealing).derive("qe id", 16)
        processor = cpu.processor
        self._pce_svn = processor.pce_svn
        self._public = point(self._attestation_key)
        if "intel-attestation-key-off-curve" in faults:
            self._public = b"\x01" * 64
        report_data = hashlib.sha256(self._public + AUTH_DATA).digest() + bytes(32)
        own = self.report(pce.target_info, report_data)
        signature = pce.certify(own, cpu_svn=processor.cpu_svn, pce_svn=processor.pce_svn)
        body = own[_BODY]
        if "intel-qe-report-other-pck" in faults:
            signature = sign(Seed(sealing).ec_key("stranger", ec.SECP256R1()), body)
        self._certified = quote.certified(
            body, signature, AUTH_DATA, certification.data, kind=certification.kind
        )
        if "intel-attestation-key-uncertified" in faults:
            self._attestation_key = Seed(sealing).ec_key("another attestation key", ec.SECP256R1())
            self._public = point(self._attestation_key)

    def _quote(self, version: int, body_type: BodyType, body: bytes) -> bytes:
        """Sign a body that was checked."""
        faults = self._faults
        own_versions = {"qe_svn": self._svn, "pce_svn": self._pce_svn} if version == 3 else {}
        head = quote.header(
            6 if "intel-quote-version" in faults else version,
            quote.tee_type_of(body_type),
            key_type=3 if "intel-quote-key-type" in faults else quote.ECDSA_P256,
            vendor_id=bytes(16) if "intel-quote-vendor-id" in faults else INTEL_QE_VENDOR_ID,
            user_data=self._id,
            **own_versions,
        )
        signed = quote.signed_part(head, body, body_type=body_type)
        signature = sign(self._attestation_key, signed)
        if "intel-quote-changed" in faults:
            at = len(signed) - len(body) + 200
            signed = signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :]
        if "intel-quote-signature-zero" in faults:
            signature = bytes(64)
        made = quote.quote(signed, signature, self._public, self._certified)
        if "intel-quote-truncated" in faults:
            return made[:-100]
        return made + b"more" if "intel-quote-trailing" in faults else made


class Qe(_QuotingEnclave):
    """The quoting enclave for enclaves."""

    kind = "QE"

    def quote(self, report: bytes, *, version: int = 3) -> bytes:
        """Quote a REPORT that was made for this enclave. Raises ``SgxError``, ``EmulatorError`` for the version."""
        if not 3 <= version <= 5:
            raise EmulatorError(f"version is {version}, quotes of enclaves have 3 to 5")
        return self._quote(version, BodyType.SGX, self.checked(report))


class TdQe(_QuotingEnclave):
    """The quoting enclave for trust domains."""

    kind = "TD_QE"

    def quote(self, report: bytes, *, version: int = 4, body_type: BodyType = BodyType.TD_1_0) -> bytes:
        """Quote a TDREPORT_STRUCT of this platform. Raises ``TdxError``, ``SgxError``, ``EmulatorError``."""
        if body_type is BodyType.SGX or (version, body_type) not in {
            (4, BodyType.TD_1_0),
            (5, BodyType.TD_1_0),
            (5, BodyType.TD_1_5),
        }:
            raise EmulatorError(f"there are no quotes of version {version} with bodies of type {body_type}")
        return self._quote(version, body_type, td_body(self._verified(report), body_type))

    def _verified(self, report: bytes) -> bytes:
        """EVERIFYREPORT2, and that the parts are those that the MAC covers."""
        if len(report) != TD_REPORT_BYTES:
            raise SgxError(
                SgxStatus.GENERAL_PROTECTION, f"report has {len(report)} bytes, expected {TD_REPORT_BYTES}"
            )
        verify_report_mac(self._cpu.processor, report[: REPORT_MAC.size])
        mac = REPORT_MAC.split(report[: REPORT_MAC.size])
        info, tcb = report[TD_INFO_AT:], report[REPORT_MAC.size : REPORT_MAC.size + TEE_TCB_INFO.size]
        for part, digest in ((info, mac["tee_info_hash"]), (tcb, mac["tee_tcb_info_hash"])):
            if hashlib.sha384(part).digest() != digest:
                raise SgxError(SgxStatus.SGX_INVALID_REPORTMACSTRUCT, "the report is not what its MAC covers")
        return report


def td_body(report: bytes, body_type: BodyType) -> bytes:
    """Give the body of a quote from a TDREPORT_STRUCT that was verified."""
    mac = REPORT_MAC.split(report[: REPORT_MAC.size])
    tcb = TEE_TCB_INFO.split(report[REPORT_MAC.size : REPORT_MAC.size + TEE_TCB_INFO.size])
    values = {**tcb, **TD_INFO.split(report[TD_INFO_AT:]), "report_data": mac["report_data"]}
    layout = TD_REPORT_1_5 if body_type is BodyType.TD_1_5 else TD_REPORT_1_0
    return fill(layout, {name: values[name] for name in layout.fields})
