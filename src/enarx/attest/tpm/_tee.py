"""TPM 2.0 as one of the kinds of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enarx.attest import cmw
from enarx.attest.claims import Tee, Verified
from enarx.attest.errors import MalformedEvidence
from enarx.attest.policy import TeeRules
from enarx.attest.tee import Context, TeeVerifier
from enarx.attest.tpm._policy import TpmRules
from enarx.attest.tpm._quote import TpmQuote, parse_evidence
from enarx.attest.tpm._verify import verify


class _Tpm:
    name = "tpm"
    rules: Mapping[Tee, type[TeeRules]] = {Tee.TPM: TpmRules}

    def recognise(self, data: bytes) -> bool:
        """A collection that has a quote and no report of other hardware."""
        if not cmw.looks_like(data):
            return False
        try:
            found = cmw.parse(data)
        except MalformedEvidence:
            return False
        return isinstance(found, cmw.Collection) and {"quote", "signature"} <= set(found.items)

    def parse(self, data: bytes) -> TpmQuote:
        """Read a collection of the files of a quote."""
        return parse_evidence(data)

    def verify(self, evidence: TpmQuote, context: Context) -> Verified:
        """Verify it; the steps are in ``_verify``."""
        return verify(evidence, context)


VERIFIER: Final[TeeVerifier] = _Tpm()
