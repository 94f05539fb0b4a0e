"""TPM 2.0: quotes of PCRs, by an attestation key that is certified or that the caller enrolled.

VERIFIER: the kind of evidence to give to ``Verifier``; binding is compared with the qualifying data
TpmRules: the policy section ``[tpm]``
TpmDetail: ``claims.detail`` of a TPM verdict
"""

from enarx.attest.tpm._files import find_certificate, looks_like_quote, looks_like_signature, read_tpm2_pcrs
from enarx.attest.tpm._policy import TpmRules
from enarx.attest.tpm._quote import TpmQuote, pack_evidence, parse_evidence, parse_quote
from enarx.attest.tpm._tee import VERIFIER
from enarx.attest.tpm._verify import TpmDetail

__all__ = [
    "VERIFIER",
    "TpmDetail",
    "TpmQuote",
    "TpmRules",
    "find_certificate",
    "looks_like_quote",
    "looks_like_signature",
    "pack_evidence",
    "parse_evidence",
    "parse_quote",
    "read_tpm2_pcrs",
]
