"""What SGX and TDX quotes have in common: who signed them, and what Intel says of the platform."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from enarx.attest.anchors import Vendor
from enarx.attest.chain import Chain, check_validity, verify_chain, verify_not_revoked
from enarx.attest.checks import Phrase
from enarx.attest.claims import Revocation
from enarx.attest.collateral import Kind
from enarx.attest.dcap._documents import (
    QeIdentity,
    Signed,
    SvnLevel,
    TcbInfo,
    TcbStatus,
    parse_qe_identity,
    parse_tcb_info,
)
from enarx.attest.dcap._pck import SGX_EXTENSION, Pck, PckChain, parse_pck, parse_pck_chain
from enarx.attest.dcap._quote import INTEL_QE_VENDOR_ID, CertificationType, Quote, TeeType
from enarx.attest.dcap._tcb import TcbVerdict, svn_level
from enarx.attest.errors import MalformedCollateral
from enarx.attest.tee import Context
from enarx.attest.x509 import Certificate, SignatureAlgorithm

_P256_SPKI: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
"""SubjectPublicKeyInfo of a P-256 key up to the 64 bytes of the point."""

_UNDERSTOOD: Final = frozenset({SGX_EXTENSION})
_PPID_TYPES: Final = (
    CertificationType.PPID_PLAIN,
    CertificationType.PPID_RSA_2048,
    CertificationType.PPID_RSA_3072,
)
_SHA256: Final = ec.ECDSA(hashes.SHA256())
_ROOT_NAME: Final = "Intel SGX Root CA"
_PCK_NAME: Final = "Intel SGX PCK Certificate"
_PCK_CA_NAMES: Final = ("Intel SGX PCK Processor CA", "Intel SGX PCK Platform CA")
_TCB_SIGNING_NAME: Final = "Intel SGX TCB Signing"

_FETCH: Final = "fetch it: enarx collateral fetch FILE"

S = TypeVar("S", bound=Signed)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What Intel's certificates and documents say of the platform that made a quote."""

    pck: Pck
    pck_chain: Chain
    tcb_info: TcbInfo
    qe_identity: QeIdentity
    qe_level: SvnLevel
    revocation: Revocation

    @property
    def tcb_evaluation_data_number(self) -> int:
        """The older of the two documents': they know of no TCB recovery after it."""
        return min(self.tcb_info.evaluation_number, self.qe_identity.evaluation_number)


def verify_platform(quote: Quote, context: Context) -> Platform:
    """Verify who signed the quote, and find out what Intel says of its platform.

    1. The quoting enclave's vendor. 2. PCK chain to a pinned root. 3. The PCK signed the quoting
       enclave's report, which names the attestation key. 4. The attestation key signed the quote. 5. TCB info and QE
       identity: chosen, signed, in date, of this platform. 6. Revocation. 7. The quoting enclave is Intel's.

    The platform's status follows from its level, which the TEE finds (``_tcb``) and gives to ``conclude``.
    """
    context.ledger.equal(  # 1
        "dcap.vendor_id",
        INTEL_QE_VENDOR_ID,
        quote.vendor_id,
        field="header.vendor_id",
        advice="a quoting enclave of another vendor, which nothing here vouches for",
    )
    certificates = [context.certificate(der) for der in dict.fromkeys(context.collateral.certificates)]
    pck, chain = _verify_pck(quote, certificates, context)  # 2
    _verify_qe(quote, pck, context)  # 3
    _verify_signature(quote, context)  # 4
    info = _tcb_info(quote, pck, context)  # 5
    signer = _verify_document(info, certificates, context, "dcap.tcb_info")
    identity = _qe_identity(quote, context)
    other = _verify_document(identity, certificates, context, "dcap.qe_identity")
    pairs = list(chain.issued())
    for one in (signer,) if signer is other else (signer, other):
        pairs += _verify_signer(one, certificates, context).issued()
    revocation = verify_not_revoked(pairs, context, name="dcap.crl")  # 6
    level = _verify_qe_identity(quote, identity, context)  # 7
    return Platform(
        pck=pck, pck_chain=chain, tcb_info=info, qe_identity=identity, qe_level=level, revocation=revocation
    )


