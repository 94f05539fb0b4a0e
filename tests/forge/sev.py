"""A legacy SEV platform of our own: six certificates under a root of ours, and a guest launched on it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enarx.attest import TrustAnchors
from enarx.attest.sev import LaunchMeasure, LaunchSession, SessionKeys, pack_evidence, prepare_session
from enarx.attest.sev._certs import Algorithm, Usage
from enarx.attest.sev._encode import NO_SIGNATURE, pack_body
from enarx_emulator.amd import certificates


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
    return certificates.amd_certificate(
        usage, rsa_key(key).public_key(), rsa_key(signer), key_id=key.encode(), certifying_id=by
    )


def body(usage: int, key: str, *, algorithm: int = Algorithm.ECDSA_SHA256) -> bytes:
    """The signed part of a platform's certificate."""
    return pack_body(usage, algorithm, ec_key(key).public_key(), api=(1, 40))


def by_platform(signed: bytes, usage: int, key: str) -> bytes:
    """A signature of one of the platform's or owner's keys (520 bytes)."""
    return certificates.by_platform(signed, usage, ec_key(key))


def by_ask(signed: bytes, key: str) -> bytes:
    """A signature of an ASK (520 bytes)."""
    return certificates.by_ask(signed, rsa_key(key))


@dataclass
class Case:
    """A platform that is right in all but what is set here: who signs, or a usage or algorithm."""

    signers: dict[str, str] = field(default_factory=dict)
    usages: dict[str, int] = field(default_factory=dict)
    algorithms: dict[str, int] = field(default_factory=dict)
    certifying_id: bytes = b"ark".ljust(16, b"\0")
    ark_id: bytes = b"ark".ljust(16, b"\0")
    double_pek: bool = False
    twice: str | None = None
    """PDH, OCA or CEK with a second signature, of an owner."""

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
        more = {"pdh": NO_SIGNATURE, "oca": NO_SIGNATURE, "cek": NO_SIGNATURE}
        if self.twice is not None:
            more[self.twice] = by_platform({"pdh": pdh, "oca": oca, "cek": cek}[self.twice], Usage.OCA, "oca")
        return [
            pdh + by_platform(pdh, Usage.PEK, by["pdh"]) + more["pdh"],
            pek + by_platform(pek, second, by["pek_oca"]) + by_platform(pek, Usage.CEK, by["pek"]),
            oca + by_platform(oca, Usage.OCA, by["oca"]) + more["oca"],
            cek + by_ask(cek, by["cek"]) + more["cek"],
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
