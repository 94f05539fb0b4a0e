"""Several files of one piece of evidence, as one CMW collection: evidence, and collateral that travels with it.

The collection has a type of its own. Its item ``evidence`` is what is judged; every other item is collateral, which is
recognised by its content and as untrusted as if it had been given apart. Evidence of several files (a quote of a TPM,
of Azure) is itself a collection, with the labels of its kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from enarx.attest import cmw
from enarx.attest.azure._hcl import MAGIC
from enarx.attest.collateral import Collateral
from enarx.attest.errors import MalformedEvidence
from enarx.attest.launch_proof import looks_like_proof
from enarx.attest.material import recognise_collateral
from enarx.attest.sev import looks_like_launch, pack_proven
from enarx.attest.tee import TeeVerifier
from enarx.attest.tpm import find_certificate, looks_like_quote, looks_like_signature, read_tpm2_pcrs
from enarx.tcb.errors import Malformed

TYPE: Final = "tag:enarx.dev,2026:evidence"
"""Type of the collection (draft-ietf-rats-msg-wrap-23, section 3.3)."""
_EVIDENCE: Final = "evidence"
_MEDIA_TYPE: Final = "application/octet-stream"


def pack(files: Sequence[bytes], tees: Iterable[TeeVerifier]) -> bytes:
    """Put the files of one piece of evidence together; what each is, its content says.

    Raises ``MalformedEvidence`` when they are of several pieces, of none, or one is nothing that we know.
    """
    left = _Parts()
    collateral: list[bytes] = []
    whole: list[bytes] = []
    verifiers = tuple(tees)
    for data in files:
        if left.take(data):
            continue
        if any(tee.recognise(cmw.unwrap(data)) for tee in verifiers):
            whole.append(data)
        elif (one := _collateral(data)) is not None:
            collateral.append(data)
            left.certificates += one.certificates
        else:
            left.unknown.append(data)
    evidence = left.evidence(whole)
    if not collateral:
        return cmw.to_cbor(evidence)
    items: dict[str, cmw.Record | cmw.Collection] = {_EVIDENCE: evidence}
    items |= {f"collateral-{at}": cmw.Record(_MEDIA_TYPE, data) for at, data in enumerate(collateral)}
    return cmw.to_cbor(cmw.Collection(items, TYPE))


def unpack(data: bytes) -> tuple[bytes, Collateral | None]:
    """Give the evidence in an envelope, and the collateral in it; what is no envelope of ours comes back unchanged.

    Raises ``Malformed`` for a collection of our type in another form.
    """
    message = _message(data)
    if isinstance(message, cmw.Record):
        return message.value, None
    if message is None or message.type != TYPE:
        return data, None
    items = dict(message.items)
    evidence = items.pop(_EVIDENCE, None)
    if evidence is None:
        raise MalformedEvidence("envelope: a collection of evidence without an item of that name")
    carried = Collateral.none()
    for label, item in items.items():
        if not isinstance(item, cmw.Record):
            raise MalformedEvidence(f"envelope: {label} is itself a collection")
        carried |= recognise_collateral(item.value)
    return evidence.value if isinstance(evidence, cmw.Record) else cmw.to_cbor(evidence), carried


def envelop(evidence: bytes) -> bytes:
    """Put evidence into a record, unless it is in an envelope already."""
    return evidence if _message(evidence) is not None else cmw.to_cbor(cmw.Record(_MEDIA_TYPE, evidence))


def _message(data: bytes) -> cmw.Record | cmw.Collection | None:
    if not cmw.looks_like(data):
        return None
    try:
        return cmw.parse(data)
    except MalformedEvidence:
        return None


def _collateral(data: bytes) -> Collateral | None:
    try:
        return recognise_collateral(data)
    except Malformed:
        return None


class _Parts:
    """The files of a quote of a TPM, and of the report of Azure that it belongs to."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}
        self.certificates: tuple[bytes, ...] = ()
        self.unknown: list[bytes] = []

    def take(self, data: bytes) -> bool:
        """Keep the file if it is one of them."""
        pcrs = read_tpm2_pcrs(data)
        for label, matches in (
            ("hcl-report", data.startswith(MAGIC)),
            ("quote", looks_like_quote(data)),
            ("signature", looks_like_signature(data)),
            ("pcrs", pcrs is not None),
        ):
            if matches:
                if label in self.parts:
                    raise MalformedEvidence(
                        f"two files are a {label} of a TPM", hint="give one quote at a time"
                    )
                self.parts[label] = data if pcrs is None else pcrs
                return True
        return False

    def evidence(self, whole: list[bytes]) -> cmw.Record | cmw.Collection:
        """The one piece that the files are."""
        parts = dict(self.parts)
        if "quote" in parts and "pcrs" not in parts and len(self.unknown) == 1:
            parts["pcrs"] = self.unknown.pop()  # values one behind the other look like nothing
        if self.unknown:
            raise MalformedEvidence(
                f"a file of {len(self.unknown[0])} bytes is neither evidence nor collateral that we know"
            )
        if not parts and len(whole) == 1:
            return cmw.Record(_MEDIA_TYPE, cmw.unwrap(whole[0]))
        if not parts and (launch := _launch_and_proof(whole)) is not None:
            return cmw.parse(pack_proven(*launch))
        if not {"quote", "signature", "pcrs"} <= set(parts) or len(whole) > ("hcl-report" in parts):
            raise MalformedEvidence(
                "the files are no single piece of evidence",
                hint="a quote of a TPM needs its signature and the values of its PCRs; judge several pieces apart",
            )
        certificate = find_certificate(parts["quote"], parts["signature"], self.certificates)
        if certificate is not None:
            parts["certificate"] = certificate
        if "hcl-report" in parts:
            parts = {
                label if label == "hcl-report" else f"tpm-{label}": data for label, data in parts.items()
            }
            for data in whole:
                parts["td-quote"] = cmw.unwrap(data)
        return cmw.Collection({label: cmw.Record(_MEDIA_TYPE, data) for label, data in parts.items()})


def each_is_evidence(files: Iterable[bytes], tees: Iterable[TeeVerifier]) -> bool:
    """Say whether every file is a piece of evidence by itself. Raises ``Malformed``."""
    verifiers = tuple(tees)
    opened = [unpack(data)[0] for data in files]
    if _launch_and_proof(opened) is not None:
        return False
    return all(any(tee.recognise(data) for tee in verifiers) for data in opened)


def _launch_and_proof(files: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """A launch of SEV and the proof of its secret, if that is what the two files are; alone a proof is one of PEF."""
    opened = sorted((cmw.unwrap(data) for data in files), key=looks_like_proof)
    match [(looks_like_launch(data), looks_like_proof(data)) for data in opened]:
        case [(True, False), (False, True)]:
            return opened[0], opened[1]
    return None