def _pck(quote: Quote, certificates: list[Certificate], context: Context) -> tuple[Pck, list[Certificate]]:
    """The PCK certificate, not verified, and those that may have issued it.

    A quote carries its chain, which must be whole; one that only names the platform (types 1 to 3) is judged with the
    PCK certificate among the collateral whose key signed it.
    """
    ledger, kind = context.ledger, quote.certification_type
    with_extension = [one for one in certificates if SGX_EXTENSION in one.extensions]
    ledger.require(
        "dcap.certification.type",
        kind is CertificationType.PCK_CHAIN or (kind in _PPID_TYPES and bool(with_extension)),
        field="certification.type",
        expected="5 (PCK chain), or 1 to 3 and a PCK certificate among the collateral",
        found=kind.value,
        advice="let the platform's quote provider put the PCK certificate into quotes, or give it as collateral",
    )
    if kind is not CertificationType.PCK_CHAIN:
        signers = (
            one
            for one in with_extension
            if _is_signed(one.spki, quote.qe_signature, quote.qe_report.raw, context)
        )
        leaf = next(signers, with_extension[0])
        return context.cache.remember(parse_pck, leaf), certificates
    given: PckChain = context.cache.remember(parse_pck_chain, quote.certification_data)
    ledger.require(
        "dcap.pck.extension",
        given.pck is not None,
        expected="a certificate with the SGX extension first",
        found=given.leaf.common_name,
        advice="the chain begins with the PCK certificate of the platform",
    )
    assert given.pck is not None  # noqa: S101 -- require raised otherwise; this tells the type checker
    issuers = [context.certificate(der) for der in given.others]
    whole = [given.leaf, *issuers]
    ledger.require(
        "dcap.pck.order",
        all(one.issuer == issuer.subject for one, issuer in pairwise(whole)),
        expected="each certificate issued by the next",
        found=tuple(one.common_name for one in whole),
        advice="the chain in the quote is not whole; it is leaf, intermediate, root",
    )
    return given.pck, issuers


def _verify_pck(quote: Quote, certificates: list[Certificate], context: Context) -> tuple[Pck, Chain]:
    """The chain is Intel's, and nothing in the quote's is unused."""
    ledger = context.ledger
    pck, issuers = _pck(quote, certificates, context)
    chain = verify_chain(
        pck.certificate,
        issuers,
        context,
        vendor=Vendor.INTEL,
        name="dcap.pck",
        understood=_UNDERSTOOD,
    )
    names = tuple(one.common_name for one in chain.certificates)
    ledger.require(
        "dcap.pck.names",
        len(names) == 3 and names[0] == _PCK_NAME and names[1] in _PCK_CA_NAMES and names[2] == _ROOT_NAME,
        expected=(_PCK_NAME, " or ".join(_PCK_CA_NAMES), _ROOT_NAME),
        found=names,
        advice="certificates of Intel's, but not those that vouch for platforms",
    )
    _require_p256("dcap.pck.algorithm", chain, context)
    if quote.certification_type is CertificationType.PCK_CHAIN:
        root, anchored = issuers[-1], chain.anchor.certificate
        arguments = (root.spki, root.algorithm, root.signature, root.tbs)
        same = anchored is not None and root.der == anchored.der
        ledger.require(
            "dcap.pck.root_certificate",
            same or (root.spki == chain.anchor.spki and context.is_signed(*arguments)),
            expected=Phrase("the certificate of {} last", chain.anchor.name),
            found=root.common_name,
            advice="the chain in the quote was changed where nothing else looks",
        )
    return pck, chain


def _require_p256(name: str, chain: Chain, context: Context) -> None:
    others = [
        one
        for one in chain.certificates
        if one.algorithm is not SignatureAlgorithm.ECDSA_SHA256 or not one.spki.startswith(_P256_SPKI)
    ]
    context.ledger.require(
        name,
        not others,
        expected="ECDSA with P-256 and SHA-256",
        found=Phrase("otherwise in {}", others[0]) if others else "so",
    )


