"""What verified evidence proves. Unverified evidence, verified evidence and a verdict are three types.

``Verified`` is made only by a TEE's ``verify``; ``Claims`` only by ``Verifier.verify``. Nothing else
constructs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NewType, Protocol

from enarx.attest.anchors import Anchor
from enarx.attest.checks import Check

Measurement = NewType("Measurement", bytes)
"""What the hardware measured at launch: 32 or 48 bytes."""

ReportData = NewType("ReportData", bytes)
"""What the attester asked the hardware to sign: 64 bytes on SNP, TDX, SGX and CCA."""


class Tee(Enum):
    """The kinds of evidence we judge; the value is the name in policies, options and results."""

    SEV = "sev"
    SEV_ES = "sev-es"
    SNP = "snp"
    SGX = "sgx"
    TDX = "tdx"
    NITRO = "nitro"
    TPM = "tpm"
    CCA = "cca"
    PEF = "pef"
    AZURE_SNP = "azure-snp"
    AZURE_TDX = "azure-tdx"


class Revocation(Enum):
    """What is known about revocation of the certificates that were used; the worst of all of them."""

    CHECKED = "checked"
    STALE = "stale"
    """The newest list is past its next update; nothing in it is revoked."""
    MISSING = "missing"
    """No list was given."""
    NOT_PUBLISHED = "not-published"
    """The vendor publishes none for this kind of evidence (short-lived certificates, bare keys)."""


class ParsedEvidence(Protocol):
    """Evidence as ``parse`` gives it: nothing of it is true yet."""

    def fields(self) -> Mapping[str, object]:
        """Every field by its dotted name, leaves only: for ``inspect`` and for the coverage report."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What the signatures prove, before binding and policy are judged."""

    tee: Tee
    measurement: Measurement
    """The one measurement that reference values name: SEV launch digest, SNP MEASUREMENT, MRTD, MRENCLAVE, RIM;
    of Nitro PCR0, which covers the whole image, and of a TPM the digest of the quoted PCRs.
    """
    measurements: Mapping[str, bytes]
    """All measured registers by name, the one above included."""
    report_data: ReportData
    debug: bool
    """The operator could look inside: any bit that permits it."""
    memory_protected: bool
    """Hardware keeps who runs the machine out of memory, by encryption or isolation, unless ``debug``. False where
    evidence proves what was started and nothing else.
    """
    tcb: Mapping[str, int]
    """Security versions of the platform by component; what policies give minima for."""
    tcb_status: str | None
    """The vendor's own word about the platform (``UpToDate``), where the vendor gives one."""
    signer: bytes | None
    """Digest of the key that vouches for the measurement: ID key, MRSIGNER."""
    chip_id: bytes | None
    """Names the physical platform, unless it hides itself."""
    revocation: Revocation
    root: Anchor
    evidence: ParsedEvidence
    detail: object
    """All that this TEE alone has: ``SnpDetail``, ``TdxDetail``, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims(Verified):
    """The verdict on one piece of evidence: genuine, bound and appraised as the flags say, with every check
    made.
    """

    bound: bool
    """``report_data`` was compared with what the caller expected. False only for ``AnyBinding``."""
    policy_digest: bytes | None
    """SHA-256 of the policy that accepts it. ``None`` only for ``AuthenticityOnly``: then nothing was
    appraised.
    """
    checks: tuple[Check, ...]
