"""Fuzz target: a firmware image, or the tables of one, as somebody else built it."""

from __future__ import annotations

import contextlib

from enarx.attest._guid_table import PAGE_BYTES
from enarx.attest.measure import (
    CPU_SIGNATURES,
    hash_kernel,
    mrtd,
    parse_sev_firmware,
    parse_td_firmware,
    sev_es_launch_digest,
    snp_launch_digest,
)
from enarx.tcb.errors import EnarxError


def one(data: bytes) -> None:
    """Read the end of ``data``, filled up to one page, and measure what can be; raises nothing but our errors."""
    image = data[-PAGE_BYTES:].rjust(PAGE_BYTES, b"\0")
    cpu, kernel = CPU_SIGNATURES["EPYC-v4"], hash_kernel(b"kernel")
    with contextlib.suppress(EnarxError):
        firmware = parse_sev_firmware(image)
        for hashes in (None, kernel):
            with contextlib.suppress(EnarxError):
                snp_launch_digest(firmware, vcpus=2, cpu_signature=cpu, kernel=hashes)
            with contextlib.suppress(EnarxError):
                sev_es_launch_digest(firmware, vcpus=2, cpu_signature=cpu, kernel=hashes)
    with contextlib.suppress(EnarxError):
        mrtd(parse_td_firmware(image))
