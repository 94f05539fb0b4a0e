"""From a report to what it proves (AMD 56860 and 57230)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from enarx.attest.anchors import Vendor
from enarx.attest.chain import Chain, verify_chain, verify_not_revoked
from enarx.attest.checks import Ledger, Phrase
from enarx.attest.claims import Measurement, ReportData, Tee, Verified
from enarx.attest.snp._certs import Endorsement, chain_names, is_amd_name, read_endorsement
from enarx.attest.snp._report import (
    GuestPolicy,
    Line,
    PlatformInfo,
    SigningKey,
    SnpEvidence,
    SnpReport,
    Tcb,
)
from enarx.attest.tee import Context
from enarx.attest.x509 import Certificate, SignatureAlgorithm

_P384_ORDER: Final = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)
_PSS: Final = (SignatureAlgorithm.RSA_PSS_SHA384, SignatureAlgorithm.RSA_PSS_SHA384_TRAILER)
_SIGNATURE: Final = ec.ECDSA(hashes.SHA384())


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpDetail:
    """What an SNP report proves beside the claims that all TEEs have."""

    report: SnpReport
    endorsement: Endorsement
    line: Line
    signing_key: SigningKey
    csp_id: str | None
    policy: GuestPolicy
    platform: PlatformInfo
    current_tcb: Tcb
    reported_tcb: Tcb
    committed_tcb: Tcb
    launch_tcb: Tcb
    chip_hidden: bool
    """CHIP_ID is zero: which machine this is cannot be told."""
    provisional_firmware: bool
    """The running firmware is not committed: the host can still go back to an older one."""


def verify(evidence: SnpEvidence, context: Context) -> Verified:
    """Verify one report.

    1. The guest asked for it, and it was signed. 2. Find the certificate that endorses its key. 3. Chain to a
       pinned root; names, algorithms. 4. Revocation. 5. Signature. 6. The certificate is of this chip and
       this firmware. 7. The report agrees with itself.

    Raises ``EvidenceRejected``, ``CollateralMissing``, ``Malformed``.
    """
    report, ledger = evidence.report, context.ledger
    ledger.require(  # 1
        "snp.vmpl.guest",
        report.vmpl <= 3,
        field="vmpl",
        expected="0 to 3",
        found=report.vmpl,
        advice="the host asked for this report, not a guest",
    )
    ledger.require(
        "snp.signing_key.signed",
        report.signing_key is not SigningKey.NONE,
        field="key_info.signing_key",
        expected="vcek or vlek",
        found=report.signing_key,
        advice="the platform is configured not to sign reports",
    )
    given = (*evidence.certificates, *context.collateral.certificates)  # 2
    certificates = [context.certificate(der) for der in given]
    endorsement = _endorsement(report, certificates, context)
    chain = _verify_chain(endorsement, certificates, context)  # 3
    issued = list(chain.issued())
    revocation = verify_not_revoked(
        issued[1:], context, name="snp.crl"
    )  # 4: AMD lists intermediates, no leaves
    _verify_signature(report, endorsement, context)  # 5
    detail = _detail(report, endorsement)
    _verify_endorsement(detail, ledger)  # 6
    _verify_consistency(detail, ledger)  # 7
    return Verified(
        tee=Tee.SNP,
        measurement=Measurement(report.measurement),
        measurements={"measurement": report.measurement},
        report_data=ReportData(report.report_data),
        debug=report.policy.debug,
        memory_protected=True,
        tcb=detail.reported_tcb.components(),
        tcb_status=None,
        signer=report.id_key_digest if any(report.id_key_digest) else None,
        chip_id=None if detail.chip_hidden else (endorsement.hwid or report.chip_id),
        revocation=revocation,
        root=chain.anchor,
        evidence=evidence,
        detail=detail,
    )


def _endorsement(report: SnpReport, certificates: Iterable[Certificate], context: Context) -> Endorsement:
    """The VCEK or VLEK to try: of the kind that the report names and, among several, of its chip and
    firmware.
    """
    read = (context.cache.remember(read_endorsement, certificate) for certificate in certificates)
    found = [one for one in read if one is not None]
    if not found:
        context.ledger.missing(
            "snp.certificate",
            f"the {report.signing_key.name} certificate of this machine",
            advice="fetch it: enarx collateral fetch FILE",
        )
    kinds = frozenset(one.kind for one in found)
    context.ledger.require(
        "snp.signing_key",
        report.signing_key in kinds,
        field="key_info.signing_key",
        expected=report.signing_key,
        found=kinds,
        advice="the certificate is of another kind than the key that signed the report",
    )
    named = [one for one in found if one.kind is report.signing_key]
    return next((one for one in named if fits(report, one)), named[0])


def fits(report: SnpReport, one: Endorsement) -> bool:
    """Say whether a certificate is of the report's chip and firmware."""
    chip = one.hwid is None or report.chip_id.startswith(one.hwid)
    return chip and Tcb.parse(report.reported_tcb, one.line) == one.tcb


