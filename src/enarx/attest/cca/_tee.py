"""Arm CCA as one of the kinds of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enarx.attest.cca._policy import CcaRules
from enarx.attest.cca._token import CcaToken, parse_token
from enarx.attest.cca._verify import verify
from enarx.attest.claims import Tee, Verified
from enarx.attest.policy import TeeRules
from enarx.attest.tee import Context, TeeVerifier


class _Cca:
    name = "cca"
    rules: Mapping[Tee, type[TeeRules]] = {Tee.CCA: CcaRules}

    def recognise(self, data: bytes) -> bool:
        """CBOR tag 399, on whatever."""
        return data[:3] == b"\xd9\x01\x8f"

    def parse(self, data: bytes) -> CcaToken:
        """Read a token."""
        return parse_token(data)

    def verify(self, evidence: CcaToken, context: Context) -> Verified:
        """Verify it; the steps are in ``_verify``."""
        return verify(evidence, context)


VERIFIER: Final[TeeVerifier] = _Cca()
