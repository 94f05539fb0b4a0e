"""From a token to what it proves (draft-ffm-rats-cca-token-03, section 7)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from enarx.attest._cose import Sign1, algorithm_of, signed_ecdsa
from enarx.attest.anchors import Anchor, Vendor
from enarx.attest.cca._token import CcaToken, HashAlgorithm, Lifecycle, PlatformToken, RealmToken
from enarx.attest.claims import Measurement, ReportData, Revocation, Tee, Verified
from enarx.attest.tee import Context

_DEBUG: Final = frozenset({Lifecycle.NON_CCA_PLATFORM_DEBUG, Lifecycle.RECOVERABLE_PLATFORM_DEBUG})


@dataclass(frozen=True, slots=True, kw_only=True)
class CcaDetail:
    """What a token proves beside the claims that all TEEs have."""

    platform: PlatformToken
    realm: RealmToken
    lifecycle: Lifecycle


def verify(token: CcaToken, context: Context) -> Verified:
    """Verify one token.

    1. The platform's token is signed by a platform attestation key that the caller named; no key in the token or in
       collateral stands in for it. 2. The realm attestation key is the one that the platform vouches for. 3. The
       realm's token is signed by it.

    Raises ``EvidenceRejected``, ``CollateralMissing``, ``Malformed``.
    """
    platform, realm = token.platform, token.realm
    anchor, key = _platform_key(platform.message, context)  # 1
    _verify_message(platform.message, key, context, "cca.platform", "the platform attestation key")
    context.ledger.equal(  # 2
        "cca.realm.key",
        hash_of(realm.public_key, realm.public_key_hash_algorithm),
        platform.challenge,
        field=("platform.challenge", "realm.public_key", "realm.public_key_hash_algorithm"),
        advice="the platform does not vouch for the key of this realm: the tokens are of different platforms or boots",
    )
    _verify_message(realm.message, realm.key, context, "cca.realm", "the realm attestation key")  # 3
    return Verified(
        tee=Tee.CCA,
        measurement=Measurement(realm.rim),
        measurements=realm.measurements,
        report_data=ReportData(realm.challenge),
        debug=platform.lifecycle in _DEBUG,
        memory_protected=True,
        tcb={},
        tcb_status=None,
        signer=None,
        chip_id=platform.instance_id,
        revocation=Revocation.NOT_PUBLISHED,
        root=anchor,
        evidence=token,
        detail=CcaDetail(platform=platform, realm=realm, lifecycle=platform.lifecycle),
    )


def hash_of(data: bytes, algorithm: HashAlgorithm) -> bytes:
    """Hash by a named algorithm."""
    return hashlib.new(algorithm.value.replace("-", ""), data).digest()


def _platform_key(message: Sign1, context: Context) -> tuple[Anchor, ec.EllipticCurvePublicKey]:
    """The bare key among the anchors that signed, or else one that did not, for the check to say so."""
    bare = [one for one in context.anchors.of(Vendor.ARM_CCA) if one.certificate is None]
    named = [(one, one.key) for one in bare if isinstance(one.key, ec.EllipticCurvePublicKey)]
    if not named:
        context.ledger.missing(
            "cca.platform.key",
            "a platform attestation key (CPAK) that is trusted",
            advice="name the public key that you enrolled for this platform as a root",
        )
    if len(named) == 1:
        return named[0]
    return next((pair for pair in named if signed_ecdsa(message, pair[1])), named[0])


def _verify_message(
    message: Sign1, key: ec.EllipticCurvePublicKey, context: Context, name: str, whose: str
) -> None:
    expected = algorithm_of(key)
    context.ledger.require(
        f"{name}.algorithm",
        message.algorithm == expected,
        expected=f"{expected}, as the curve of {whose} demands",
        found=message.algorithm,
        advice="the message announces another algorithm than its key has",
    )
    genuine = signed_ecdsa(message, key)
    context.ledger.require(
        f"{name}.signature",
        genuine,
        expected=f"signed by {whose}",
        found="so" if genuine else "not so",
        advice="the token was changed, or it is of another platform",
    )
