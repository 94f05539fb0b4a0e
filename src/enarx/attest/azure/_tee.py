"""Confidential virtual machines of Azure as one of the kinds of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enarx.attest.azure._evidence import AzureEvidence, looks_like_evidence, parse_evidence
from enarx.attest.azure._policy import AzureSnpRules, AzureTdxRules
from enarx.attest.azure._verify import verify
from enarx.attest.claims import Tee, Verified
from enarx.attest.policy import TeeRules
from enarx.attest.tee import Context, TeeVerifier


class _Azure:
    name = "azure"
    rules: Mapping[Tee, type[TeeRules]] = {Tee.AZURE_SNP: AzureSnpRules, Tee.AZURE_TDX: AzureTdxRules}

    def recognise(self, data: bytes) -> bool:
        """A collection or JSON with an HCL report in it, or such a report alone."""
        return looks_like_evidence(data)

    def parse(self, data: bytes) -> AzureEvidence:
        """Read a collection, or the JSON of the guests' tools."""
        return parse_evidence(data)

    def verify(self, evidence: AzureEvidence, context: Context) -> Verified:
        """Verify it; the steps are in ``_verify``."""
        return verify(evidence, context)


VERIFIER: Final[TeeVerifier] = _Azure()
