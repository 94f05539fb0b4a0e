"""From launch evidence to what it proves.

Source: AMD 55766 (SEV API), 2.1, 2.2.1, 6.2 LAUNCH_START, 6.5 LAUNCH_MEASURE, appendix B, C.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from enarx.attest.claims import Measurement, ReportData, Revocation, Tee, Verified
from enarx.attest.launch_proof import check_proof
from enarx.attest.sev._chain import Platform, verify_chain
from enarx.attest.sev._evidence import LaunchEvidence, PolicyBits, spki_of
from enarx.attest.sev._launch import LaunchSession
from enarx.attest.sev._platform import complete_chain, vendor_certificates
from enarx.attest.sev._session import VerifiedLaunch, policy_mac
from enarx.attest.tee import Context
from enarx.attest.x509 import load_public_key
from enarx.tcb.errors import Malformed


@dataclass(frozen=True, slots=True, kw_only=True)
class SevDetail:
    """What a launch proves beside the claims that all TEEs have."""

    evidence: LaunchEvidence
    flags: PolicyBits
    policy_api: tuple[int, int]
    firmware: tuple[int, int, int]
    """API major, API minor, build."""
    launch: VerifiedLaunch
    """For ``pack_secret``."""


def verify(evidence: LaunchEvidence, context: Context) -> Verified:
    """Verify one launch. Certificates of SEV have no dates and AMD withdraws none: ``now`` decides nothing.

    1. The owner's session is there. 2. The platform's chain ends in a pinned root. 3. The session was prepared for this
       very platform, and for this policy. 4. The firmware is at least what the policy asks for; its version is the
       host's word until step 5. 5. The measurement is the MAC, under the session's key, of one of the owner's
       digests. 6. Where a proof came along, it is by the secret that was packed for this very launch; report data are
       then the guest's, and without a proof the digest of the session.

    Raises ``EvidenceRejected``, ``CollateralMissing``, ``Malformed``.
    """
    ledger, launch = context.ledger, context.launch
    if not isinstance(launch, LaunchSession):  # 1
        ledger.missing(
            "sev.session",
            "the session with which the guest was launched",
            advice="only who prepared the launch can judge it: give the session (--launch-session)",
        )
    platform = _platform(evidence, launch, context)  # 2
    _check_session(evidence, launch, context)  # 3
    api, build = evidence.measure.api, evidence.measure.build
    ledger.require(  # 4
        "sev.api",
        api >= evidence.policy_api,
        field=("api", "policy.api"),
        expected=f"at least {'.'.join(map(str, evidence.policy_api))}",
        found=".".join(map(str, api)),
        advice="update the firmware of the platform",
    )
    digest = _digest(evidence, launch, context)  # 5
    report_data = _report_data(evidence, launch, context)  # 6
    return Verified(
        tee=Tee.SEV_ES if evidence.flags.es else Tee.SEV,
        measurement=Measurement(digest),
        measurements={"launch_digest": digest},
        report_data=report_data,
        debug=not evidence.flags.nodbg,
        memory_protected=True,
        tcb={"api_major": api[0], "api_minor": api[1], "build": build},
        tcb_status=None,
        signer=None,
        chip_id=hashlib.sha256(spki_of(evidence.platform[3])).digest(),
        revocation=Revocation.NOT_PUBLISHED,
        root=platform.root,
        evidence=evidence,
        detail=SevDetail(
            evidence=evidence,
            flags=evidence.flags,
            policy_api=evidence.policy_api,
            firmware=(*api, build),
            launch=VerifiedLaunch(measure=evidence.measure.measure),
        ),
    )


def _report_data(evidence: LaunchEvidence, launch: LaunchSession, context: Context) -> ReportData:
    if evidence.proof is None:
        return ReportData(launch.binding)
    if launch.secret is None or launch.measure is None:
        context.ledger.missing(
            "launch.secret",
            "the secret that this launch was given",
            advice="a proof can be judged only with the session as it was kept when the secret was packed",
        )
    context.ledger.equal(
        "sev.session.measure",
        launch.measure,
        evidence.measure.measure,
        field=("measure", "mnonce"),
        advice="the secret was packed for another launch of this session",
    )
    return check_proof(evidence.proof, launch.secret, context.ledger)


def _platform(evidence: LaunchEvidence, launch: LaunchSession, context: Context) -> Platform:
    owner = None if launch.owner is None else load_public_key(launch.owner)
    if owner is not None and not isinstance(owner, ec.EllipticCurvePublicKey):
        raise Malformed("sev session: the owner's key is not one of an elliptic curve")
    vendor = (*evidence.vendor, *vendor_certificates(context.collateral))
    chain = complete_chain(evidence.platform, vendor, context.ledger)
    return verify_chain(chain, anchors=context.anchors, ledger=context.ledger, owner=owner)


def _check_session(evidence: LaunchEvidence, launch: LaunchSession, context: Context) -> None:
    context.ledger.equal(
        "sev.session.pdh",
        launch.pdh_sha256,
        hashlib.sha256(spki_of(evidence.platform[0])).digest(),
        field="pdh.key",
        advice="the session was prepared for another platform, which alone knows its keys",
    )
    context.ledger.equal(
        "sev.session.policy",
        launch.session[-32:],
        policy_mac(launch.tik, evidence.policy),
        field="policy",
        advice="the guest was launched with another policy, or the session has another key",
    )


def _digest(evidence: LaunchEvidence, launch: LaunchSession, context: Context) -> bytes:
    holding = [
        digest
        for digest in launch.digests
        if hmac.compare_digest(
            evidence.measure.mac(launch.tik, policy=evidence.policy, digest=digest), evidence.measure.measure
        )
    ]
    context.ledger.require(
        "sev.measure",
        bool(holding),
        field=("measure", "mnonce", "api", "build", "policy"),
        expected="the MAC of a digest of the session",
        found="so" if holding else "not so",
        advice="compare the firmware image, kernel, number of processors and policy with `enarx measure sev`",
    )
    return holding[0]
