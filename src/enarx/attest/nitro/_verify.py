"""From a document to what it proves ("Verifying the root of trust", AWS Nitro Enclaves)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from enarx.attest._cose import ES384, signed_ecdsa
from enarx.attest.anchors import Vendor
from enarx.attest.chain import Chain, verify_chain
from enarx.attest.checks import Ledger
from enarx.attest.claims import Measurement, ReportData, Revocation, Tee, Verified
from enarx.attest.nitro._document import NitroDocument
from enarx.attest.tee import Context
from enarx.attest.x509 import Certificate, SignatureAlgorithm, load_public_key, parse_certificate

MAX_SKEW: Final = timedelta(seconds=60)
"""By how much the clock of the enclave's host may be ahead of the verifier's."""
_DIGITAL_SIGNATURE: Final = 0x80
_IMAGE: Final = (0, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroDetail:
    """What a document proves beside the claims that all TEEs have."""

    document: NitroDocument
    age_s: int
    """Seconds from the document's timestamp to the verification, rounded up; negative within ``MAX_SKEW``."""


def verify(document: NitroDocument, context: Context) -> Verified:
    """Verify one document.

    1. The algorithm; the certificates are some. 2. Not from the future. 3. Chain to a pinned root at the time of
       the document, which is the order of the bundle: certificates live for hours, so how old it may be is for policy.
    4. What the certificates are for. 5. Signature. There is no revocation: AWS relies on the short lives.

    Raises ``EvidenceRejected``, ``CollateralMissing``, ``Malformed``.
    """
    ledger = context.ledger
    ledger.require(  # 1
        "nitro.algorithm",
        document.message.algorithm == ES384,
        expected=f"ES384 ({ES384})",
        found=document.message.algorithm,
    )
    certificates = [
        context.cache.remember(parse_certificate, der) for der in (document.certificate, *document.cabundle)
    ]
    ledger.require(  # 2
        "nitro.timestamp",
        document.timestamp - context.now <= MAX_SKEW,
        field="timestamp",
        expected="not after the time of verification",
        found=document.timestamp,
        advice="the clock of the verifier is wrong, or the document is not genuine",
    )
    chain = _verify_chain(document, certificates, context)  # 3, 4
    _verify_signature(document, chain.certificates[0], context)  # 5
    signer = document.pcrs.get(8, b"")
    age = context.now - document.timestamp
    return Verified(
        tee=Tee.NITRO,
        measurement=Measurement(document.pcrs[0]),
        measurements=document.registers,
        report_data=ReportData(document.nonce or b""),
        debug=any(not any(document.pcrs[index]) for index in _IMAGE),
        memory_protected=True,
        tcb={},
        tcb_status=None,
        signer=signer if any(signer) else None,
        chip_id=None,
        revocation=Revocation.NOT_PUBLISHED,
        root=chain.anchor,
        evidence=document,
        detail=NitroDetail(document=document, age_s=-(-age // timedelta(seconds=1))),
    )


def _verify_chain(document: NitroDocument, certificates: list[Certificate], context: Context) -> Chain:
    ledger, (leaf, *bundle) = context.ledger, certificates
    chain = verify_chain(
        leaf,
        bundle,
        dataclasses.replace(context, now=document.timestamp),
        vendor=Vendor.AWS_NITRO,
        name="nitro.chain",
    )
    ledger.require(
        "nitro.cabundle",
        [one.spki for one in chain.certificates[1:]] == [one.spki for one in reversed(bundle)],
        expected="the certificates of the chain, root first",
        found=tuple(bundle),
    )
    _check_kinds(chain, ledger)
    return chain


def _check_kinds(chain: Chain, ledger: Ledger) -> None:
    leaf, *authorities = chain.certificates
    ledger.require(
        "nitro.chain.algorithm",
        all(one.algorithm is SignatureAlgorithm.ECDSA_SHA384 for one in chain.certificates),
        expected="ECDSA with SHA-384",
        found=frozenset(one.algorithm.name for one in chain.certificates),
    )
    ledger.require(
        "nitro.chain.usage",
        all(one.key_usage is not None for one in authorities),
        expected="authorities that say what their key is for",
        found=tuple(one.key_usage for one in authorities),
    )
    ledger.require(
        "nitro.certificate.usage",
        leaf.key_usage is not None and leaf.key_usage & _DIGITAL_SIGNATURE != 0,
        expected=f"digitalSignature (bit {_DIGITAL_SIGNATURE})",
        found=leaf.key_usage,
    )


def _verify_signature(document: NitroDocument, leaf: Certificate, context: Context) -> None:
    key = context.cache.remember(load_public_key, leaf.spki)
    is_p384 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)
    context.ledger.require("nitro.certificate.key", is_p384, expected="P-384", found=type(key).__name__)
    assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 -- was required above
    genuine = signed_ecdsa(document.message, key)
    context.ledger.require(
        "nitro.signature",
        genuine,
        expected="signed by the certificate in the document",
        found="so" if genuine else "not so",
        advice="the document was changed after it was made",
    )
