"""Fuzz target: the table of launch secrets, at the beginning of memory that otherwise has anything in it."""

from __future__ import annotations

from uuid import UUID

from enarx.attest.sev import build_secret_table
from enarx.tcb.errors import Malformed
from enarx.tcb.secret_table import read_secret_table


def one(data: bytes) -> None:
    """Read ``data``; a table that is accepted is, to the last byte, the one that is built from its secrets."""
    try:
        found, size = read_secret_table(data)
    except Malformed:
        return
    assert size <= len(data)
    if found:
        table = build_secret_table({UUID(bytes_le=guid): secret for guid, secret in found.items()})
        assert table == data[:size]
