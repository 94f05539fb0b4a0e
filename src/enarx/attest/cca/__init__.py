"""Arm CCA: attestation tokens of realms, by a platform attestation key that the caller enrolled.

VERIFIER: the kind of evidence to give to ``Verifier``; binding is compared with the realm's challenge, 64 bytes
CcaRules: the policy section ``[cca]``
CcaDetail: ``claims.detail`` of a CCA verdict
"""

from enarx.attest.cca._policy import CcaRules
from enarx.attest.cca._tee import VERIFIER
from enarx.attest.cca._token import CcaToken, Lifecycle, PlatformToken, RealmToken, parse_token
from enarx.attest.cca._verify import CcaDetail

__all__ = [
    "VERIFIER",
    "CcaDetail",
    "CcaRules",
    "CcaToken",
    "Lifecycle",
    "PlatformToken",
    "RealmToken",
    "parse_token",
]
