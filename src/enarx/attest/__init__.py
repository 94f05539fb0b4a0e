"""Judge evidence of trusted execution environments: offline, failing closed, explaining every verdict.

    verifier = Verifier(tees=[snp.VERIFIER], anchors=TrustAnchors.vendor(), policy=Policy.parse(text,
    [snp.VERIFIER])) claims = verifier.verify(report, collateral=Collateral.from_pem(chain),
    binding=report_data, now=now)

Raises ``Malformed`` (no evidence we know), ``EvidenceRejected`` (not to be trusted), its subclass
``PolicyDenied`` (genuine, but not what the policy accepts) or ``CollateralMissing``; all are
``enarx.tcb.errors.EnarxError``.
"""

from enarx.attest._verifier import AnyBinding, Verifier
from enarx.attest.anchors import Anchor, TrustAnchors, Vendor
from enarx.attest.cache import Cache
from enarx.attest.checks import Check, Outcome, explain, uncovered
from enarx.attest.claims import Claims, Measurement, ReportData, Revocation, Tee
from enarx.attest.collateral import Collateral, Document, Kind
from enarx.attest.errors import (
    CollateralMissing,
    EvidenceRejected,
    MalformedCollateral,
    MalformedEvidence,
    PolicyDenied,
    PolicyError,
)
from enarx.attest.policy import AuthenticityOnly, Policy
from enarx.attest.tee import TeeVerifier

__all__ = [
    "Anchor",
    "AnyBinding",
    "AuthenticityOnly",
    "Cache",
    "Check",
    "Claims",
    "Collateral",
    "CollateralMissing",
    "Document",
    "EvidenceRejected",
    "Kind",
    "MalformedCollateral",
    "MalformedEvidence",
    "Measurement",
    "Outcome",
    "Policy",
    "PolicyDenied",
    "PolicyError",
    "ReportData",
    "Revocation",
    "Tee",
    "TeeVerifier",
    "TrustAnchors",
    "Vendor",
    "Verifier",
    "explain",
    "uncovered",
]
