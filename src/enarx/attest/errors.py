"""What can go wrong when evidence is judged, and who must act.

``MalformedEvidence`` and ``MalformedCollateral``: the sender. ``EvidenceRejected``: nobody; do not trust it.
``PolicyDenied``: it is genuine, but not what the policy asks for. ``CollateralMissing``: the caller must
supply more. ``PolicyError``: the author of the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from enarx.tcb.errors import EnarxError, Malformed, Unavailable

if TYPE_CHECKING:
    from enarx.attest.checks import Check


class MalformedEvidence(Malformed):
    """The evidence is no structure we know: its sender is broken or hostile."""


class MalformedCollateral(Malformed):
    """A certificate, revocation list or signed document is not in the form it claims."""


class PolicyError(Malformed):
    """The policy itself is wrong: unknown key, empty list, zero digest, missing measurement."""


class _JudgedError(EnarxError):
    """An error with the check that failed and all checks made until then."""

    def __init__(self, check: Check, checks: Sequence[Check]) -> None:
        super().__init__(f"{check.name}: {check.sentence()}", hint=check.advice)
        self.check = check
        self.checks = tuple(checks)


class EvidenceRejected(_JudgedError):
    """The evidence must not be trusted. ``check`` is the check that failed, ``checks`` all that were made."""


class PolicyDenied(EvidenceRejected):
    """The evidence is genuine, but the policy does not accept it. ``failures`` are the rules it breaks."""

    def __init__(self, failures: Sequence[Check], checks: Sequence[Check]) -> None:
        super().__init__(failures[0], checks)
        self.failures = tuple(failures)


class CollateralMissing(_JudgedError, Unavailable):
    """Nothing can be said: a certificate, revocation list or signed document that is needed was not given."""