def _verify_chain(endorsement: Endorsement, candidates: Iterable[Certificate], context: Context) -> Chain:
    ledger, remember = context.ledger, context.cache.remember
    chain = verify_chain(endorsement.certificate, candidates, context, vendor=Vendor.AMD, name="snp.chain")
    names = chain_names(endorsement)
    found = tuple(certificate.common_name for certificate in chain.certificates)
    ledger.require(
        "snp.chain.names",
        found == names
        and all(remember(is_amd_name, one.subject, one.common_name) for one in chain.certificates),
        expected=names,
        found=found,
        advice="the certificates are of different product lines, or not named as AMD names them",
    )
    algorithms = frozenset(certificate.algorithm.name for certificate in chain.certificates)
    ledger.require(
        "snp.chain.algorithm",
        all(certificate.algorithm in _PSS for certificate in chain.certificates),
        expected="RSA-PSS with SHA-384",
        found=algorithms,
    )
    root = chain.certificates[-1]
    ledger.require(
        "snp.chain.self_signed",
        context.is_signed(root.spki, root.algorithm, root.signature, root.tbs),
        expected="a root that signed itself",
        found=root.common_name,
    )
    return chain


def _verify_signature(report: SnpReport, endorsement: Endorsement, context: Context) -> None:
    ledger = context.ledger
    key = context.load_key(endorsement.certificate.spki)
    is_p384 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)
    ledger.require("snp.certificate.key", is_p384, expected="P-384", found=type(key).__name__)
    ledger.require(
        "snp.signature.range",
        0 < report.r < _P384_ORDER and 0 < report.s < _P384_ORDER,
        expected="two numbers from 1 to the order of P-384",
        found=(report.r, report.s),
    )
    assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 -- was required above
    try:
        key.verify(encode_dss_signature(report.r, report.s), report.signed, _SIGNATURE)
        genuine = True
    except InvalidSignature:
        genuine = False
    ledger.require(
        "snp.signature",
        genuine,
        expected=Phrase("signed by the {}", endorsement.kind),
        found="so" if genuine else "not so",
        advice="the report was changed, or this is the certificate of another machine or firmware version",
    )


def _detail(report: SnpReport, endorsement: Endorsement) -> SnpDetail:
    line = endorsement.line
    committed, current = Tcb.parse(report.committed_tcb, line), Tcb.parse(report.current_tcb, line)
    return SnpDetail(
        report=report,
        endorsement=endorsement,
        line=line,
        signing_key=endorsement.kind,
        csp_id=endorsement.csp_id,
        policy=report.policy,
        platform=report.platform_info,
        current_tcb=current,
        reported_tcb=Tcb.parse(report.reported_tcb, line),
        committed_tcb=committed,
        launch_tcb=Tcb.parse(report.launch_tcb, line),
        chip_hidden=not any(report.chip_id),
        provisional_firmware=(committed, report.committed_version) != (current, report.current_version),
    )


def _verify_endorsement(detail: SnpDetail, ledger: Ledger) -> None:
    """The certificate is of this product line, firmware and chip."""
    report, endorsement = detail.report, detail.endorsement
    if report.cpuid is not None:
        ledger.require(
            "snp.cpuid",
            report.line is detail.line,
            field="cpuid",
            expected=Phrase("a model of {}", detail.line),
            found=Phrase("{} ({})", report.line or "an unknown model", bytes(report.cpuid)),
            advice="the certificate is of another product line than the processor",
        )
    ledger.require(
        "snp.reported_tcb",
        detail.reported_tcb == endorsement.tcb,
        field="reported_tcb",
        expected=endorsement.tcb,
        found=detail.reported_tcb,
        advice="the certificate is for other firmware versions; fetch the one for reported_tcb",
    )
    if endorsement.hwid is not None and not detail.chip_hidden:
        ledger.equal(
            "snp.chip_id",
            endorsement.hwid.ljust(len(report.chip_id), b"\x00"),
            report.chip_id,
            field="chip_id",
            advice="the certificate is of another machine",
        )


def _verify_consistency(detail: SnpDetail, ledger: Ledger) -> None:
    """What holds in every report that genuine firmware writes."""
    report, policy = detail.report, detail.policy
    for name, lower, limit, upper in (
        ("reported_tcb", detail.reported_tcb, "committed_tcb", detail.committed_tcb),
        ("committed_tcb", detail.committed_tcb, "current_tcb", detail.current_tcb),
        ("launch_tcb", detail.launch_tcb, "current_tcb", detail.current_tcb),
    ):
        ledger.require(
            f"snp.{name}.order",
            lower.within(upper),
            field=name,
            expected=Phrase("in no component above {}: {}", limit, upper),
            found=lower,
        )
    ledger.require(
        "snp.version.order",
        report.committed_version <= report.current_version,
        field=("committed_version", "current_version"),
        expected=Phrase("at most {}", report.current_version),
        found=report.committed_version,
    )
    ledger.require(
        "snp.policy.reserved",
        policy.value & GuestPolicy.RESERVED_ONE != 0 and not policy.value & ~GuestPolicy.KNOWN,
        expected="bit 17 set and bits from 26 on clear",
        found=Phrase("{:#x}", policy.value),
    )
    ledger.require(
        "snp.policy.abi",
        policy.abi <= report.current_version[:2],
        field=("policy.abi", "current_version"),
        expected=Phrase("at most {}", report.current_version[:2]),
        found=policy.abi,
    )
    ledger.require(
        "snp.author_key",
        report.author_key_en or not any(report.author_key_digest),
        field=("key_info.author_key_en", "author_key_digest"),
        expected="no digest where no author key is enabled",
        found=report.author_key_digest,
    )
    if unknown := detail.platform.unknown:
        ledger.note(
            "snp.platform_info.unknown",
            field="platform_info.unknown",
            expected="bits that we know",
            found=hex(unknown),
            advice="newer hardware may set bits that this release does not know",
        )
