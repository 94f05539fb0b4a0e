"""AMD SEV-SNP: attestation reports v2 to v5 of Milan, Genoa, Turin; endorsed by VCEK or VLEK.

VERIFIER: the kind of evidence to give to ``Verifier``
SnpRules: the policy section ``[snp]``
SnpDetail: ``claims.detail`` of an SNP verdict
"""

from enarx.attest.snp._policy import GuestPolicyRules, MinimumTcb, PlatformRules, SnpRules
from enarx.attest.snp._report import (
    Line,
    SigningKey,
    SnpEvidence,
    SnpReport,
    Tcb,
    parse_certificate_table,
    parse_evidence,
    parse_report,
)
from enarx.attest.snp._tee import VERIFIER
from enarx.attest.snp._verify import SnpDetail

__all__ = [
    "VERIFIER",
    "GuestPolicyRules",
    "Line",
    "MinimumTcb",
    "PlatformRules",
    "SigningKey",
    "SnpDetail",
    "SnpEvidence",
    "SnpReport",
    "SnpRules",
    "Tcb",
    "parse_certificate_table",
    "parse_evidence",
    "parse_report",
]
