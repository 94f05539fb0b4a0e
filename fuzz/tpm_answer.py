"""Fuzz target: what a TPM, which belongs to a keep's host, answers to the keep's commands."""

from __future__ import annotations

import contextlib

from enarx.tcb import tpm
from enarx.tcb.errors import Malformed, Unavailable
from enarx.tcb.wire import Reader


def one(data: bytes) -> None:
    """Read ``data`` as each answer, and as a row of answers to whoever reads all registers."""
    with contextlib.suppress(Malformed, Unavailable):
        handle, point = tpm.read_primary(data)
        assert 0 <= handle < 1 << 32
        assert (len(point), point[:1]) == (65, b"\x04")
    with contextlib.suppress(Malformed, Unavailable):
        quote, signature = tpm.read_quote(data)
        assert quote in data
        assert signature in data
    with contextlib.suppress(Malformed, Unavailable):
        assert {len(value) for value in tpm.read_pcr_values(data).values()} <= {32}
    with contextlib.suppress(Malformed):
        assert tpm.code_of(data) in tpm.Command
    row = Reader(data, name="row")
    with contextlib.suppress(Malformed, Unavailable):
        values = tpm.read_registers(lambda _: row.block(2, "answer"))
        assert len(values) == 32 * len(tpm.PCRS)
