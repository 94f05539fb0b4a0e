"""From a TDX quote to what it proves (the list of checks is in docs/reference/checks.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enarx.attest._eventlog import RTMRS
from enarx.attest.checks import Phrase
from enarx.attest.claims import Measurement, ReportData, Tee, Verified
from enarx.attest.dcap import Platform, SvnLevel, TcbVerdict, TdxModule
from enarx.attest.dcap._tcb import (
    converge,
    find_module,
    has_current_module,
    is_relaunch_enough,
    make_verdict,
    relaunch_status,
    sgx_level,
    svn_level,
    tdx_level,
)
from enarx.attest.dcap._verify import conclude, require_level, verify_platform
from enarx.attest.tdx._body import XFAM_FIXED, XFAM_KNOWN, TdReport, TdxQuote
from enarx.attest.tdx._log import verify_logs
from enarx.attest.tee import Context

_MEASURED: Final = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
_TDX_NAMES: Final = tuple(f"tdx{at:02}" for at in range(1, 17))


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxDetail:
    """What a TDX quote proves beside the claims that all TEEs have."""

    report: TdReport
    platform: Platform
    tcb: TcbVerdict
    module_id: str
    """``TDX_01`` and so on, or empty for a module of version 0."""
    explained: frozenset[int]
    """Which of RTMR0 to RTMR3 are zero or follow from an event log that was given."""

    @property
    def all_explained(self) -> bool:
        """Nothing was measured that no log tells of."""
        return len(self.explained) == RTMRS


def verify(evidence: TdxQuote, context: Context) -> Verified:
    """Verify one quote.

    1. Who signed it, and what Intel says of the platform. 2. The TDX module is Intel's. 3. Event logs lead to the
       registers. 4. Levels of platform and module, and the status that follows. 5. What holds in every TD.

    Raises ``EvidenceRejected``, ``CollateralMissing``, ``Malformed``.
    """
    quote, report = evidence.quote, evidence.report
    platform = verify_platform(quote, context)  # 1
    module = _verify_module(report, platform, context)  # 2
    explained = verify_logs(report, context)  # 3
    verdict = _verdict(evidence, platform, module, context)  # 4
    _verify_td(report, context)  # 5
    conclude(quote, verdict, context)
    pck = platform.pck
    return Verified(
        tee=Tee.TDX,
        measurement=Measurement(report.mrtd),
        measurements={name: getattr(report, name) for name in _MEASURED},
        report_data=ReportData(report.report_data),
        debug=report.td_attributes.debug,
        memory_protected=True,
        tcb={**pck.tcb(), **dict(zip(_TDX_NAMES, report.tee_tcb_svn, strict=True))},
        tcb_status=verdict.status.value,
        signer=report.mrsigner_seam,
        chip_id=pck.ppid,
        revocation=platform.revocation,
        root=platform.pck_chain.anchor,
        evidence=evidence,
        detail=TdxDetail(
            report=report, platform=platform, tcb=verdict, module_id=module.id, explained=explained
        ),
    )


def _verify_module(report: TdReport, platform: Platform, context: Context) -> TdxModule:
    ledger = context.ledger
    module = _module(report.tee_tcb_svn[1], platform, context, "tdx.module.known", "tee_tcb_svn")
    ledger.equal(
        "tdx.module.signer",
        module.mrsigner,
        report.mrsigner_seam,
        field="mrsigner_seam",
        advice="the TDX module is not Intel's",
    )
    mask = int.from_bytes(module.attributes_mask, "little")
    masked = (int.from_bytes(report.seam_attributes, "little") & mask).to_bytes(8, "little")
    ledger.require(
        "tdx.module.attributes",
        masked == module.attributes,
        field="seam_attributes",
        expected=module.attributes,
        found=masked,
        advice="the TDX module is not the one that Intel describes",
    )
    ledger.require(
        "tdx.module.attributes.zero",
        not any(report.seam_attributes),
        field="seam_attributes",
        expected=bytes(8),
        found=report.seam_attributes,
        advice="a TDX module for debugging or of another kind",
    )
    return module


def _module(version: int, platform: Platform, context: Context, name: str, field: str) -> TdxModule:
    module = find_module(platform.tcb_info, version)
    context.ledger.require(
        name,
        module is not None,
        field=field,
        expected=Phrase("one of the {} that Intel knows", len(platform.tcb_info.modules)),
        found=f"TDX_{version:02X}",
        advice="Intel does not know this TDX module, or the TCB info is older than it",
    )
    assert module is not None  # noqa: S101 -- require raised otherwise; this tells the type checker
    return module


def _verdict(evidence: TdxQuote, platform: Platform, module: TdxModule, context: Context) -> TcbVerdict:
    """The platform's level, the module's and the quoting enclave's, in the order in which Intel puts them together."""
    report, info, pck = evidence.report, platform.tcb_info, platform.pck
    of_sgx = require_level(sgx_level(info, pck), evidence.quote, platform, context)
    level = require_level(tdx_level(info, pck, report.tee_tcb_svn), evidence.quote, platform, context)
    of_module = _module_level(report, module, context) if module.levels else None
    qe = platform.qe_level
    converged = converge(level.status, of_module.status) if of_module else level.status
    if report.tee_tcb_svn2 is not None and is_relaunch_enough(
        sgx=of_sgx.status,
        converged=converged,
        module=of_module.status if of_module else None,
        qe=qe.status,
    ):
        now = _module(report.tee_tcb_svn2[1], platform, context, "tdx.module.current", "tee_tcb_svn2")
        if has_current_module(info, now, report.tee_tcb_svn2):
            converged = relaunch_status(of_sgx.status, converged)
    return make_verdict(converge(converged, qe.status), level, qe, of_module)


def _module_level(report: TdReport, module: TdxModule, context: Context) -> SvnLevel:
    level = svn_level(module.levels, report.tee_tcb_svn[0])
    context.ledger.require(
        "tdx.module.level",
        level is not None,
        field="tee_tcb_svn",
        expected=Phrase("{} of at least {}", module.id, module.levels[-1].isv_svn),
        found=report.tee_tcb_svn[0],
        advice="Intel does not support this version of the TDX module",
    )
    assert level is not None  # noqa: S101 -- require raised otherwise; this tells the type checker
    return level


def _verify_td(report: TdReport, context: Context) -> None:
    ledger, attributes = context.ledger, report.td_attributes
    ledger.require(
        "tdx.attributes.reserved",
        not attributes.reserved,
        field="td_attributes.reserved",
        expected="no bit set that has no meaning",
        found=hex(attributes.reserved),
        advice="a TD with a property that this release does not know",
    )
    ledger.require(
        "tdx.xfam.fixed",
        report.xfam & XFAM_FIXED == XFAM_FIXED,
        field="xfam",
        expected=Phrase("bits 0 and 1 set"),
        found=hex(report.xfam),
        advice="no TDX module starts such a TD",
    )
    if unknown := report.xfam & ~XFAM_KNOWN:
        ledger.note(
            "tdx.xfam.unknown",
            field="xfam",
            expected="features that we know",
            found=hex(unknown),
            advice="newer hardware has features that this release does not know",
        )
