"""From evidence to claims, in numbered steps."""

from __future__ import annotations

import dataclasses
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from enarx.attest.anchors import TrustAnchors
from enarx.attest.bundle import unpack
from enarx.attest.cache import Cache
from enarx.attest.checks import Ledger
from enarx.attest.claims import Claims, Verified
from enarx.attest.collateral import Collateral
from enarx.attest.errors import MalformedEvidence
from enarx.attest.policy import AuthenticityOnly, Policy
from enarx.attest.tee import Context, TeeVerifier

if TYPE_CHECKING:
    from enarx.attest.launch import PreBoot

MAX_EVIDENCE_BYTES: Final = 1024 * 1024
"""Quotes have 1 to 12 KiB; evidence with event logs a few hundred."""


_VERIFIED: Final = tuple(field.name for field in dataclasses.fields(Verified))


@dataclass(frozen=True, slots=True)
class AnyBinding:
    """Written out where evidence is judged without a challenge: it may be a replay, and the claims say
    ``bound=False``.
    """


class Verifier:
    """Judge evidence of the given kinds, offline, failing closed. Stateless but for ``cache``; may be used by
    many threads.

    Examples are in docs/how-to and the numbered steps in ``verify``.
    """

    def __init__(
        self,
        *,
        tees: Sequence[TeeVerifier],
        anchors: TrustAnchors,
        policy: Policy | AuthenticityOnly,
        cache: Cache | None = None,
    ) -> None:
        """``cache`` may be shared between verifiers; without one every verification is cold."""
        if not tees:
            raise ValueError("a verifier without TEEs can accept nothing")
        self._tees = tuple(tees)
        self._anchors = anchors
        self._policy = policy
        self._cache = cache

    def verify(
        self,
        evidence: bytes,
        *,
        collateral: Collateral,
        binding: bytes | AnyBinding,
        now: datetime,
        launch: PreBoot | None = None,
    ) -> Claims:
        """Give what ``evidence`` proves at ``now``.

        1. Open the envelope (CMW record, or a collection of evidence and collateral), if there is one, and recognise
           the kind of evidence among those enabled.
        2. Parse it.
        3. Verify signatures, chain to a pinned root, revocation and freshness.
        4. Compare report data with ``binding``: every byte, in constant time.
        5. Appraise by the policy.

        ``launch``: what the owner of the guest kept, without which evidence of SEV, SEV-ES and PEF is refused.

        Raises ``Malformed`` (1, 2), ``EvidenceRejected`` (3, 4), ``CollateralMissing`` (3), ``PolicyDenied``
        (5).
        """
        if now.tzinfo is None:
            raise ValueError("now has no time zone")
        ledger = Ledger()
        _check_size(evidence)  # 1
        evidence, carried = unpack(evidence)
        tee, evidence = _find(evidence, self._tees)
        parsed = tee.parse(evidence)  # 2
        context = Context(
            collateral=collateral if carried is None else collateral | carried,
            anchors=self._anchors,
            now=now,
            cache=self._cache if self._cache is not None else Cache(),
            ledger=ledger,
            launch=launch,
        )
        verified: Verified = tee.verify(parsed, context)  # 3
        if isinstance(binding, AnyBinding):  # 4
            ledger.note(
                "binding.report_data",
                expected="a challenge of this session",
                found=verified.report_data,
                advice="nothing says that this evidence was made for you: it may be a replay",
            )
        else:
            ledger.require(
                "binding.report_data",
                binding != b"" and hmac.compare_digest(binding, verified.report_data),
                field="report_data",
                expected=binding,
                found=verified.report_data,
                advice="the evidence was made for another session, key or challenge",
            )
        if isinstance(self._policy, Policy):  # 5
            self._policy.appraise(verified, ledger)
        return Claims(
            **{name: getattr(verified, name) for name in _VERIFIED},
            bound=not isinstance(binding, AnyBinding),
            policy_digest=self._policy.digest if isinstance(self._policy, Policy) else None,
            checks=ledger.checks(),
        )


def recognise(evidence: bytes, tees: Sequence[TeeVerifier]) -> tuple[TeeVerifier, bytes]:
    """Find the one TEE whose evidence this looks like, and give the evidence without its envelope.

    Raises ``MalformedEvidence`` when it looks like none or several.
    """
    _check_size(evidence)
    return _find(unpack(evidence)[0], tees)


def _check_size(evidence: bytes) -> None:
    """Refuse what is too large to be looked at."""
    if len(evidence) > MAX_EVIDENCE_BYTES:
        raise MalformedEvidence(
            f"evidence has {len(evidence)} bytes, at most {MAX_EVIDENCE_BYTES} are allowed"
        )


def _find(opened: bytes, tees: Sequence[TeeVerifier]) -> tuple[TeeVerifier, bytes]:
    found = [tee for tee in tees if tee.recognise(opened)]
    if len(found) != 1:
        looks = " and ".join(tee.name for tee in found) or "no evidence that is enabled"
        raise MalformedEvidence(
            f"evidence of {len(opened)} bytes looks like {looks}",
            hint=f"enabled are {', '.join(tee.name for tee in tees)}",
        )
    return found[0], opened
