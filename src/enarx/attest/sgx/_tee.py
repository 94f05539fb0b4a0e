"""SGX as one of the kinds of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enarx.attest.claims import Tee, Verified
from enarx.attest.dcap import TeeType, looks_like_quote
from enarx.attest.policy import TeeRules
from enarx.attest.sgx._body import SgxQuote, parse_sgx_quote
from enarx.attest.sgx._policy import SgxRules
from enarx.attest.sgx._verify import verify
from enarx.attest.tee import Context, TeeVerifier


class _Sgx:
    name = "sgx"
    rules: Mapping[Tee, type[TeeRules]] = {Tee.SGX: SgxRules}

    def recognise(self, data: bytes) -> bool:
        """A quote of version 3 to 5 with TEE type 0."""
        return looks_like_quote(data, TeeType.SGX)

    def parse(self, data: bytes) -> SgxQuote:
        """Read a quote."""
        return parse_sgx_quote(data)

    def verify(self, evidence: SgxQuote, context: Context) -> Verified:
        """Verify it; the steps are in ``_verify``."""
        return verify(evidence, context)


VERIFIER: Final[TeeVerifier] = _Sgx()
