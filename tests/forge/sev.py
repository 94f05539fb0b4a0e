"""A legacy SEV platform of our own: six certificates under a root of ours, and a guest launched on it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enarx.attest import TrustAnchors
from enarx.attest.sev import LaunchMeasure, LaunchSession, SessionKeys, pack_evidence, prepare_session
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


TIK, TEK, DIGEST, MNONCE = bytes(range(96, 112)), bytes(range(32, 48)), bytes(range(32)), bytes(range(16, 32))
STRICT_ES = (0x2F).to_bytes(2, "little") + b"\x01\x28"


@dataclass
class Launch:
    """A launch that is right in all but what is set here."""

    case: Case = field(default_factory=Case)
    prepared_for: str = "pdh"
    policy: bytes = STRICT_ES
    session_policy: bytes | None = None
    said_policy: bytes | None = None
    api: tuple[int, int] = (1, 40)
    build: int = 10
    said_build: int | None = None
    tik: bytes = TIK
    digest: bytes = DIGEST
    expected: tuple[bytes, ...] = (DIGEST,)
    owner: str | None = None
    own_chain: bool = True
    """Whether ASK and ARK come with the evidence."""

    @property
    def session(self) -> LaunchSession:
        """What the owner keeps."""
        pdh = ec_key(self.prepared_for).public_key()
        policy = self.policy if self.session_policy is None else self.session_policy
        keys = SessionKeys(tek=TEK, tik=TIK)
        made = prepare_session(
            pdh, owner=ec_key("guest owner"), keys=keys, policy=policy, nonce=bytes(16), iv=bytes(16)
        )
        found = LaunchSession.prepared(pdh, tik=TIK, session=made, digests=self.expected)
        if self.owner is None:
            return found
        owner = ec_key(self.owner).public_key()
        return replace(found, owner=owner.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    @property
    def vendor(self) -> bytes:
        """ASK and ARK."""
        return b"".join(self.case.certificates()[4:])

    @property
    def raw(self) -> bytes:
        """The evidence that the host gives."""
        said = LaunchMeasure(measure=bytes(32), nonce=MNONCE, api=self.api, build=self.build)
        measure = said.mac(self.tik, policy=self.policy, digest=self.digest) + MNONCE
        chain = b"".join(self.case.certificates()[: None if self.own_chain else 4])
        return pack_evidence(
            chain,
            api=self.api,
            build=self.build if self.said_build is None else self.said_build,
            policy=self.policy if self.said_policy is None else self.said_policy,
            measure=measure,
        )
