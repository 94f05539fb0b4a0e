"""SGX and TDX quotes under a root of our own: what Intel's services and a platform sign, with any mistake in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from tests.forge.pki import Cert, ec_key

from enarx.attest import Collateral, Document, Kind, TrustAnchors, Vendor
from enarx.attest.dcap._enclave import ENCLAVE_REPORT
from enarx.attest.dcap._pck import SGX_EXTENSION
from enarx.attest.dcap._quote import INTEL_QE_VENDOR_ID
from enarx.attest.tdx._body import TD_REPORT_1_0, TD_REPORT_1_5
from enarx_emulator.intel import documents, quote
from enarx_emulator.intel import pck as encoding
from enarx_emulator.intel._structures import fill
from enarx_emulator.intel.documents import sign
from enarx_emulator.intel.pck import item as item
from enarx_emulator.intel.pck import pem as pem
from enarx_emulator.intel.pck import point
from enarx_emulator.intel.pck import tlv as tlv

FMSPC = bytes.fromhex("00a06d080000")
PCE_ID = bytes(2)
PPID = bytes(range(0x10, 0x20))
COMPONENTS = bytes([3, 3, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0])
PCE_SVN = 13
TEE_TCB_SVN = bytes([6, 1, 3]) + bytes(13)
MRENCLAVE = bytes(range(1, 33))
MRSIGNER = bytes(range(33, 65))
MRTD = bytes(range(1, 49))
REPORT_DATA = bytes(range(0x80, 0xC0))
QE_MRSIGNER = bytes(range(0x21, 0x41))
AUTH_DATA = bytes(range(32))
LEVEL_DATE = "2024-03-13T00:00:00Z"

P256 = ec.SECP256R1


def intel_name(common_name: str) -> x509.Name:
    """A name as Intel writes it."""
    return encoding.intel_name(common_name, organization="Intel Corporation")


def root(**changes: Any) -> Cert:
    """The root."""
    return replace(
        Cert(name=intel_name("Intel SGX Root CA"), key=ec_key("intel root", P256), path_length=1), **changes
    )


def pck_ca(issuer: Cert | None = None, **changes: Any) -> Cert:
    """The authority of multi-package platforms."""
    made = Cert(
        name=intel_name("Intel SGX PCK Platform CA"),
        key=ec_key("pck ca", P256),
        issuer=issuer or root(),
        path_length=0,
        serial=0x2000,
    )
    return replace(made, **changes)


def pck(issuer: Cert | None = None, extension: bytes | None = None, **changes: Any) -> Cert:
    """The platform's certificate."""
    made = Cert(
        name=intel_name("Intel SGX PCK Certificate"),
        key=ec_key("pck", P256),
        issuer=issuer or pck_ca(),
        ca=False,
        crl_sign=False,
        serial=0x3000,
        extensions=[(SGX_EXTENSION, False, extension if extension is not None else sgx_extension())],
    )
    return replace(made, **changes)


def tcb_signing(issuer: Cert | None = None, **changes: Any) -> Cert:
    """The certificate that signs TCB info and identities."""
    made = Cert(
        name=intel_name("Intel SGX TCB Signing"),
        key=ec_key("tcb signing", P256),
        issuer=issuer or root(),
        ca=False,
        crl_sign=False,
        serial=0x4000,
    )
    return replace(made, **changes)


# DER


def tcb_items(
    components: bytes = COMPONENTS, pce_svn: int = PCE_SVN, cpu_svn: bytes = COMPONENTS
) -> list[bytes]:
    """The eighteen parts of the TCB."""
    return encoding.tcb_items(components, pce_svn, cpu_svn)


def sgx_items(
    *,
    fmspc: bytes = FMSPC,
    pce_id: bytes = PCE_ID,
    ppid: bytes = PPID,
    sgx_type: int = 1,
    instance: bytes | None = bytes(16),
    bits: Mapping[int, bool] | None = None,
    tcb: list[bytes] | None = None,
    **tcb_changes: Any,
) -> list[bytes]:
    """The parts of the SGX extension; without ``instance`` those of a single-package platform."""
    return encoding.sgx_items(
        fmspc=fmspc,
        pce_id=pce_id,
        ppid=ppid,
        sgx_type=sgx_type,
        tcb=tcb if tcb is not None else tcb_items(**tcb_changes),
        instance=instance,
        bits=bits if bits is not None else {1: True, 2: True, 3: True},
    )


def sgx_extension(**changes: Any) -> bytes:
    """The whole extension."""
    return tlv(0x30, *sgx_items(**changes))