def _verify_qe(quote: Quote, pck: Pck, context: Context) -> None:
    """The platform vouches for the quoting enclave, and that for the key that signed the quote."""
    ledger = context.ledger
    genuine = _is_signed(pck.certificate.spki, quote.qe_signature, quote.qe_report.raw, context)
    ledger.require(
        "dcap.qe.signature",
        genuine is True,
        expected="signed by the PCK",
        found="so" if genuine else "not so",
        advice="the report of the quoting enclave was changed, or the PCK certificate is of another platform",
    )
    ledger.equal(
        "dcap.qe.report_data",
        hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest() + bytes(32),
        quote.qe_report.report_data,
        field=("qe.report_data", "qe.auth_data", "attestation_key"),
        advice="the quoting enclave did not make this attestation key",
    )


def _verify_signature(quote: Quote, context: Context) -> None:
    genuine = _is_signed(_P256_SPKI + quote.attestation_key, quote.signature, quote.signed, context)
    context.ledger.require(
        "dcap.attestation_key",
        genuine is not None,
        field="attestation_key",
        expected="a point of P-256",
        found=quote.attestation_key,
    )
    context.ledger.require(
        "dcap.signature",
        genuine is True,
        expected="signed by the attestation key",
        found="so" if genuine else "not so",
        advice="the quote was changed",
    )


def _is_signed(spki: bytes, signature: bytes, signed: bytes, context: Context) -> bool | None:
    """Say whether the key made the signature (r and s, big endian); nothing if it is no point of P-256."""
    try:
        key = context.load_key(spki) if spki.startswith(_P256_SPKI) else None
    except MalformedCollateral:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return None
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), signed, _SHA256)
    except InvalidSignature:
        return False
    return True


def _documents(kind: Kind, parse: Callable[[bytes], S], context: Context, what: str) -> list[S]:
    found = [context.cache.remember(parse, data) for data in dict.fromkeys(context.collateral.of(kind))]
    if not found:
        context.ledger.missing(
            f"dcap.{what}", f"the {what.replace('_', ' ')} of this platform", advice=_FETCH
        )
    return found


def _in_date(document: Signed, context: Context) -> bool:
    return document.issue_date <= context.now <= document.next_update


def _tcb_info(quote: Quote, pck: Pck, context: Context) -> TcbInfo:
    """Among several: of this TEE and platform, in date, with the highest evaluation number.

    Whoever picks the collateral could otherwise give the oldest that is still in date.
    """
    wanted = quote.tee_type.name
    chosen = max(
        _documents(Kind.TCB_INFO, parse_tcb_info, context, "tcb_info"),
        key=lambda one: (
            one.id == wanted,
            one.fmspc == pck.fmspc,
            one.pce_id == pck.pce_id,
            _in_date(one, context),
            one.evaluation_number,
            one.issue_date,
        ),
    )
    for name, expected, found in (
        ("id", wanted, chosen.id),
        ("fmspc", pck.fmspc, chosen.fmspc),
        ("pce_id", pck.pce_id, chosen.pce_id),
    ):
        context.ledger.require(
            f"dcap.tcb_info.{name}",
            expected == found,
            expected=expected,
            found=found,
            advice=f"the TCB info is of another kind or platform; {_FETCH}",
        )
    return chosen


def _qe_identity(quote: Quote, context: Context) -> QeIdentity:
    """Among several: as for the TCB info."""
    wanted = "QE" if quote.tee_type is TeeType.SGX else "TD_QE"
    chosen = max(
        _documents(Kind.QE_IDENTITY, parse_qe_identity, context, "qe_identity"),
        key=lambda one: (one.id == wanted, _in_date(one, context), one.evaluation_number, one.issue_date),
    )
    context.ledger.require(
        "dcap.qe_identity.id",
        chosen.id == wanted,
        expected=wanted,
        found=chosen.id,
        advice="the identity of another kind of enclave was given",
    )
    return chosen


def _verify_document(
    document: Signed, certificates: Iterable[Certificate], context: Context, name: str
) -> Certificate:
    """The document is signed by a TCB signing certificate and in date; give the certificate."""
    ledger = context.ledger
    signers = [one for one in certificates if one.common_name == _TCB_SIGNING_NAME]
    if not signers:
        ledger.missing("dcap.tcb_signing.certificate", f"the certificate {_TCB_SIGNING_NAME}", advice=_FETCH)
    signers.sort(key=lambda one: not one.not_before <= context.now <= one.not_after)  # same key, new dates
    arguments = (SignatureAlgorithm.ECDSA_SHA256, document.signature, document.body)
    signer = next((one for one in signers if context.is_signed(one.spki, *arguments)), None)
    ledger.require(
        f"{name}.signature",
        signer is not None,
        expected=Phrase("signed by {}", _TCB_SIGNING_NAME),
        found="so" if signer else "not so",
        advice="the document was changed or written anew; it must be kept exactly as Intel sent it",
    )
    assert signer is not None  # noqa: S101 -- require raised otherwise; this tells the type checker
    check_validity(document.issue_date, document.next_update, context, name=name, who=name)
    return signer


