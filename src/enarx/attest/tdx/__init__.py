"""Intel TDX: DCAP quotes of versions 4 and 5 of a trust domain, reports 1.0 and 1.5.

VERIFIER: the kind of evidence to give to ``Verifier``
TdxRules: the policy section ``[tdx]``
TdxDetail: ``claims.detail`` of a TDX verdict
"""

from enarx.attest.tdx._body import TdAttributes, TdReport, TdxQuote, parse_td_report, parse_tdx_quote
from enarx.attest.tdx._policy import TdAttributeRules, TdxRules
from enarx.attest.tdx._tee import VERIFIER
from enarx.attest.tdx._verify import TdxDetail

__all__ = [
    "VERIFIER",
    "TdAttributeRules",
    "TdAttributes",
    "TdReport",
    "TdxDetail",
    "TdxQuote",
    "TdxRules",
    "parse_td_report",
    "parse_tdx_quote",
]
