"""From a platform's certificates to its Diffie-Hellman key: ARK, ASK, CEK, PEK, PDH and OCA, PEK.

Source: AMD 55766 (SEV API), 2.1 and appendix B, C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from enarx.attest.anchors import Anchor, TrustAnchors, Vendor
from enarx.attest.checks import Ledger
from enarx.attest.errors import MalformedEvidence
from enarx.attest.sev._certs import (
    CERTIFICATE_BYTES,
    Algorithm,
    AmdCertificate,
    SevCertificate,
    Usage,
    amd_digest,
    parse_amd_certificate,
    parse_certificate,
    signed_by_amd,
    signed_by_ask,
    signed_by_platform,
)

_SIGNING: Final = frozenset({Algorithm.ECDSA_SHA256, Algorithm.ECDSA_SHA384})
_SIGNERS: Final = {
    Usage.PDH: (Usage.PEK, Usage.EMPTY),
    Usage.PEK: (Usage.OCA, Usage.CEK),
    Usage.OCA: (Usage.OCA, Usage.EMPTY),
    Usage.CEK: (Usage.ASK, Usage.EMPTY),
}
_AGREEMENT: Final = frozenset({Algorithm.ECDH_SHA256, Algorithm.ECDH_SHA384})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformChain:
    """The six certificates as they were read: nothing of them is true yet."""

    pdh: SevCertificate
    pek: SevCertificate
    oca: SevCertificate
    cek: SevCertificate
    ask: AmdCertificate
    ark: AmdCertificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A platform whose chain holds."""

    pdh: ec.EllipticCurvePublicKey
    """With this key a launch session is prepared."""
    api: tuple[int, int]
    root: Anchor


def parse_chain(data: bytes) -> PlatformChain:
    """Read the export of a platform: PDH, PEK, OCA, CEK, ASK, ARK, one behind the other. Raises ``Malformed``."""
    own = [data[at : at + CERTIFICATE_BYTES] for at in range(0, 4 * CERTIFICATE_BYTES, CERTIFICATE_BYTES)]
    pdh, pek, oca, cek = (parse_certificate(one) for one in own)
    rest = data[4 * CERTIFICATE_BYTES :]
    size = {2048: 832, 4096: 1600}.get(int.from_bytes(rest[0x3C:0x40], "little"))
    if size is None:
        raise MalformedEvidence("platform chain: no ASK of 2048 or 4096 bits behind the CEK")
    ask, ark = parse_amd_certificate(rest[:size]), parse_amd_certificate(rest[size:])
    return PlatformChain(pdh=pdh, pek=pek, oca=oca, cek=cek, ask=ask, ark=ark)


def verify_chain(
    chain: PlatformChain,
    *,
    anchors: TrustAnchors,
    ledger: Ledger,
    owner: ec.EllipticCurvePublicKey | None = None,
) -> Platform:
    """Verify every edge. Raises ``EvidenceRejected``.

    1. Roles and algorithms. 2. The ARK is pinned, signed by itself where it is signed at all, and signs the
    ASK. 3. The ASK signs the CEK. 4. CEK and OCA both sign the PEK. 5. The OCA signs itself, or is ``owner``.
    6. The PEK signs the PDH.
    """
    for name in ("pdh", "pek", "oca", "cek"):  # 1
        _role(name, getattr(chain, name), ledger)
    root = _root(chain.ark, anchors, ledger)  # 2
    _ask(chain.ask, chain.ark, ledger)
    of_cek = chain.cek.signatures_of(Usage.ASK)  # 3
    _edge("sev.cek.signature", any(signed_by_ask(chain.ask, one, chain.cek.signed) for one in of_cek), ledger)
    _signed("sev.pek.signature.cek", chain.pek, chain.cek, ledger)  # 4
    _signed("sev.pek.signature.oca", chain.pek, chain.oca, ledger)
    _signed("sev.oca.signature", chain.oca, chain.oca, ledger)  # 5
    if owner is not None:
        ledger.require(
            "sev.oca.owner",
            chain.oca.key.public_numbers() == owner.public_numbers(),
            field="oca.key",
            expected="the owner's key",
            found="the key of the OCA",
            advice="the platform belongs to somebody else",
        )
    _signed("sev.pdh.signature", chain.pdh, chain.pek, ledger)  # 6
    return Platform(pdh=chain.pdh.key, api=chain.pdh.api, root=root)


def _role(name: str, certificate: SevCertificate, ledger: Ledger) -> None:
    usage, algorithms = Usage[name.upper()], _AGREEMENT if name == "pdh" else _SIGNING
    ledger.require(
        f"sev.{name}.usage",
        certificate.usage is usage,
        field=f"{name}.usage",
        expected=usage.name,
        found=certificate.usage.name,
    )
    ledger.require(
        f"sev.{name}.algorithm",
        certificate.algorithm in algorithms,
        field=f"{name}.algorithm",
        expected=tuple(one.name for one in sorted(algorithms)),
        found=certificate.algorithm.name,
    )
    signers = sorted(one.usage for one in certificate.signatures)
    ledger.require(
        f"sev.{name}.signers",
        signers == sorted(_SIGNERS[usage]),
        field=f"{name}.signatures",
        expected=tuple(one.name for one in sorted(_SIGNERS[usage])),
        found=tuple(one.name for one in signers),
    )


def _root(ark: AmdCertificate, anchors: TrustAnchors, ledger: Ledger) -> Anchor:
    anchor = anchors.find(Vendor.AMD, ark.spki)
    ledger.require(
        "sev.chain.root",
        anchor is not None,
        expected="a pinned root of AMD",
        found=ark.key_id,
        advice="a root that comes with the evidence is never trusted by itself",
    )
    assert anchor is not None  # noqa: S101 -- required above
    ledger.require(
        "sev.ark.usage",
        ark.usage is Usage.ARK and ark.certifying_id == ark.key_id,
        field="ark.usage",
        expected="ARK that certifies itself",
        found=ark.usage.name,
    )
    if ark.signature is not None:
        holds = signed_by_amd(ark.key, ark.signature, ark.signed, amd_digest(ark.key))
        _edge("sev.ark.signature", holds, ledger)
    else:
        ledger.note(
            "sev.ark.signature", expected="a signature", found="absent, as AMD published it for Naples"
        )
    return anchor


def _ask(ask: AmdCertificate, ark: AmdCertificate, ledger: Ledger) -> None:
    ledger.require(
        "sev.ask.usage",
        ask.usage is Usage.ASK,
        field="ask.usage",
        expected=Usage.ASK.name,
        found=ask.usage.name,
    )
    ledger.equal("sev.ask.certifying_id", ark.key_id, ask.certifying_id, field="ask.certifying_id")
    holds = ask.signature is not None and signed_by_amd(
        ark.key, ask.signature, ask.signed, amd_digest(ark.key)
    )
    _edge("sev.ask.signature", holds, ledger)


def _signed(name: str, certificate: SevCertificate, signer: SevCertificate, ledger: Ledger) -> None:
    candidates = certificate.signatures_of(signer.usage)
    _edge(name, any(signed_by_platform(signer.key, one, certificate.signed) for one in candidates), ledger)


def _edge(name: str, holds: bool, ledger: Ledger) -> None:
    ledger.require(
        name,
        holds,
        expected="a signature of the certificate above it",
        found="a signature that holds" if holds else "none that holds",
        advice="changed, of another platform, or of another generation",
    )
