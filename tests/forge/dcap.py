"""SGX and TDX quotes under a root of our own: what Intel's services and a platform sign, with any mistake in it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from tests.forge.pki import Cert, ec_key

from enarx.attest import Collateral, Document, Kind, TrustAnchors, Vendor
from enarx.attest.dcap._enclave import ENCLAVE_REPORT
from enarx.attest.dcap._pck import SGX_EXTENSION
from enarx.attest.dcap._quote import INTEL_QE_VENDOR_ID
from enarx.attest.tdx._body import TD_REPORT_1_0, TD_REPORT_1_5
from enarx.tcb.wire import Layout

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

P256 = ec.SECP256R1


def intel_name(common_name: str) -> x509.Name:
    """A name as Intel writes it."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Intel Corporation"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        ]
    )


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


def tlv(tag: int, *contents: bytes) -> bytes:
    """One element of DER."""
    value = b"".join(contents)
    size = len(value)
    if size < 0x80:
        return bytes([tag, size]) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + value


def der_integer(value: int) -> bytes:
    """INTEGER."""
    return tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def item(suffix: bytes, value: bytes) -> bytes:
    """One pair of the SGX extension: OID under 1.2.840.113741.1.13.1, and a value."""
    return tlv(0x30, tlv(6, bytes.fromhex("2a864886f84d010d01") + suffix), value)


