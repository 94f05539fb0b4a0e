"""Fuzz target: proofs of launch secrets, alone and with a launch of SEV, and the files of owners' sessions."""

from __future__ import annotations

import contextlib

from enarx.attest import EvidenceRejected
from enarx.attest.checks import Ledger
from enarx.attest.launch import parse_launch as parse_session
from enarx.attest.launch import write_launch
from enarx.attest.launch_proof import check_proof, looks_like_proof, pack_proof, parse_proof
from enarx.attest.pef import parse_sealed
from enarx.attest.sev import looks_like_launch, parse_launch
from enarx.tcb.errors import EnarxError
from enarx.tenant.kept_launch import parse_kept

SECRET = b"a secret that no input was made by"


def one(data: bytes) -> None:
    """Read ``data`` as each of them; what is read is written as it was, and no proof holds under a new secret."""
    looks_like_launch(data)
    with contextlib.suppress(EnarxError):
        parse_launch(data)
    with contextlib.suppress(EnarxError):
        proof = parse_proof(data)
        assert looks_like_proof(data)
        assert pack_proof(proof.report_data, proof.mac) == data
        with contextlib.suppress(EvidenceRejected):
            check_proof(proof, SECRET, Ledger())
            raise AssertionError("a proof was accepted without its secret")
    with contextlib.suppress(EnarxError):
        parse_sealed(data)
    with contextlib.suppress(EnarxError):
        session = parse_session(data)
        assert parse_session(write_launch(session).encode()) == session
    with contextlib.suppress(EnarxError):
        kept = parse_kept(data)
        assert kept.pack() == data
