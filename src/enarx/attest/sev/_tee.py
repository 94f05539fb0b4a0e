"""SEV and SEV-ES as one of the kinds of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enarx.attest.claims import Tee, Verified
from enarx.attest.policy import TeeRules
from enarx.attest.sev._evidence import LaunchEvidence
from enarx.attest.sev._policy import SevRules
from enarx.attest.sev._proven import looks_like_launch, parse_launch
from enarx.attest.sev._verify import verify
from enarx.attest.tee import Context, TeeVerifier


class _Sev:
    name = "sev"
    rules: Mapping[Tee, type[TeeRules]] = {Tee.SEV: SevRules, Tee.SEV_ES: SevRules}

    def recognise(self, data: bytes) -> bool:
        """An array that begins with the name of our form, or a collection of one and a proof."""
        return looks_like_launch(data)

    def parse(self, data: bytes) -> LaunchEvidence:
        """Read launch evidence."""
        return parse_launch(data)

    def verify(self, evidence: LaunchEvidence, context: Context) -> Verified:
        """Verify it; the steps are in ``_verify``."""
        return verify(evidence, context)


VERIFIER: Final[TeeVerifier] = _Sev()
