"""Proofs of a launch secret: how a guest of a TEE that attests before boot (SEV, SEV-ES, PEF) answers challenges later.

Its owner gave a secret to the one guest that was measured. Who shows a MAC under it is that guest
(docs/spec/session.md, 4.4; docs/adr/0013-proofs-of-launch-secrets.md).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from enarx.attest.checks import Ledger
from enarx.attest.claims import ReportData
from enarx.attest.errors import MalformedEvidence
from enarx.tcb.errors import Malformed
from enarx.tcb.session import LAUNCH_KEY_BYTES, launch_proof
from enarx.tcb.wire import decode, encode

MEDIA_TYPE: Final = "application/vnd.enarx.evidence.launch-proof"
"""Of a proof as a CMW record."""
SECRET_BYTES: Final = LAUNCH_KEY_BYTES
REPORT_DATA_BYTES: Final = 64
MAC_BYTES: Final = 32
_HEAD: Final = b"\x82\x58\x40"
PROOF_BYTES: Final = len(_HEAD) + REPORT_DATA_BYTES + 2 + MAC_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchProof:
    """A proof as it was read: nothing of it is true yet."""

    report_data: bytes
    mac: bytes

    def fields(self) -> Mapping[str, object]:
        """Both of them."""
        return {"report_data": self.report_data, "mac": self.mac}


def looks_like_proof(data: bytes) -> bool:
    """Say whether ``data`` has the size of a proof and begins as one; never raises."""
    return len(data) == PROOF_BYTES and data.startswith(_HEAD)


def parse_proof(data: bytes) -> LaunchProof:
    """Read a proof without its envelope. Raises ``MalformedEvidence``."""
    try:
        value = decode(data, max_bytes=PROOF_BYTES)
    except Malformed as error:
        raise MalformedEvidence(f"launch proof: {error}") from None
    match value:
        case [bytes() as report_data, bytes() as mac]:
            lengths = (("report data", report_data, REPORT_DATA_BYTES), ("mac", mac, MAC_BYTES))
        case _:
            raise MalformedEvidence("launch proof: expected a list of report data and mac")
    for name, part, expected in lengths:
        if len(part) != expected:
            raise MalformedEvidence(f"launch proof: {name} has {len(part)} bytes, expected {expected}")
    return LaunchProof(report_data=report_data, mac=mac)


def pack_proof(report_data: bytes, mac: bytes) -> bytes:
    """Write what ``parse_proof`` reads. Raises ``MalformedEvidence``."""
    written = encode([report_data, mac])
    parse_proof(written)
    return written


def check_proof(proof: LaunchProof, secret: bytes, ledger: Ledger) -> ReportData:
    """Give the report data that ``proof`` proves under ``secret``. Raises ``EvidenceRejected``.

    The ledger gets no MAC that is right: it would be a proof for whoever reads the verdict.
    """
    holds = hmac.compare_digest(launch_proof(secret, proof.report_data), proof.mac)
    ledger.require(
        "launch.proof",
        holds,
        field=("report_data", "mac"),
        expected="the MAC of the report data under the secret of this launch",
        found="so" if holds else "not so",
        advice="whoever answers does not have the secret that this launch alone was given",
    )
    return ReportData(proof.report_data)
