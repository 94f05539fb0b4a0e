"""Fuzz target: event logs of both kinds, the table that points to one, and readers of kernels and enclaves."""

from __future__ import annotations

import contextlib

from enarx.attest.measure import (
    Algorithm,
    authenticode_digest,
    check_event_data,
    parse_cc_event_log,
    parse_ccel_table,
    parse_tpm_event_log,
    patched_kernel,
    replay,
    sgxs_mrenclave,
    verify_sigstruct,
)
from enarx.tcb.errors import EnarxError


def one(data: bytes) -> None:
    """Read ``data`` as each of them; raises nothing but our errors."""
    for parse in (parse_tpm_event_log, parse_cc_event_log):
        with contextlib.suppress(EnarxError):
            log = parse(data)
            for algorithm in log.algorithms:
                with contextlib.suppress(EnarxError):
                    replay(log, algorithm)
                    check_event_data(log, algorithm)
    for read in (parse_ccel_table, sgxs_mrenclave, verify_sigstruct):
        with contextlib.suppress(EnarxError):
            read(data)
    with contextlib.suppress(EnarxError):
        authenticode_digest(data, Algorithm.SHA256)
    with contextlib.suppress(EnarxError):
        patched_kernel(data, memory_bytes=1 << 30, initrd_bytes=1)
