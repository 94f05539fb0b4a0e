"""From a proof to what it proves, with PEF.

Whoever can show the secret got it from the ultravisor of the machine for which it was sealed, which gives it to a
virtual machine with the sealed digests and to nobody else. Who holds that machine's key is what must be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass

from enarx.attest.anchors import Anchor, TrustAnchors, Vendor
from enarx.attest.claims import Measurement, Revocation, Tee, Verified
from enarx.attest.launch_proof import LaunchProof, check_proof
from enarx.attest.pef._esm import Digests
from enarx.attest.pef._launch import SealedLaunch
from enarx.attest.tee import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class PefDetail:
    """What a proof proves beside the claims that all TEEs have."""

    digests: Digests


def find_machine(anchors: TrustAnchors, spki: bytes) -> Anchor | None:
    """Give the anchor that is this machine's key, bare: roots that certify other keys are no machines."""
    bare = (anchor for anchor in anchors.of(Vendor.IBM) if anchor.certificate is None)
    return next((anchor for anchor in bare if anchor.spki == spki), None)


def verify(evidence: LaunchProof, context: Context) -> Verified:
    """Verify one proof.

    1. The owner's session is there. 2. The machine for which it was sealed is one that the caller trusts. 3. The proof
       is by the sealed secret.

    Raises ``EvidenceRejected``, ``CollateralMissing``.
    """
    ledger, launch = context.ledger, context.launch
    if not isinstance(launch, SealedLaunch):  # 1
        ledger.missing(
            "pef.session",
            "the secret and the digests that were sealed for the virtual machine",
            advice="only who sealed them can judge it: give the session (--launch-session)",
        )
    root = find_machine(context.anchors, launch.machine)  # 2
    ledger.require(
        "pef.machine",
        root is not None,
        expected="a machine whose public key is trusted",
        found=launch.machine_sha256,
        advice="IBM publishes no root: name the machine's public key as one, as you got it from who runs the machine",
    )
    assert root is not None  # noqa: S101 -- for the type checker; the check above raises
    report_data = check_proof(evidence, launch.secret, ledger)  # 3
    digests = launch.digests
    return Verified(
        tee=Tee.PEF,
        measurement=Measurement(digests.measurement),
        measurements={
            "rtas": digests.rtas,
            "kernel": digests.kernel,
            "initrd": digests.initrd,
            "bootargs": digests.bootargs,
        },
        report_data=report_data,
        debug=False,
        memory_protected=True,
        tcb={},
        tcb_status=None,
        signer=None,
        chip_id=launch.machine_sha256,
        revocation=Revocation.NOT_PUBLISHED,
        root=root,
        evidence=evidence,
        detail=PefDetail(digests=digests),
    )
