"""From a quote to what it proves (TPM 2.0 Library, part 1, 31; TCG Trusted Attestation Protocol)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from enarx.attest._eventlog import Algorithm, parse_tpm_event_log, replay
from enarx.attest.anchors import Anchor, Vendor
from enarx.attest.chain import verify_chain, verify_not_revoked
from enarx.attest.claims import Measurement, ReportData, Revocation, Tee, Verified
from enarx.attest.collateral import Kind
from enarx.attest.tee import Context
from enarx.attest.tpm._quote import Scheme, Signature, TpmQuote
from enarx.attest.x509 import load_public_key, parse_certificate

_HASHES: Final[dict[Algorithm, hashes.HashAlgorithm]] = {
    Algorithm.SHA256: hashes.SHA256(),
    Algorithm.SHA384: hashes.SHA384(),
    Algorithm.SHA512: hashes.SHA512(),
}
"""What may be signed with: SHA-1 is not enough."""
_SUBJECT_ALTERNATIVE_NAME: Final = "2.5.29.17"
_DIGITAL_SIGNATURE: Final = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmDetail:
    """What a quote proves beside the claims that all TEEs have."""

    quote: TpmQuote
    replayed: frozenset[int]
    """The quoted PCRs that the event log explains; empty without a log."""


def verify(quote: TpmQuote, context: Context) -> Verified:
    """Verify one quote.

    1. The hash. 2. The attestation key: certified up to a pinned root, or itself named by the caller; never one that
       merely came along. 3. Signature. 4. The PCR values are those of the digest. 5. The event log, if one was given.

    Raises ``EvidenceRejected``, ``CollateralMissing``, ``Malformed``.
    """
    algorithm = quote.signature.algorithm
    context.ledger.require(  # 1
        "tpm.hash",
        algorithm in _HASHES,
        expected=tuple(known.name for known in _HASHES),
        found=algorithm.name,
        advice="make the attestation key with a scheme of SHA-256 or better",
    )
    anchor, spki, revocation = _attestation_key(quote, context)  # 2
    genuine = is_signed(quote.raw, quote.signature, spki)
    context.ledger.require(  # 3
        "tpm.signature",
        genuine,
        expected="signed by the attestation key",
        found="so" if genuine else "not so",
        advice="the quote was changed, or it is of another TPM",
    )
    context.ledger.equal(  # 4
        "tpm.pcr_digest",
        quote.pcr_digest,
        hashlib.new(algorithm.name, b"".join(quote.pcrs.values())).digest(),
        field=("pcr_digest", "pcrs"),
        advice="these are not the PCR values that were quoted",
    )
    return Verified(
        tee=Tee.TPM,
        measurement=Measurement(quote.pcr_digest),
        measurements=quote.registers,
        report_data=ReportData(quote.extra_data),
        debug=False,
        memory_protected=False,
        tcb={},
        tcb_status=None,
        signer=None,
        chip_id=None,
        revocation=revocation,
        root=anchor,
        evidence=quote,
        detail=TpmDetail(quote=quote, replayed=_replayed(quote, context)),  # 5
    )


def _attestation_key(quote: TpmQuote, context: Context) -> tuple[Anchor, bytes, Revocation]:
    ledger = context.ledger
    if quote.certificate is None:
        named = [one for one in context.anchors.anchors if one.vendor is None and one.certificate is None]
        if not named:
            ledger.missing(
                "tpm.ak",
                "an attestation key that is trusted",
                advice="give its certificate with the evidence, or name the enrolled key as a root",
            )
        signing = (one for one in named if is_signed(quote.raw, quote.signature, one.spki))
        anchor = next(signing, named[0])
        return anchor, anchor.spki, Revocation.NOT_PUBLISHED
    leaf = context.cache.remember(parse_certificate, quote.certificate)
    others = [context.cache.remember(parse_certificate, der) for der in context.collateral.certificates]
    azure = leaf.issuer_common_name.startswith("Azure")  # decides only which vendor's roots are looked at
    chain = verify_chain(
        leaf,
        others,
        context,
        vendor=Vendor.AZURE_VTPM if azure else Vendor.GOOGLE_TPM,
        name="tpm.chain",
        understood=frozenset({_SUBJECT_ALTERNATIVE_NAME}),
    )
    ledger.require(
        "tpm.certificate.usage",
        leaf.key_usage is not None and leaf.key_usage & _DIGITAL_SIGNATURE != 0,
        expected=f"digitalSignature (bit {_DIGITAL_SIGNATURE})",
        found=leaf.key_usage,
    )
    return chain.anchor, leaf.spki, verify_not_revoked(chain.issued(), context, name="tpm.crl")


def is_signed(raw: bytes, signature: Signature, spki: bytes) -> bool:
    """Say whether the key made the signature, by the scheme that the signature names."""
    key, digest = load_public_key(spki), _HASHES.get(signature.algorithm)
    if digest is None:
        return False
    try:
        match signature.scheme, key:
            case Scheme.RSASSA, rsa.RSAPublicKey():
                key.verify(signature.parts[0], raw, padding.PKCS1v15(), digest)
            case Scheme.RSAPSS, rsa.RSAPublicKey():
                pss = padding.PSS(mgf=padding.MGF1(digest), salt_length=padding.PSS.AUTO)
                key.verify(signature.parts[0], raw, pss, digest)
            case Scheme.ECDSA, ec.EllipticCurvePublicKey():
                r, s = (int.from_bytes(part, "big") for part in signature.parts)
                key.verify(encode_dss_signature(r, s), raw, ec.ECDSA(digest))
            case _:
                return False
    except InvalidSignature:
        return False
    return True


def _replayed(quote: TpmQuote, context: Context) -> frozenset[int]:
    explained: set[int] = set()
    for data in context.collateral.of(Kind.EVENT_LOG):
        registers = replay(context.cache.remember(parse_tpm_event_log, data), quote.bank)
        for index in sorted(registers.keys() & quote.pcrs.keys()):
            context.ledger.equal(
                "tpm.event_log",
                quote.pcrs[index],
                registers[index],
                field=f"pcrs.pcr{index}",
                advice="the event log is not the one that led to this register",
            )
            explained.add(index)
    return frozenset(explained)