# Documents


def tcb_level(
    status: str = "UpToDate",
    sgx: bytes = COMPONENTS,
    pce_svn: int = PCE_SVN,
    tdx: bytes | None = TEE_TCB_SVN,
    advisories: list[str] | None = None,
    version: int = 3,
) -> dict[str, Any]:
    """One level of a TCB info; ``tdx=None`` for SGX."""
    return documents.tcb_level(
        sgx=sgx,
        pce_svn=pce_svn,
        tdx=tdx,
        status=status,
        date=LEVEL_DATE,
        advisories=advisories,
        version=version,
    )


def svn_level(isv_svn: int, status: str = "UpToDate", advisories: list[str] | None = None) -> dict[str, Any]:
    """One level of an enclave or a module."""
    return documents.svn_level(isv_svn, status=status, date=LEVEL_DATE, advisories=advisories)


def module(id: str | None = "TDX_01", *levels: dict[str, Any], **changes: Any) -> dict[str, Any]:  # noqa: A002
    """A TDX module's identity; without ``id`` the one of version 0."""
    return {**documents.tdx_module(id=id, levels=list(levels) or [svn_level(6)]), **changes}


ISSUED = datetime(2024, 12, 20, tzinfo=UTC)
DATES = documents.validity(ISSUED)


def tcb_info(tee: str, *levels: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The body of a TCB info."""
    is_tdx = tee == "TDX"
    made = documents.tcb_info(
        tee,
        fmspc=FMSPC,
        pce_id=PCE_ID,
        evaluation_number=17,
        issued=ISSUED,
        levels=list(levels) or [tcb_level(tdx=TEE_TCB_SVN if is_tdx else None)],
        module=module(None) if is_tdx else None,
        modules=[module()] if is_tdx else (),
    )
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


def qe_identity(tee: str, *levels: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The body of a quoting enclave's identity."""
    made = documents.enclave_identity(
        "QE" if tee == "SGX" else "TD_QE",
        mrsigner=QE_MRSIGNER,
        isv_prod_id=1 if tee == "SGX" else 2,
        evaluation_number=17,
        issued=ISSUED,
        levels=list(levels) or [svn_level(4)],
    )
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


def document(name: str, body: dict[str, Any] | bytes, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    """A document as the service sends it."""
    raw = body if isinstance(body, bytes) else documents.body_bytes(body)
    return documents.document(name, raw, key or ec_key("tcb signing", P256))


# Quotes


_ENCLAVE: Mapping[str, int | bytes] = {
    "cpu_svn": COMPONENTS,
    "attributes": bytes([5]) + bytes(7) + bytes([0xE7]) + bytes(7),
    "mrenclave": MRENCLAVE,
    "mrsigner": MRSIGNER,
    "isv_prod_id": 7,
    "isv_svn": 3,
    "report_data": REPORT_DATA,
}
_TD: Mapping[str, int | bytes] = {
    "tee_tcb_svn": TEE_TCB_SVN,
    "mrseam": bytes([0x5E]) * 48,
    "td_attributes": 1 << 28,
    "xfam": 0x602E7,
    "mrtd": MRTD,
    "rtmr0": b"\xa0" * 48,
    "rtmr1": b"\xa1" * 48,
    "rtmr2": b"\xa2" * 48,
    "report_data": REPORT_DATA,
}


@dataclass(frozen=True, kw_only=True)
class Forged:
    """A quote to be made. What is ``None`` is computed as it should be."""

    version: int = 3
    tee: str = "SGX"
    body: Mapping[str, int | bytes] = field(default_factory=dict)
    body_type: int | None = None
    body_size: int | None = None
    key_type: int = 2
    tee_type: int | None = None
    vendor_id: bytes = INTEL_QE_VENDOR_ID
    raw_body: bytes | None = None
    qe: Mapping[str, int | bytes] = field(default_factory=dict)
    qe_report_data: bytes | None = None
    auth_data: bytes = AUTH_DATA
    certification_type: int = 5
    certification: bytes | None = None
    outer_type: int = 6
    chain: tuple[Cert, ...] = field(default_factory=lambda: (pck(), pck_ca(), root()))
    attestation_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec_key("attestation", P256))
    attestation_point: bytes | None = None
    qe_signer: ec.EllipticCurvePrivateKey | None = None
    signer: ec.EllipticCurvePrivateKey | None = None
    signature: bytes | None = None
    qe_signature: bytes | None = None
    unsigned_change: Mapping[int, int] = field(default_factory=dict)
    """Bytes of the signed part to be changed after signing."""
    trailing: bytes = b""

    def but(self, **changes: Any) -> Forged:
        """The same with changes."""
        return replace(self, **changes)

    @property
    def raw(self) -> bytes:
        """Make and sign it."""
        signed = bytearray(self._signed())
        signature = self.signature or sign(self.signer or self.attestation_key, bytes(signed))
        for at, bits in self.unsigned_change.items():
            signed[at] ^= bits
        key = self.attestation_point or point(self.attestation_key)
        made = quote.quote(bytes(signed), signature, key, self._certified(key), outer_kind=self.outer_type)
        return made + self.trailing

    def _signed(self) -> bytes:
        body_type = self.body_type or (1 if self.tee == "SGX" else 2)
        tee_type = self.tee_type if self.tee_type is not None else (0 if self.tee == "SGX" else 0x81)
        if self.raw_body is not None:
            body = self.raw_body
        elif self.tee == "SGX":
            body = fill(ENCLAVE_REPORT, {**_ENCLAVE, **self.body})
        else:
            late = {"tee_tcb_svn2": self.body.get("tee_tcb_svn", TEE_TCB_SVN)} if body_type == 3 else {}
            body = fill(TD_REPORT_1_5 if body_type == 3 else TD_REPORT_1_0, {**_TD, **late, **self.body})
        head = quote.header(self.version, tee_type, key_type=self.key_type, vendor_id=self.vendor_id)
        return quote.signed_part(head, body, body_type=body_type, body_size=self.body_size)

    def _certified(self, key: bytes) -> bytes:
        digest = hashlib.sha256(key + self.auth_data).digest() + bytes(32)
        defaults: dict[str, int | bytes] = {
            "cpu_svn": COMPONENTS,
            "attributes": bytes([0x15]) + bytes(7) + bytes([0xE7]) + bytes(7),
            "mrenclave": b"\xee" * 32,
            "mrsigner": QE_MRSIGNER,
            "isv_prod_id": 1 if self.tee == "SGX" else 2,
            "isv_svn": 4,
            "report_data": self.qe_report_data or digest,
        }
        report = fill(ENCLAVE_REPORT, {**defaults, **self.qe})
        leaf = self.chain[0].key
        assert isinstance(leaf, ec.EllipticCurvePrivateKey)
        signature = self.qe_signature or sign(self.qe_signer or leaf, report)
        given = (
            self.certification if self.certification is not None else pem(*(one.der for one in self.chain))
        )
        return quote.certified(report, signature, self.auth_data, given, kind=self.certification_type)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One whole presentation: quote, collateral, and the root that the verifier was told to trust."""

    quote: Forged = field(default_factory=Forged)
    info: dict[str, Any] | bytes | None = None
    identity: dict[str, Any] | bytes | None = None
    signing: Cert | None = field(default_factory=tcb_signing)
    document_key: ec.EllipticCurvePrivateKey | None = None
    identity_key: ec.EllipticCurvePrivateKey | None = None
    documents: tuple[Document, ...] | None = None
    """In place of both documents."""
    crls: tuple[bytes, ...] | None = None
    certificates: tuple[Cert, ...] = ()
    trusted: bytes | None = None

    def but(self, **changes: Any) -> Case:
        """The same with changes."""
        return replace(self, **changes)

    @property
    def collateral(self) -> Collateral:
        """What accompanies the quote."""
        tee = self.quote.tee
        info = document("tcbInfo", self.info or tcb_info(tee), self.document_key)
        identity = document("enclaveIdentity", self.identity or qe_identity(tee), self.identity_key)
        both = (Document(Kind.TCB_INFO, info), Document(Kind.QE_IDENTITY, identity))
        signing = (self.signing.der,) if self.signing else ()
        return Collateral(
            certificates=(*signing, root().der, *(one.der for one in self.certificates)),
            crls=self.crls if self.crls is not None else (root().crl(), pck_ca().crl()),
            documents=self.documents if self.documents is not None else both,
        )

    @property
    def anchors(self) -> TrustAnchors:
        """The one root."""
        return TrustAnchors.none().adding(self.trusted or root().der, name="test root", vendor=Vendor.INTEL)


def sgx(**changes: Any) -> Case:
    """A healthy SGX case with changes to its quote."""
    return Case(quote=Forged(**changes))


def tdx(version: int = 4, **changes: Any) -> Case:
    """A healthy TDX case with changes to its quote."""
    return Case(quote=Forged(version=version, tee="TDX", **changes))
