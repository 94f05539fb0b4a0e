"""Nitro documents under a root of our own: everything that the Nitro Secure Module signs, with any mistake in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID
from tests.forge.pki import NOW, Cert, ec_key

from enarx.attest import TrustAnchors, Vendor

NONCE = b"a challenge of this session"
PCRS = {index: bytes([index + 1]) * 48 if index in (0, 1, 2, 4, 8) else bytes(48) for index in range(16)}


def name(common_name: str) -> x509.Name:
    """A name as AWS writes it, in short."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Amazon"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def chain(**changes: dict[str, Any]) -> tuple[Cert, Cert, Cert]:
    """Root, zonal, leaf; ``changes`` by these names."""
    root = Cert(name=name("aws.nitro-enclaves"), key=ec_key("nitro-root")).but(**changes.get("root", {}))
    zonal = Cert(
        name=name("zonal.aws.nitro-enclaves"), key=ec_key("nitro-zonal"), issuer=root, path_length=0
    ).but(**changes.get("zonal", {}))
    leaf = Cert(
        name=name("i-0-enc0.aws"),
        key=ec_key("nitro-leaf"),
        issuer=zonal,
        ca=False,
        crl_sign=False,
        not_before=NOW - timedelta(hours=1),
        not_after=NOW + timedelta(hours=2),
    ).but(**changes.get("leaf", {}))
    return root, zonal, leaf


@dataclass(frozen=True, kw_only=True)
class Case:
    """A document to be made. ``payload`` are fields in place of the healthy ones; a value of ``...`` leaves one out."""

    certs: tuple[Cert, ...] = field(default_factory=chain)
    payload: Mapping[str, Any] = field(default_factory=dict)
    header: Mapping[int, Any] = field(default_factory=lambda: {1: -35})
    unprotected: Mapping[int, Any] = field(default_factory=dict)
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec_key("nitro-leaf"))
    der_signature: bool = False
    tag: int | None = None
    trusted: bytes | None = None

    def but(self, **changes: Any) -> Case:
        """The same with changes."""
        return replace(self, **changes)

    @property
    def body(self) -> bytes:
        """The payload."""
        leaf = self.certs[-1]
        healthy: dict[str, Any] = {
            "module_id": "i-0-enc0",
            "digest": "SHA384",
            "timestamp": int(NOW.timestamp() * 1000),
            "pcrs": PCRS,
            "certificate": leaf.der,
            "cabundle": [cert.der for cert in self.certs[:-1]],
            "public_key": b"key",
            "user_data": b"data",
            "nonce": NONCE,
        }
        return cbor2.dumps({k: v for k, v in {**healthy, **self.payload}.items() if v is not ...})

    @property
    def raw(self) -> bytes:
        """Make and sign it."""
        protected, body = cbor2.dumps(dict(self.header)), self.body
        signed = cbor2.dumps(["Signature1", protected, b"", body])
        made = self.key.sign(signed, ec.ECDSA(hashes.SHA384()))
        size = (self.key.curve.key_size + 7) // 8
        plain = b"".join(part.to_bytes(size, "big") for part in decode_dss_signature(made))
        message = [protected, dict(self.unprotected), body, made if self.der_signature else plain]
        return cbor2.dumps(cbor2.CBORTag(self.tag, message) if self.tag is not None else message)

    @property
    def anchors(self) -> TrustAnchors:
        """The one root."""
        root = self.trusted or self.certs[0].der
        return TrustAnchors.none().adding(root, name="test root", vendor=Vendor.AWS_NITRO)
