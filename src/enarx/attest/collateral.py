"""What is needed beside the evidence, as an argument: certificates, revocation lists, signed documents, event
logs.

None of it is trusted; its order, its origin and its completeness prove nothing. It is read from files and
fetched elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Self

from enarx.attest.anchors import pem_blocks
from enarx.attest.errors import MalformedCollateral

MAX_ITEMS: Final = 256
"""A whole collateral folder of one platform has about a dozen."""

MAX_ITEM_BYTES: Final = 4 * 1024 * 1024
"""The largest thing seen is an event log of 100 KiB; revocation lists of large fleets grow."""


class Kind(Enum):
    """What a document is. Certificates and revocation lists have fields of their own."""

    TCB_INFO = "tcb-info"
    """Intel: the JSON body with its signature, exactly as the service sent it."""
    QE_IDENTITY = "qe-identity"
    """Intel: as above, for QE, TD_QE or QVE."""
    SEV_CERTIFICATE = "sev-certificate"
    """AMD: certificates in the format of SEV before SNP, one or several in a row."""
    EVENT_LOG = "event-log"
    """TCG2 or CCEL log that replays measured registers."""
    PUBLIC_KEY = "public-key"
    """SubjectPublicKeyInfo in DER: CCA platform keys, TPM attestation keys. Trusted only if it is an anchor.
    """


@dataclass(frozen=True, slots=True)
class Document:
    """One item that is neither certificate nor revocation list, as the bytes that were signed."""

    kind: Kind
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """A bag of unverified material. All tuples are in the order given."""

    certificates: tuple[bytes, ...] = ()
    """X.509 certificates in DER."""
    crls: tuple[bytes, ...] = ()
    """X.509 revocation lists in DER."""
    documents: tuple[Document, ...] = field(default=())

    def __post_init__(self) -> None:
        items = [*self.certificates, *self.crls, *(document.data for document in self.documents)]
        if len(items) > MAX_ITEMS:
            raise MalformedCollateral(f"collateral has {len(items)} items, at most {MAX_ITEMS} are allowed")
        for item in items:
            if len(item) > MAX_ITEM_BYTES:
                raise MalformedCollateral(
                    f"collateral item has {len(item)} bytes, at most {MAX_ITEM_BYTES} are allowed"
                )

    @classmethod
    def none(cls) -> Self:
        """Nothing: for evidence that carries all it needs."""
        return cls()

    @classmethod
    def from_pem(cls, data: bytes) -> Self:
        """Take every certificate, revocation list and public key of a PEM file. Raises
        ``MalformedCollateral``.
        """
        certificates: list[bytes] = []
        crls: list[bytes] = []
        keys: list[Document] = []
        for label, der in pem_blocks(data):
            match label:
                case "CERTIFICATE" | "TRUSTED CERTIFICATE":
                    certificates.append(der)
                case "X509 CRL":
                    crls.append(der)
                case "PUBLIC KEY":
                    keys.append(Document(Kind.PUBLIC_KEY, der))
                case _:
                    raise MalformedCollateral(f"PEM block {label} is not collateral")
        return cls(certificates=tuple(certificates), crls=tuple(crls), documents=tuple(keys))

    def __or__(self, other: Collateral) -> Collateral:
        return Collateral(
            certificates=(*self.certificates, *other.certificates),
            crls=(*self.crls, *other.crls),
            documents=(*self.documents, *other.documents),
        )

    def of(self, kind: Kind) -> Iterable[bytes]:
        """The documents of one kind."""
        return (document.data for document in self.documents if document.kind is kind)
