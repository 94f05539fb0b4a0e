"""What a tenant keeps of a launch that was attested before boot, so that its keep can prove itself again later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from enarx.attest.launch import PreBoot, parse_launch, write_launch
from enarx.attest.sev import LaunchSession, pack_proven, parse_evidence
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import decode, encode

MAX_KEPT_BYTES: Final = 1 << 15


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLaunch:
    """The session of one launch, with its secret, and of SEV the launch evidence that was accepted."""

    session: PreBoot
    document: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.session, LaunchSession) != bool(self.document):
            raise Malformed("kept launch: launch evidence belongs to a session of SEV, and to no other")
        if self.document:
            parse_evidence(self.document)

    def evidence(self, shown: bytes) -> bytes:
        """Give the whole evidence for ``Verifier.verify``; ``shown`` is what the keep put into its attestation."""
        return pack_proven(self.document, shown) if self.document else shown

    def pack(self) -> bytes:
        """Write what ``parse_kept`` reads: keep it secret."""
        return encode({"session": write_launch(self.session), "document": self.document})


def parse_kept(data: bytes) -> KeptLaunch:
    """Read what was kept. Raises ``Malformed``."""
    match decode(data, max_bytes=MAX_KEPT_BYTES):
        case {"session": str() as session, "document": bytes() as document, **rest} if not rest:
            kept = KeptLaunch(session=parse_launch(session.encode()), document=document)
            if kept.pack() == data:
                return kept
    raise Malformed("kept launch: expected a map of session and document, as they were written")
