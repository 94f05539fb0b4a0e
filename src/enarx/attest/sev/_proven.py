"""Launch evidence together with a proof of the launch secret, as one CMW collection (docs/spec/sev-evidence.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from enarx.attest import cmw, launch_proof
from enarx.attest.errors import MalformedEvidence
from enarx.attest.launch_proof import parse_proof
from enarx.attest.sev._evidence import HEAD, MEDIA_TYPE, LaunchEvidence, parse_evidence

LAUNCH: Final = "sev-launch"
PROOF: Final = "launch-proof"


def pack_proven(launch: bytes, proof: bytes) -> bytes:
    """Put a launch and a later proof together; each may be in a record of its own. Raises ``Malformed``."""
    document, shown = cmw.unwrap(launch), cmw.unwrap(proof)
    parse_evidence(document)
    parse_proof(shown)
    items = {
        LAUNCH: cmw.Record(MEDIA_TYPE, document),
        PROOF: cmw.Record(launch_proof.MEDIA_TYPE, shown),
    }
    return cmw.to_cbor(cmw.Collection(items))


def looks_like_launch(data: bytes) -> bool:
    """Say whether ``data`` is a launch, or one with its proof; never raises."""
    return data.startswith(HEAD) or _items(data) is not None


def parse_launch(data: bytes) -> LaunchEvidence:
    """Read a launch, with a proof or without. Raises ``Malformed``."""
    found = _items(data)
    if found is None:
        return parse_evidence(data)
    launch, proof = (found.get(label) for label in (LAUNCH, PROOF))
    if not isinstance(launch, cmw.Record) or not isinstance(proof, cmw.Record) or len(found) != 2:
        raise MalformedEvidence(f"sev evidence: expected a collection of {LAUNCH} and {PROOF}, and no more")
    return replace(parse_evidence(launch.value), proof=parse_proof(proof.value))


def _items(data: bytes) -> dict[str, cmw.Record | cmw.Collection] | None:
    """The items of a collection that has a launch."""
    if data.startswith(HEAD) or not cmw.looks_like(data):
        return None
    try:
        found = cmw.parse(data)
    except MalformedEvidence:
        return None
    return dict(found.items) if isinstance(found, cmw.Collection) and LAUNCH in found.items else None
