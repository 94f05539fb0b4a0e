"""From an SGX quote to what it proves (the list of checks is in docs/reference/checks.md)."""

from __future__ import annotations

from dataclasses import dataclass

from enarx.attest.claims import Measurement, ReportData, Tee, Verified
from enarx.attest.dcap import EnclaveReport, Platform, TcbVerdict
from enarx.attest.dcap._tcb import converge, make_verdict, sgx_level
from enarx.attest.dcap._verify import conclude, require_level, verify_platform
from enarx.attest.sgx._body import SgxQuote
from enarx.attest.tee import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxDetail:
    """What an SGX quote proves beside the claims that all TEEs have."""

    report: EnclaveReport
    platform: Platform
    tcb: TcbVerdict


def verify(evidence: SgxQuote, context: Context) -> Verified:
    """Verify one quote.

    1. Who signed it, and what Intel says of the platform. 2. The platform's level and status.

    Raises ``EvidenceRejected``, ``CollateralMissing``, ``Malformed``.
    """
    quote, report = evidence.quote, evidence.report
    platform = verify_platform(quote, context)  # 1
    level = require_level(sgx_level(platform.tcb_info, platform.pck), quote, platform, context)  # 2
    qe = platform.qe_level
    verdict = make_verdict(converge(level.status, qe.status), level, qe, None)
    if unknown := report.attributes.unknown:
        context.ledger.note(
            "sgx.attributes.unknown",
            field="attributes.unknown",
            expected="flags that we know",
            found=hex(unknown),
            advice="newer hardware may set flags that this release does not know",
        )
    conclude(quote, verdict, context)
    pck = platform.pck
    return Verified(
        tee=Tee.SGX,
        measurement=Measurement(report.mrenclave),
        measurements={"mrenclave": report.mrenclave, "mrsigner": report.mrsigner},
        report_data=ReportData(report.report_data),
        debug=report.attributes.debug,
        memory_protected=True,
        tcb=pck.tcb(),
        tcb_status=verdict.status.value,
        signer=report.mrsigner,
        chip_id=pck.ppid,
        revocation=platform.revocation,
        root=platform.pck_chain.anchor,
        evidence=evidence,
        detail=SgxDetail(report=report, platform=platform, tcb=verdict),
    )
