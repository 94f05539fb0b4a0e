"""Azure's confidential virtual machines by keys of our own: paravisor, virtual TPM and hardware, with any mistake."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from tests.forge import dcap, snp, tpm
from tests.forge.pki import NOW, Cert, Key, rsa_key

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Claims,
    Collateral,
    Policy,
    TrustAnchors,
    Vendor,
    Verifier,
)
from enarx.attest.azure import VERIFIER
from enarx.attest.tdx import parse_tdx_quote

NONCE = tpm.NONCE
USER_DATA = b"\x75" * 64
CONFIGURATION = {
    "console-enabled": False,
    "secure-boot": True,
    "tpm-enabled": True,
    "tpm-persisted": False,
    "vmUniqueId": "00000000-0000-4000-8000-000000000001",
}


def base64url(data: bytes) -> str:
    """Without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(key: rsa.RSAPrivateKey, kid: str = "HCLAkPub", **changes: Any) -> dict[str, Any]:
    """The public half as the paravisor writes it."""
    public = key.public_key().public_numbers()
    healthy = {
        "kid": kid,
        "key_ops": ["sign"],
        "kty": "RSA",
        "e": base64url(public.e.to_bytes(3, "big")),
        "n": base64url(public.n.to_bytes(key.key_size // 8, "big")),
    }
    return {**healthy, **changes}


def name(common_name: str) -> x509.Name:
    """A name as Azure writes it."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def vtpm_root() -> Cert:
    """The root of certificates of attestation keys."""
    return Cert(name=name("Azure Virtual TPM Root"), key=rsa_key("azure-root"), pkcs1=True)


def ak_certificate(key: Key | None = None, **changes: Any) -> Cert:
    """A certificate of the attestation key."""
    subject = name("0123456789ab.ConfidentialVM.Azure.windows.net")
    healthy = Cert(
        name=subject, key=key or rsa_key("ak"), issuer=vtpm_root(), ca=False, crl_sign=False, pkcs1=True
    )
    return healthy.but(**changes)


def td_report(body: bytes, **changes: Any) -> bytes:
    """The TDREPORT of which a quote has this body; ``changes`` are bytes by ``at_OFFSET``."""
    late = body[584:].ljust(64, b"\x00")
    whole = bytearray(1184)
    whole[0] = 0x81
    whole[128:192] = body[520:584]
    whole[224:256] = b"\x4d" * 32
    whole[264:384] = body[:120]
    whole[384:400] = late[:16]
    whole[512:912] = body[120:520]
    whole[912:960] = late[16:]
    for at, value in changes.items():
        start = int(at.removeprefix("at_"))
        whole[start : start + len(value)] = value
    return bytes(whole)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Evidence to be made. Of ``runtime``, ``header`` and ``items``, a value of ``...`` leaves one out."""

    snp: snp.Case | None = field(default_factory=snp.Case)
    tdx: dcap.Case | None = None
    """In place of ``snp``."""
    vtpm: tpm.Case = field(default_factory=tpm.Case)
    ak: rsa.RSAPrivateKey = field(default_factory=lambda: rsa_key("ak"))
    """The key that the runtime data name."""
    runtime: Mapping[str, Any] = field(default_factory=dict)
    runtime_raw: bytes | None = None
    swapped: Mapping[str, Any] | None = None
    """Runtime data that are put in their place after the hardware vouched for the others."""
    header: Mapping[str, int] = field(default_factory=dict)
    report_data: bytes | None = None
    td_report_changes: Mapping[str, bytes] = field(default_factory=dict)
    padding: bytes = bytes(100)
    items: Mapping[str, Any] = field(default_factory=dict)
    certificate: Cert | None = None
    collateral_certificates: tuple[Cert, ...] = ()
    more: Collateral = field(default_factory=Collateral.none)

    def but(self, **changes: Any) -> Case:
        """The same with changes."""
        return replace(self, **changes)

    def _runtime(self, changes: Mapping[str, Any]) -> bytes:
        healthy = {
            "keys": [jwk(self.ak), jwk(rsa_key("ek"), "HCLEkPub")],
            "vm-configuration": CONFIGURATION,
            "user-data": USER_DATA.hex().upper(),
        }
        found = {key: value for key, value in {**healthy, **changes}.items() if value is not ...}
        return json.dumps(found, separators=(",", ":")).encode()

    @property
    def vouched(self) -> bytes:
        """The runtime data of which the hardware has the hash."""
        return self.runtime_raw if self.runtime_raw is not None else self._runtime(self.runtime)

    @property
    def hardware(self) -> bytes:
        """The SNP report, or the TD quote."""
        algorithm = {2: "sha384", 3: "sha512"}.get(self.header.get("hash_type", 1), "sha256")
        data = hashlib.new(algorithm, self.vouched).digest().ljust(64, b"\x00")
        data = self.report_data if self.report_data is not None else data
        if self.tdx is not None:
            quote = self.tdx.quote
            return quote.but(body={**quote.body, "report_data": data}).raw
        assert self.snp is not None
        return self.snp.report.but(report_data=data).raw

    @property
    def hcl_report(self) -> bytes:
        """The report of the paravisor."""
        runtime = self.vouched if self.swapped is None else self._runtime(self.swapped)
        tdx = self.tdx is not None
        area = (
            td_report(parse_tdx_quote(self.hardware).quote.body, **self.td_report_changes)
            if tdx
            else self.hardware
        )
        values = {
            "signature": int.from_bytes(b"HCLA", "little"),
            "version": 2,
            "report_size": 1236 + len(runtime),
            "request_type": 2,
            "status": 0,
            "reserved": 0,
            "data_size": 20 + len(runtime),
            "data_version": 1,
            "report_type": 4 if tdx else 2,
            "hash_type": 1,
            "variable_data_size": len(runtime),
            **self.header,
        }
        number = {key: value.to_bytes(4, "little") for key, value in values.items()}
        outer = (
            number[key]
            for key in ("signature", "version", "report_size", "request_type", "status", "reserved")
        )
        inner = (
            number[key]
            for key in ("data_size", "data_version", "report_type", "hash_type", "variable_data_size")
        )
        return b"".join((*outer, bytes(8), area, *inner, runtime, self.padding))

    @property
    def parts(self) -> dict[str, bytes]:
        """The items of the collection."""
        values = self.vtpm.pcrs if self.vtpm.presented is None else self.vtpm.presented
        found: dict[str, Any] = {
            "hcl-report": self.hcl_report,
            "tpm-quote": self.vtpm.attest,
            "tpm-signature": self.vtpm.signature,
            "tpm-pcrs": b"".join(values.values()),
        }
        if self.tdx is not None:
            found["td-quote"] = self.hardware
        elif self.snp is not None and self.snp.leaf is not None:
            found["vcek"] = self.snp.leaf.der
        if self.certificate is not None:
            found["tpm-certificate"] = self.certificate.der
        return {label: value for label, value in {**found, **self.items}.items() if value is not ...}

    @property
    def raw(self) -> bytes:
        """The whole evidence."""
        return tpm.bundle(self.parts)

    @property
    def collateral(self) -> Collateral:
        """What accompanies it."""
        extra = Collateral(certificates=tuple(one.der for one in self.collateral_certificates)) | self.more
        if self.tdx is not None:
            return self.tdx.collateral | extra
        assert self.snp is not None
        return self.snp.but(leaf=None).collateral | extra

    @property
    def anchors(self) -> TrustAnchors:
        """The root of the hardware and that of attestation keys."""
        base = (
            self.tdx.anchors
            if self.tdx is not None
            else self.snp.anchors
            if self.snp
            else TrustAnchors.none()
        )
        return base.adding(vtpm_root().der, name="test root of keys", vendor=Vendor.AZURE_VTPM)


def tdx(version: int = 4, **changes: Any) -> Case:
    """A healthy machine on TDX; ``changes`` are of its quote."""
    return Case(snp=None, tdx=dcap.tdx(version, **changes))


def judge(
    case: Case,
    *,
    binding: bytes | AnyBinding = NONCE,
    policy: Policy | AuthenticityOnly | None = None,
    anchors: TrustAnchors | None = None,
    raw: bytes | None = None,
) -> Claims:
    """Have it verified, by default for its authenticity and with the roots that it is made under."""
    verifier = Verifier(tees=[VERIFIER], anchors=anchors or case.anchors, policy=policy or AuthenticityOnly())
    data = case.raw if raw is None else raw
    return verifier.verify(data, collateral=case.collateral, binding=binding, now=NOW)


def spell(data: bytes, how: str) -> object:
    """Bytes as one of the tools writes them."""
    match how:
        case "hex":
            return data.hex()
        case "base64":
            return base64.b64encode(data).decode()
        case "base64url":
            return base64url(data)
        case _:
            return list(data)


def by_tools(case: Case, how: str, **changes: Any) -> bytes:
    """As the JSON of the guests' tools, in which a signature has no head."""
    parts = case.parts
    pcrs = [parts["tpm-pcrs"][at : at + 32] for at in range(0, len(parts["tpm-pcrs"]), 32)]
    quote = {
        "message": spell(parts["tpm-quote"], how),
        "signature": spell(parts["tpm-signature"][6:], how),
        "pcrs": [spell(one, how) for one in pcrs],
    }
    older = how == "numbers"
    found: dict[str, Any] = {
        "quote" if older else "tpm_quote": quote,
        "report" if older else "hcl_report": spell(parts["hcl-report"], how),
        "version": 1,
    }
    if "td-quote" in parts:
        found["td_quote"] = spell(parts["td-quote"], how)
    else:
        found["vcek"] = dcap.pem(parts["vcek"]).decode() if older else spell(parts["vcek"], how)
    return json.dumps(
        {key: value for key, value in {**found, **changes}.items() if value is not ...}
    ).encode()
