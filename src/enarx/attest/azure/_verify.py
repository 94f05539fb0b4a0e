"""From evidence of Azure to what it proves.

Hardware vouches for the paravisor and, by a hash, for the attestation key of the virtual TPM that the paravisor runs;
that key vouches for the PCRs and the challenge. A certificate of the key never stands in for the hardware: whoever can
replace the key in the virtual TPM (CVE-2025-49707) has one too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from enarx.attest.anchors import TrustAnchors, Vendor
from enarx.attest.azure._evidence import AzureEvidence
from enarx.attest.azure._hcl import RuntimeData, td_report_body
from enarx.attest.chain import verify_chain, verify_not_revoked
from enarx.attest.claims import Tee, Verified
from enarx.attest.collateral import Kind
from enarx.attest.dcap import BodyType
from enarx.attest.snp import VERIFIER as SNP
from enarx.attest.snp import SnpDetail, SnpEvidence
from enarx.attest.tdx import VERIFIER as TDX
from enarx.attest.tdx import TdxDetail, TdxQuote
from enarx.attest.tee import Context
from enarx.attest.tpm import VERIFIER as TPM
from enarx.attest.x509 import Certificate, parse_certificate

_SUBJECT_ALTERNATIVE_NAME: Final = "2.5.29.17"
_DIGITAL_SIGNATURE: Final = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSnpDetail(SnpDetail):
    """What SNP proves, and what follows from it."""

    runtime: RuntimeData
    vtpm: Verified
    """What the quote of the virtual TPM proves; its root is the attestation key."""
    ak_certified: bool
    """A certificate of the attestation key was given that leads to a root of Azure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureTdxDetail(TdxDetail):
    """What TDX proves, and what follows from it."""

    runtime: RuntimeData
    vtpm: Verified
    """As in ``AzureSnpDetail``."""
    ak_certified: bool


def verify(evidence: AzureEvidence, context: Context) -> Verified:
    """Verify one machine.

    1. The hardware's report or quote, and that nobody but the paravisor can have asked for it. 2. It vouches for the
       runtime data. 3. A certificate of the attestation key, if one was given. 4. The quote of the virtual TPM, by the
       key in the runtime data and no other.

    Raises ``EvidenceRejected``, ``CollateralMissing``, ``Malformed``.
    """
    hardware = _verify_hardware(evidence, context)  # 1
    context.ledger.equal(  # 2
        "azure.runtime_data",
        evidence.hcl.expected_report_data,
        hardware.report_data,
        field="hardware_report_data",
        advice="the hardware does not vouch for these runtime data: keys or configuration were replaced",
    )
    runtime = evidence.hcl.runtime
    certified = _verify_ak_certificate(evidence, context)  # 3
    (ak,) = TrustAnchors.none().adding(runtime.ak, name=f"virtual TPM under {hardware.root.name}").anchors
    ak = dataclasses.replace(ak, is_vendor=hardware.root.is_vendor)
    vtpm = TPM.verify(evidence.quote, dataclasses.replace(context, anchors=TrustAnchors((ak,))))  # 4
    vtpm = dataclasses.replace(
        vtpm, memory_protected=hardware.memory_protected
    )  # it is part of the paravisor
    more: dict[str, Any] = {"runtime": runtime, "vtpm": vtpm, "ak_certified": certified}
    return dataclasses.replace(
        hardware,
        tee=Tee.AZURE_SNP if hardware.tee is Tee.SNP else Tee.AZURE_TDX,
        measurements={**hardware.measurements, **vtpm.measurements},
        report_data=vtpm.report_data,
        evidence=evidence,
        detail=_detail(hardware.detail, more),
    )


def _verify_hardware(evidence: AzureEvidence, context: Context) -> Verified:
    """The hardware knows no event log: those given are of the virtual TPM."""
    documents = tuple(one for one in context.collateral.documents if one.kind is not Kind.EVENT_LOG)
    context = dataclasses.replace(
        context, collateral=dataclasses.replace(context.collateral, documents=documents)
    )
    match evidence.hardware:
        case SnpEvidence() as report:
            verified = SNP.verify(report, context)
            context.ledger.require(
                "azure.vmpl",
                report.report.vmpl == 0,
                field="vmpl",
                expected=0,
                found=report.report.vmpl,
                advice="the guest asked for this report, and can have put anything into it; the paravisor runs at 0",
            )
        case TdxQuote() as quote:
            verified = TDX.verify(quote, context)
            late = quote.quote.body_type is BodyType.TD_1_5
            context.ledger.equal(
                "azure.td_report",
                td_report_body(evidence.hcl.hardware, with_1_5=late),
                quote.quote.body,
                field=(),
                advice="the quote is of another report than the one that the paravisor kept",
            )
    return verified


def _verify_ak_certificate(evidence: AzureEvidence, context: Context) -> bool:
    remember, ak = context.cache.remember, evidence.hcl.runtime.ak
    others = [remember(parse_certificate, der) for der in context.collateral.certificates]
    leaf: Certificate | None
    if evidence.certificate is not None:
        leaf = remember(parse_certificate, evidence.certificate)
        context.ledger.equal(
            "azure.ak_certificate.key",
            ak,
            leaf.spki,
            field=(),
            advice="the certificate is of the key of another virtual TPM",
        )
    else:
        now = context.now
        fits = (one for one in others if one.spki == ak and one.not_before <= now <= one.not_after)
        leaf = next(fits, None)
    if leaf is None:
        return False
    chain = verify_chain(
        leaf,
        others,
        context,
        vendor=Vendor.AZURE_VTPM,
        name="azure.ak_certificate.chain",
        understood=frozenset({_SUBJECT_ALTERNATIVE_NAME}),
    )
    context.ledger.require(
        "azure.ak_certificate.usage",
        leaf.key_usage is not None and leaf.key_usage & _DIGITAL_SIGNATURE != 0,
        expected=f"digitalSignature (bit {_DIGITAL_SIGNATURE})",
        found=leaf.key_usage,
    )
    verify_not_revoked(chain.issued(), context, name="azure.ak_certificate.crl")
    return True


def _detail(hardware: object, more: dict[str, Any]) -> AzureSnpDetail | AzureTdxDetail:
    assert isinstance(hardware, SnpDetail | TdxDetail)  # noqa: S101 -- what the two verifiers give
    own = {field.name: getattr(hardware, field.name) for field in dataclasses.fields(hardware)}
    made = AzureSnpDetail if isinstance(hardware, SnpDetail) else AzureTdxDetail
    return made(**own, **more)