def _verify_signer(signer: Certificate, certificates: Iterable[Certificate], context: Context) -> Chain:
    """The certificate that signs documents is issued by the root itself."""
    chain = verify_chain(signer, certificates, context, vendor=Vendor.INTEL, name="dcap.tcb_signing")
    names = tuple(one.common_name for one in chain.certificates)
    context.ledger.require(
        "dcap.tcb_signing.names",
        names == (_TCB_SIGNING_NAME, _ROOT_NAME),
        expected=(_TCB_SIGNING_NAME, _ROOT_NAME),
        found=names,
    )
    _require_p256("dcap.tcb_signing.algorithm", chain, context)
    return chain


def _verify_qe_identity(quote: Quote, identity: QeIdentity, context: Context) -> SvnLevel:
    """The quoting enclave is the one that Intel describes; give its level."""
    ledger, report = context.ledger, quote.qe_report
    advice = "the quote was not made by Intel's quoting enclave"
    misc_select = int.from_bytes(report.misc_select, "little")
    attributes = int.from_bytes(report.attributes_bytes, "little")
    for name, field, expected, found in (
        ("misc_select", "qe.misc_select", identity.misc_select, misc_select & identity.misc_select_mask),
        ("attributes", "qe.attributes", identity.attributes, attributes & identity.attributes_mask),
        ("mrsigner", "qe.mrsigner", identity.mrsigner, report.mrsigner),
        ("isv_prod_id", "qe.isv_prod_id", identity.isv_prod_id, report.isv_prod_id),
    ):
        ledger.require(
            f"dcap.qe.{name}", expected == found, field=field, expected=expected, found=found, advice=advice
        )
    ledger.require(
        "dcap.qe.debug",
        not report.attributes.debug,
        field="qe.attributes.debug",
        expected=False,
        found=report.attributes.debug,
        advice="whoever can read the quoting enclave can sign anything",
    )
    level = svn_level(identity.levels, report.isv_svn)
    ledger.require(
        "dcap.qe.level",
        level is not None,
        field="qe.isv_svn",
        expected=Phrase("at least {}", identity.levels[-1].isv_svn),
        found=report.isv_svn,
        advice="Intel does not support this version of the quoting enclave",
    )
    assert level is not None  # noqa: S101 -- require raised otherwise; this tells the type checker
    return level


def require_level(level: T | None, quote: Quote, platform: Platform, context: Context) -> T:
    """Give the level of the platform back. Raises ``EvidenceRejected`` when Intel knows none for its versions."""
    pck = platform.pck
    context.ledger.require(
        "dcap.tcb.level",
        level is not None,
        expected=Phrase("a level of {}", platform.tcb_info.id),
        found=Phrase("SVNs {}, PCE {}, TD {}", pck.components, pck.pce_svn, quote.body[:16]),
        advice="Intel does not support this version of the platform, or the TCB info is older than it",
    )
    assert level is not None  # noqa: S101 -- require raised otherwise; this tells the type checker
    return level


def conclude(quote: Quote, verdict: TcbVerdict, context: Context) -> None:
    """What is refused whatever the policy says: a platform that Intel revoked, and bytes after the quote."""
    context.ledger.require(
        "dcap.tcb.revoked",
        verdict.status is not TcbStatus.REVOKED,
        expected="not revoked",
        found=verdict.status,
        advice="Intel withdrew its trust in this version of the platform; update its firmware",
    )
    context.ledger.require(
        "dcap.trailing",
        not quote.trailing.strip(b"\x00"),
        field="trailing",
        expected="nothing but zeros after the quote",
        found=quote.trailing[:64],
        advice="somebody appended to the quote; send only the quote",
    )
