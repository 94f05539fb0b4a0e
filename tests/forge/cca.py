"""CCA tokens by keys of our own: everything that a platform and its monitor sign, with any mistake in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.forge.pki import ec_key

from enarx.attest import TrustAnchors, Vendor

CHALLENGE = bytes(range(64))
RIM = b"\x21" * 32
REMS = [bytes([0x31 + at]) * 32 for at in range(4)]
PERSONALIZATION = b"\x41" * 64
IMPLEMENTATION_ID = b"\x51" * 32
INSTANCE_ID = b"\x01" + b"\x61" * 32
COMPONENTS: list[dict[int, Any]] = [
    {1: "BL", 2: b"\x71" * 32, 4: "3.4.2", 5: b"\x81" * 32, 6: "sha-256"},
    {1: "RMM", 2: b"\x72" * 32, 5: b"\x81" * 32},
]
PLATFORM = 44234
REALM = 44241


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half, bare."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def cose_key(key: ec.EllipticCurvePrivateKey, **changes: Any) -> bytes:
    """The public half as a COSE_Key; ``changes`` by ``kty``, ``crv``, ``x``, ``y``."""
    whole = point(key)[1:]
    parts = {
        "kty": 2,
        "crv": 1 if key.curve.key_size == 256 else 2,
        "x": whole[: len(whole) // 2],
        "y": whole[len(whole) // 2 :],
        **changes,
    }
    return cbor2.dumps({1: parts["kty"], -1: parts["crv"], -2: parts["x"], -3: parts["y"]})


def sign1(
    key: ec.EllipticCurvePrivateKey, body: bytes, header: Mapping[int, Any], unprotected: Mapping[int, Any]
) -> list[Any]:
    """COSE_Sign1 without its tag, by what the curve of the key demands whatever the header says."""
    protected = cbor2.dumps(dict(header))
    digest = hashes.SHA256() if key.curve.key_size == 256 else hashes.SHA384()
    made = key.sign(cbor2.dumps(["Signature1", protected, b"", body]), ec.ECDSA(digest))
    size = (key.curve.key_size + 7) // 8
    return [
        protected,
        dict(unprotected),
        body,
        b"".join(part.to_bytes(size, "big") for part in decode_dss_signature(made)),
    ]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A token to be made. ``platform`` and ``realm`` are claims in place of healthy ones; ``...`` leaves one out."""

    platform: Mapping[Any, Any] = field(default_factory=dict)
    realm: Mapping[Any, Any] = field(default_factory=dict)
    cpak: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec_key("cpak"))
    rak: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec_key("rak"))
    realm_signer: ec.EllipticCurvePrivateKey | None = None
    """Who really signs the realm's token."""
    platform_header: Mapping[int, Any] | None = None
    realm_header: Mapping[int, Any] | None = None
    unprotected: Mapping[int, Any] = field(default_factory=dict)
    tag: int | None = 399
    inner_tag: int | None = 18
    items: Mapping[Any, Any] = field(default_factory=dict)
    """Entries of the outer map in place of the two tokens."""
    trusted: tuple[ec.EllipticCurvePrivateKey, ...] = field(default_factory=lambda: (ec_key("cpak"),))

    def but(self, **changes: Any) -> Case:
        """The same with changes."""
        return replace(self, **changes)

    @property
    def realm_claims(self) -> dict[Any, Any]:
        """What the monitor says."""
        healthy = {
            10: CHALLENGE,
            44235: PERSONALIZATION,
            44236: "sha-256",
            44237: point(self.rak),
            44238: RIM,
            44239: REMS,
            44240: "sha-256",
        }
        return {key: value for key, value in {**healthy, **self.realm}.items() if value is not ...}

    @property
    def platform_claims(self) -> dict[Any, Any]:
        """What the platform says."""
        key = self.realm_claims.get(44237)
        healthy = {
            265: "http://arm.com/CCA-SSD/1.0.0",
            10: hashlib.sha256(key).digest() if isinstance(key, bytes) else bytes(32),
            2396: IMPLEMENTATION_ID,
            256: INSTANCE_ID,
            2401: b"\xcf" * 4,
            2395: 0x3003,
            2402: "sha-256",
            2400: "https://verifier.example.test/",
            2399: COMPONENTS,
        }
        return {key: value for key, value in {**healthy, **self.platform}.items() if value is not ...}

    def _token(
        self, key: ec.EllipticCurvePrivateKey, claims: object, header: Mapping[int, Any] | None
    ) -> bytes:
        announced = header if header is not None else {1: -7 if key.curve.key_size == 256 else -35}
        message = sign1(key, cbor2.dumps(claims), announced, self.unprotected)
        return cbor2.dumps(cbor2.CBORTag(self.inner_tag, message) if self.inner_tag is not None else message)

    @property
    def raw(self) -> bytes:
        """Make and sign it."""
        tokens = {
            PLATFORM: self._token(self.cpak, self.platform_claims, self.platform_header),
            REALM: self._token(self.realm_signer or self.rak, self.realm_claims, self.realm_header),
            **self.items,
        }
        whole = {key: value for key, value in tokens.items() if value is not ...}
        return cbor2.dumps(cbor2.CBORTag(self.tag, whole) if self.tag is not None else whole)

    @property
    def anchors(self) -> TrustAnchors:
        """The platform keys that the verifier was told to trust."""
        found = TrustAnchors.none()
        for at, key in enumerate(self.trusted):
            spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            found = found.adding(spki, name=f"platform {at}", vendor=Vendor.ARM_CCA)
        return found
