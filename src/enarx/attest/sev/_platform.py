"""A platform's certificates from what its host gives, and those of AMD that belong to them: nothing is verified here.

Source: AMD 55766 (SEV API), 2.1: the platform exports PDH, PEK, OCA and CEK; AMD publishes ASK and ARK.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from enarx.attest.checks import Ledger
from enarx.attest.collateral import Collateral, Kind
from enarx.attest.sev._certs import (
    CERTIFICATE_BYTES,
    AmdCertificate,
    SevCertificate,
    Usage,
    parse_certificate,
    signed_by_ask,
)
from enarx.attest.sev._chain import PlatformChain
from enarx.attest.sev._evidence import amd_certificates
from enarx.tcb.errors import Malformed

EXPORT_BYTES: Final = 4 * CERTIFICATE_BYTES
Exported: TypeAlias = tuple[SevCertificate, SevCertificate, SevCertificate, SevCertificate]
"""PDH, PEK, OCA, CEK."""


def exported(collateral: Collateral, ledger: Ledger) -> tuple[bytes, PlatformChain]:
    """Give the certificates of the one platform among the documents as launch evidence has them, and their chain.

    Raises ``CollateralMissing``, ``Malformed``.
    """
    exports = [
        data[:EXPORT_BYTES] for data in collateral.of(Kind.SEV_CERTIFICATE) if len(data) >= EXPORT_BYTES
    ]
    if not exports:
        ledger.missing(
            "sev.chain.platform",
            "the certificates that the platform exports (PDH, PEK, OCA, CEK)",
            advice="ask the host for them: a launch is prepared for one platform",
        )
    pdh, pek, oca, cek = (
        parse_certificate(exports[0][at : at + CERTIFICATE_BYTES])
        for at in range(0, EXPORT_BYTES, CERTIFICATE_BYTES)
    )
    chain = complete_chain((pdh, pek, oca, cek), vendor_certificates(collateral), ledger)
    return exports[0] + chain.ask.raw + chain.ark.raw, chain


def complete_chain(platform: Exported, vendor: Sequence[AmdCertificate], ledger: Ledger) -> PlatformChain:
    """Choose the ASK that signed the CEK, and the ARK that it names. Raises ``CollateralMissing``."""
    pdh, pek, oca, cek = platform
    ask = _signer(cek, [one for one in vendor if one.usage is Usage.ASK])
    arks = [one for one in vendor if one.usage is Usage.ARK]
    ark = next((one for one in arks if ask is not None and one.key_id == ask.certifying_id), None)
    if ask is None or ark is None:
        ledger.missing(
            "sev.chain.vendor",
            "the ASK and ARK of the platform's generation",
            advice="AMD publishes both together (ask_ark_naples.cert and so on): give that file as collateral",
        )
    return PlatformChain(pdh=pdh, pek=pek, oca=oca, cek=cek, ask=ask, ark=ark)


def vendor_certificates(collateral: Collateral) -> tuple[AmdCertificate, ...]:
    """Certificates of AMD among the documents, alone or behind the four of a platform, which are of the same kind."""
    found: list[AmdCertificate] = []
    for data in collateral.of(Kind.SEV_CERTIFICATE):
        for start in (0, EXPORT_BYTES):
            try:
                found += amd_certificates(data[start:])
            except Malformed:
                continue
    return tuple(found)


def _signer(cek: SevCertificate, asks: list[AmdCertificate]) -> AmdCertificate | None:
    """The ASK that signed the CEK, or else any: then the check of the chain says that it did not."""
    made = cek.signatures_of(Usage.ASK)
    signing = (ask for ask in asks if any(signed_by_ask(ask, one, cek.signed) for one in made))
    return next(signing, asks[0] if asks else None)
