"""The attested channel between tenant and keep, both roles: bytes in, events out. Pure; docs/spec/session.md.

It runs inside a TLS 1.3 session whose exporter both ends hand in. Time, randomness and evidence are arguments.
"""

from enarx.tcb.session._audit import AuditLog, AuditRecord, verify_chain
from enarx.tcb.session._keep import Keep, KeepSession
from enarx.tcb.session._messages import (
    MAX_CHUNK_BYTES,
    MAX_SECRETS_BYTES,
    Exited,
    Extent,
    Output,
    Problem,
    Progress,
    Stream,
)
from enarx.tcb.session._proof import LAUNCH_GUID, LAUNCH_KEY_BYTES, launch_proof
from enarx.tcb.session._state import Life, Move, State
from enarx.tcb.session._tenant import Attested, Ended, Event, TenantSession, resumed_life

__all__ = [
    "LAUNCH_GUID",
    "LAUNCH_KEY_BYTES",
    "MAX_CHUNK_BYTES",
    "MAX_SECRETS_BYTES",
    "Attested",
    "AuditLog",
    "AuditRecord",
    "Ended",
    "Event",
    "Exited",
    "Extent",
    "Keep",
    "KeepSession",
    "Life",
    "Move",
    "Output",
    "Problem",
    "Progress",
    "State",
    "Stream",
    "TenantSession",
    "launch_proof",
    "resumed_life",
    "verify_chain",
]
