"""SEV-SNP as one of the kinds of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enarx.attest.claims import Tee, Verified
from enarx.attest.policy import TeeRules
from enarx.attest.snp._policy import SnpRules
from enarx.attest.snp._report import REPORT_BYTES, SnpEvidence, parse_evidence
from enarx.attest.snp._verify import verify
from enarx.attest.tee import Context, TeeVerifier


class _Snp:
    name = "snp"
    rules: Mapping[Tee, type[TeeRules]] = {Tee.SNP: SnpRules}

    def recognise(self, data: bytes) -> bool:
        """A small version number and the one signature algorithm, in at least the size of a report."""
        version, algorithm = int.from_bytes(data[:4], "little"), int.from_bytes(data[0x34:0x38], "little")
        return len(data) == REPORT_BYTES or (len(data) > REPORT_BYTES and 0 < version < 32 and algorithm == 1)

    def parse(self, data: bytes) -> SnpEvidence:
        """Read a report, alone or with the certificates of an extended report."""
        return parse_evidence(data)

    def verify(self, evidence: SnpEvidence, context: Context) -> Verified:
        """Verify it; the steps are in ``_verify``."""
        return verify(evidence, context)


VERIFIER: Final[TeeVerifier] = _Snp()