def tcb_items(
    components: bytes = COMPONENTS, pce_svn: int = PCE_SVN, cpu_svn: bytes = COMPONENTS
) -> list[bytes]:
    """The eighteen parts of the TCB."""
    parts = [item(bytes([2, at]), der_integer(svn)) for at, svn in enumerate(components, 1)]
    return [*parts, item(b"\x02\x11", der_integer(pce_svn)), item(b"\x02\x12", tlv(4, cpu_svn))]


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
    made = [
        item(b"\x01", tlv(4, ppid)),
        item(b"\x02", tlv(0x30, *(tcb if tcb is not None else tcb_items(**tcb_changes)))),
        item(b"\x03", tlv(4, pce_id)),
        item(b"\x04", tlv(4, fmspc)),
        item(b"\x05", tlv(0x0A, bytes([sgx_type]))),
    ]
    if instance is not None:
        flags = bits if bits is not None else {1: True, 2: True, 3: True}
        values = [item(bytes([7, at]), tlv(1, b"\xff" if bit else b"\x00")) for at, bit in flags.items()]
        made += [item(b"\x06", tlv(4, instance)), item(b"\x07", tlv(0x30, *values))]
    return made


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
    tcb: dict[str, Any]
    if version == 2:
        tcb = {f"sgxtcbcomp{at:02}svn": svn for at, svn in enumerate(sgx, 1)}
    else:
        tcb = {"sgxtcbcomponents": [{"svn": svn} for svn in sgx]}
    tcb["pcesvn"] = pce_svn
    if tdx is not None:
        tcb["tdxtcbcomponents"] = [{"svn": svn, "category": "OS/VMM"} for svn in tdx]
    made = {"tcb": tcb, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": status}
    return made if advisories is None else {**made, "advisoryIDs": advisories}


def svn_level(isv_svn: int, status: str = "UpToDate", advisories: list[str] | None = None) -> dict[str, Any]:
    """One level of an enclave or a module."""
    made = {"tcb": {"isvsvn": isv_svn}, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": status}
    return made if advisories is None else {**made, "advisoryIDs": advisories}


def module(id: str | None = "TDX_01", *levels: dict[str, Any], **changes: Any) -> dict[str, Any]:  # noqa: A002
    """A TDX module's identity; without ``id`` the one of version 0."""
    made = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    if id is not None:
        made |= {"id": id, "tcbLevels": list(levels) or [svn_level(6)]}  # type: ignore[dict-item]
    return {**made, **changes}


DATES = {"issueDate": "2024-12-20T00:00:00Z", "nextUpdate": "2025-01-19T00:00:00Z"}


def tcb_info(tee: str, *levels: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The body of a TCB info."""
    made: dict[str, Any] = {
        "id": tee,
        "version": 3,
        **DATES,
        "fmspc": FMSPC.hex().upper(),
        "pceId": PCE_ID.hex(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": 17,
    }
    if tee == "TDX":
        made |= {"tdxModule": module(None), "tdxModuleIdentities": [module()]}
    default = tcb_level(tdx=TEE_TCB_SVN if tee == "TDX" else None)
    made |= {"tcbLevels": list(levels) or [default], **changes}
    return {name: value for name, value in made.items() if value is not None}


def qe_identity(tee: str, *levels: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The body of a quoting enclave's identity."""
    made = {
        "id": "QE" if tee == "SGX" else "TD_QE",
        "version": 2,
        **DATES,
        "tcbEvaluationDataNumber": 17,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11" + "00" * 15,
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": QE_MRSIGNER.hex().upper(),
        "isvprodid": 1 if tee == "SGX" else 2,
        "tcbLevels": list(levels) or [svn_level(4)],
        **changes,
    }
    return {name: value for name, value in made.items() if value is not None}


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """r and s, 32 bytes each."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def document(name: str, body: dict[str, Any] | bytes, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    """A document as the service sends it."""
    raw = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    signature = sign(key or ec_key("tcb signing", P256), raw)
    return b'{"' + name.encode() + b'":' + raw + b',"signature":"' + signature.hex().encode() + b'"}'


# Quotes


def fill(layout: Layout, values: Mapping[str, int | bytes]) -> bytearray:
    """A structure from its fields: numbers are little endian, short bytes are padded."""
    raw = bytearray(layout.size)
    for name, value in values.items():
        at = layout.fields[name]
        whole = value.to_bytes(len(at), "little") if isinstance(value, int) else value.ljust(len(at), b"\0")
        assert len(whole) == len(at), name
        raw[at.start : at.stop] = whole
    return raw


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """x and y."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def pem(*ders: bytes) -> bytes:
    """Certificates in PEM, as the quoting enclave is given them."""
    blocks = []
    for der in ders:
        text = base64.b64encode(der)
        lines = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
        blocks.append(b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n")
    return b"".join(blocks)


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
        certified = self._certified(key)
        if self.version > 3:
            certified = (
                self.outer_type.to_bytes(2, "little") + len(certified).to_bytes(4, "little") + certified
            )
        data = signature + key + certified
        return bytes(signed) + len(data).to_bytes(4, "little") + data + self.trailing

    def _signed(self) -> bytes:
        body_type = self.body_type or (1 if self.tee == "SGX" else 2)
        tee_type = self.tee_type if self.tee_type is not None else (0 if self.tee == "SGX" else 0x81)
        if self.raw_body is not None:
            body = self.raw_body
        elif self.tee == "SGX":
            body = bytes(fill(ENCLAVE_REPORT, {**_ENCLAVE, **self.body}))
        else:
            late = {"tee_tcb_svn2": self.body.get("tee_tcb_svn", TEE_TCB_SVN)} if body_type == 3 else {}
            body = bytes(
                fill(TD_REPORT_1_5 if body_type == 3 else TD_REPORT_1_0, {**_TD, **late, **self.body})
            )
        head = b"".join(
            [
                self.version.to_bytes(2, "little"),
                self.key_type.to_bytes(2, "little"),
                tee_type.to_bytes(4, "little"),
                bytes(4),
                self.vendor_id,
                bytes(20),
            ]
        )
        if self.version >= 5:
            size = self.body_size if self.body_size is not None else len(body)
            head += body_type.to_bytes(2, "little") + size.to_bytes(4, "little")
        return head + body

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
        report = bytes(fill(ENCLAVE_REPORT, {**defaults, **self.qe}))
        leaf = self.chain[0].key
        assert isinstance(leaf, ec.EllipticCurvePrivateKey)
        signature = self.qe_signature or sign(self.qe_signer or leaf, report)
        given = (
            self.certification if self.certification is not None else pem(*(one.der for one in self.chain))
        )
        return b"".join(
            [
                report,
                signature,
                len(self.auth_data).to_bytes(2, "little"),
                self.auth_data,
                self.certification_type.to_bytes(2, "little"),
                len(given).to_bytes(4, "little"),
                given,
            ]
        )


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
