"""What a TEE contributes: how to recognise, parse and verify its evidence, and which rules a policy may have
for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from enarx.attest.anchors import TrustAnchors
from enarx.attest.cache import Cache
from enarx.attest.checks import Ledger
from enarx.attest.claims import Tee, Verified
from enarx.attest.collateral import Collateral
from enarx.attest.x509 import (
    Certificate,
    PublicKey,
    SignatureAlgorithm,
    load_public_key,
    parse_certificate,
    signed_by,
)

if TYPE_CHECKING:
    from enarx.attest.launch import PreBoot
    from enarx.attest.policy import TeeRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What one verification is made with."""

    collateral: Collateral
    anchors: TrustAnchors
    now: datetime
    """Aware. Certificates, lists and documents are judged at this time."""
    cache: Cache
    ledger: Ledger
    launch: PreBoot | None = None
    """What only who prepared the launch knows: SEV, SEV-ES and PEF cannot be judged without it, others ignore it."""

    def certificate(self, der: bytes) -> Certificate:
        """As ``x509.parse_certificate``, from memory if it was read before; those of the roots were."""
        return self.anchors.certificates.get(der) or self.cache.remember(parse_certificate, der)

    def load_key(self, spki: bytes) -> PublicKey:
        """As ``x509.load_public_key``, from memory if it was loaded before; those of the roots were."""
        return self.anchors.keys.get(spki) or self.cache.remember(load_public_key, spki)

    def is_signed(self, spki: bytes, algorithm: SignatureAlgorithm, signature: bytes, signed: bytes) -> bool:
        """As ``x509.signed_by``, from memory if it was computed before."""
        return self.cache.remember(signed_by, spki, algorithm, signature, signed, load=self.load_key)


class TeeVerifier(Protocol):
    """One kind of evidence. Implementations are stateless and thread-safe; ``enarx.attest.registry`` lists
    them.

    ``parse`` gives the TEE's own frozen type (``ParsedEvidence``) and ``verify`` takes that very type;
    between the two stands only the caller, hence ``Any`` here and precise types in the implementations.
    """

    @property
    def name(self) -> str:
        """The name by which a caller enables it."""
        ...

    @property
    def rules(self) -> Mapping[Tee, type[TeeRules]]:
        """The policy sections that it contributes."""
        ...

    def recognise(self, data: bytes) -> bool:
        """Say cheaply whether ``data`` looks like this evidence; never raises. It decides only which parser
        complains.
        """
        ...

    def parse(self, data: bytes) -> Any:
        """Read the bytes. Raises ``MalformedEvidence``; total for any bytes; nothing trails; reserved bytes
        are zero.
        """
        ...

    def verify(self, evidence: Any, context: Context) -> Verified:
        """Check signatures, chains, revocation, freshness. Raises ``EvidenceRejected``,
        ``CollateralMissing``, ``Malformed``.
        """
        ...
