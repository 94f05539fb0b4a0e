"""A legacy SEV platform of our own: six certificates made with real cryptography under a root of ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enarx.attest import TrustAnchors
from enarx.attest.sev._certs import Algorithm, Usage

_PSS = padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=32)
EMPTY = Usage.EMPTY.to_bytes(4, "little") + bytes(516)


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """One key a name and run: 2048 bits."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    """One P-384 key a name and run."""
    return ec.generate_private_key(ec.SECP384R1())


def amd_certificate(usage: int, key: str, signer: str, *, by: bytes) -> bytes:
    """An ARK or ASK of 832 bytes; ``by``: the certifying id."""
    public = rsa_key(key).public_key().public_numbers()
    head = b"\x01\0\0\0" + key.encode().ljust(16, b"\0") + by + usage.to_bytes(4, "little") + bytes(16)
    sizes = (2048).to_bytes(4, "little") * 2
    signed = head + sizes + public.e.to_bytes(256, "little") + public.n.to_bytes(256, "little")
    return signed + rsa_key(signer).sign(signed, _PSS, SHA256())[::-1]


def body(usage: int, key: str, *, algorithm: int = Algorithm.ECDSA_SHA256) -> bytes:
    """The signed part of a platform's certificate."""
    point = ec_key(key).public_key().public_numbers()
    head = b"\x01\0\0\0\x01\x28\0\0" + usage.to_bytes(4, "little") + algorithm.to_bytes(4, "little")
    where = (2).to_bytes(4, "little") + point.x.to_bytes(72, "little") + point.y.to_bytes(72, "little")
    return (head + where).ljust(0x414, b"\0")


def by_platform(signed: bytes, usage: int, key: str) -> bytes:
    """A signature of one of the platform's or owner's keys (520 bytes)."""
    r, s = decode_dss_signature(ec_key(key).sign(signed, ec.ECDSA(SHA256())))
    value = r.to_bytes(72, "little") + s.to_bytes(72, "little")
    head = usage.to_bytes(4, "little") + Algorithm.ECDSA_SHA256.to_bytes(4, "little")
    return (head + value).ljust(520, b"\0")


def by_ask(signed: bytes, key: str) -> bytes:
    """A signature of an ASK (520 bytes)."""
    head = Usage.ASK.to_bytes(4, "little") + Algorithm.RSA_SHA256.to_bytes(4, "little")
    return (head + rsa_key(key).sign(signed, _PSS, SHA256())[::-1]).ljust(520, b"\0")


@dataclass
class Case:
    """A platform that is right in all but what is set here: who signs, or a usage or algorithm."""

    signers: dict[str, str] = field(default_factory=dict)
    usages: dict[str, int] = field(default_factory=dict)
    algorithms: dict[str, int] = field(default_factory=dict)
    certifying_id: bytes = b"ark".ljust(16, b"\0")
    ark_id: bytes = b"ark".ljust(16, b"\0")
    double_pek: bool = False

    @property
    def anchors(self) -> TrustAnchors:
        """Our root alone."""
        spki = rsa_key("ark").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return TrustAnchors.none().adding(spki, name="ARK of the test")

    def certificates(self) -> list[bytes]:
        """PDH, PEK, OCA, CEK, ASK, ARK."""
        edges = {
            "pdh": "pek",
            "pek": "cek",
            "pek_oca": "oca",
            "oca": "oca",
            "cek": "ask",
            "ask": "ark",
            "ark": "ark",
        }
        by = {**edges, **self.signers}
        pdh, pek, oca, cek = (self._body(name) for name in ("pdh", "pek", "oca", "cek"))
        second = Usage.CEK if self.double_pek else Usage.OCA
        return [
            pdh + by_platform(pdh, Usage.PEK, by["pdh"]) + EMPTY,
            pek + by_platform(pek, second, by["pek_oca"]) + by_platform(pek, Usage.CEK, by["pek"]),
            oca + by_platform(oca, Usage.OCA, by["oca"]) + EMPTY,
            cek + by_ask(cek, by["cek"]) + EMPTY,
            amd_certificate(self.usages.get("ask", Usage.ASK), "ask", by["ask"], by=self.certifying_id),
            amd_certificate(self.usages.get("ark", Usage.ARK), "ark", by["ark"], by=self.ark_id),
        ]

    def _body(self, name: str) -> bytes:
        default = Algorithm.ECDH_SHA256 if name == "pdh" else Algorithm.ECDSA_SHA256
        usage = self.usages.get(name, Usage[name.upper()])
        return body(usage, name, algorithm=self.algorithms.get(name, default))
