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

if TYPE_CHECKING:
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
