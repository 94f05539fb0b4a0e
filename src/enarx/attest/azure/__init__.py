"""Confidential virtual machines of Azure: SNP or TDX vouches for a paravisor, whose virtual TPM quotes the guest.

VERIFIER: the kind of evidence to give to ``Verifier``; binding is compared with the quote's qualifying data
AzureSnpRules, AzureTdxRules: the policy sections ``[azure-snp]`` and ``[azure-tdx]``
AzureSnpDetail, AzureTdxDetail: ``claims.detail`` of a verdict
pack_evidence: the collection that a guest shows
parse_hcl_report: the paravisor's report alone
"""

from enarx.attest.azure._evidence import AzureEvidence, pack_evidence, parse_evidence
from enarx.attest.azure._hcl import HclReport, RuntimeData, parse_hcl_report
from enarx.attest.azure._policy import AzureSnpRules, AzureTdxRules
from enarx.attest.azure._tee import VERIFIER
from enarx.attest.azure._verify import AzureSnpDetail, AzureTdxDetail

__all__ = [
    "VERIFIER",
    "AzureEvidence",
    "AzureSnpDetail",
    "AzureSnpRules",
    "AzureTdxDetail",
    "AzureTdxRules",
    "HclReport",
    "RuntimeData",
    "pack_evidence",
    "parse_evidence",
    "parse_hcl_report",
]
