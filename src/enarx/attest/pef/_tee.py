"""PEF as one of the kinds of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enarx.attest.claims import Tee, Verified
from enarx.attest.launch_proof import LaunchProof, looks_like_proof, parse_proof
from enarx.attest.pef._policy import PefRules
from enarx.attest.pef._verify import verify
from enarx.attest.policy import TeeRules
from enarx.attest.tee import Context, TeeVerifier


class _Pef:
    name = "pef"
    rules: Mapping[Tee, type[TeeRules]] = {Tee.PEF: PefRules}

    def recognise(self, data: bytes) -> bool:
        """A proof of a launch secret, and nothing else."""
        return looks_like_proof(data)

    def parse(self, data: bytes) -> LaunchProof:
        """Read a proof."""
        return parse_proof(data)

    def verify(self, evidence: LaunchProof, context: Context) -> Verified:
        """Verify it; the steps are in ``_verify``."""
        return verify(evidence, context)


VERIFIER: Final[TeeVerifier] = _Pef()
