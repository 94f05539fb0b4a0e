"""TDX as one of the kinds of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enarx.attest.claims import Tee, Verified
from enarx.attest.dcap import TeeType, looks_like_quote
from enarx.attest.policy import TeeRules
from enarx.attest.tdx._body import TdxQuote, parse_tdx_quote
from enarx.attest.tdx._policy import TdxRules
from enarx.attest.tdx._verify import verify
from enarx.attest.tee import Context, TeeVerifier


class _Tdx:
    name = "tdx"
    rules: Mapping[Tee, type[TeeRules]] = {Tee.TDX: TdxRules}

    def recognise(self, data: bytes) -> bool:
        """A quote of version 4 or 5 with TEE type 0x81."""
        return looks_like_quote(data, TeeType.TDX)

    def parse(self, data: bytes) -> TdxQuote:
        """Read a quote."""
        return parse_tdx_quote(data)

    def verify(self, evidence: TdxQuote, context: Context) -> Verified:
        """Verify it; the steps are in ``_verify``."""
        return verify(evidence, context)


VERIFIER: Final[TeeVerifier] = _Tdx()
