"""Intel SGX: DCAP quotes of versions 3 to 5 of an enclave.

VERIFIER: the kind of evidence to give to ``Verifier``
SgxRules: the policy section ``[sgx]``
SgxDetail: ``claims.detail`` of an SGX verdict
"""

from enarx.attest.sgx._body import SgxQuote, parse_sgx_quote
from enarx.attest.sgx._policy import AttributeRules, SgxRules
from enarx.attest.sgx._tee import VERIFIER
from enarx.attest.sgx._verify import SgxDetail

__all__ = ["VERIFIER", "AttributeRules", "SgxDetail", "SgxQuote", "SgxRules", "parse_sgx_quote"]
