"""TPM quotes by keys of our own: everything that a TPM signs, with any mistake in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.forge.pki import Key, rsa_key

from enarx.attest import TrustAnchors, cmw

NONCE = b"qualifying data of this session"
PCRS = {index: bytes([index + 1]) * 32 for index in range(8)}
SHA256 = hashes.SHA256()


def sized(data: bytes) -> bytes:
    """A TPM2B."""
    return len(data).to_bytes(2, "big") + data


def spki(key: Key) -> bytes:
    """The public half."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A quote to be made, and the keys that the verifier was told to trust."""

    magic: int = 0xFF544347
    kind: int = 0x8018
    extra_data: bytes = NONCE
    safe: int = 1
    banks: tuple[tuple[int, bytes], ...] = ((0x0B, b"\xff\x00\x00"),)
    pcrs: Mapping[int, bytes] = field(default_factory=lambda: PCRS)
    presented: Mapping[int, bytes] | None = None
    """The PCR values that accompany the quote, where they are not those of its digest."""
    trailing: bytes = b""
    scheme: int = 0x14
    algorithm: int = 0x0B
    key: Key = field(default_factory=lambda: rsa_key("ak"))
    certificate: bytes | None = None
    trusted: Key | None = field(default_factory=lambda: rsa_key("ak"))

    def but(self, **changes: Any) -> Case:
        """The same with changes."""
        return replace(self, **changes)

    @property
    def attest(self) -> bytes:
        """TPMS_ATTEST."""
        digest = hashlib.sha256(b"".join(self.pcrs.values())).digest()
        selections = b"".join(
            bank.to_bytes(2, "big") + bytes([len(bits)]) + bits for bank, bits in self.banks
        )
        return b"".join(
            (
                self.magic.to_bytes(4, "big"),
                self.kind.to_bytes(2, "big"),
                sized(b"\x00\x0b" + bytes(32)),
                sized(self.extra_data),
                (5994).to_bytes(8, "big") + (3).to_bytes(4, "big") + (1).to_bytes(4, "big"),
                bytes([self.safe]) + (7).to_bytes(8, "big"),
                len(self.banks).to_bytes(4, "big") + selections,
                sized(digest) + self.trailing,
            )
        )

    @property
    def signature(self) -> bytes:
        """TPMT_SIGNATURE."""
        head = self.scheme.to_bytes(2, "big") + self.algorithm.to_bytes(2, "big")
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self.key.sign(self.attest, ec.ECDSA(SHA256)))
            return head + sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))
        pss = padding.PSS(mgf=padding.MGF1(SHA256), salt_length=32)
        padded = pss if self.scheme == 0x16 else padding.PKCS1v15()
        return head + sized(self.key.sign(self.attest, padded, SHA256))

    @property
    def raw(self) -> bytes:
        """The whole evidence."""
        values = self.pcrs if self.presented is None else self.presented
        items = {"quote": self.attest, "signature": self.signature, "pcrs": b"".join(values.values())}
        if self.certificate is not None:
            items["certificate"] = self.certificate
        return bundle(items)

    @property
    def anchors(self) -> TrustAnchors:
        """The one key."""
        none = TrustAnchors.none()
        return none.adding(spki(self.trusted), name="enrolled key") if self.trusted else none


def bundle(items: Mapping[str, bytes]) -> bytes:
    """A CMW collection in CBOR."""
    return cmw.to_cbor(
        cmw.Collection({label: cmw.Record("application/octet-stream", data) for label, data in items.items()})
    )
