"""Fuzz target: evidence of Azure in its several forms, and the paravisor's report with its runtime data."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Final

from enarx.attest import AnyBinding, AuthenticityOnly, Cache, Collateral, TrustAnchors, Verifier
from enarx.attest.azure import VERIFIER, parse_evidence, parse_hcl_report
from enarx.attest.azure._hcl import td_report_body
from enarx.tcb.errors import EnarxError

_VERIFIER = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly(), cache=Cache())
_NOW = datetime(2025, 6, 1, tzinfo=UTC)
_SNP: Final = 2


def hcl_report(runtime: bytes, hardware: bytes = bytes(1184), report_type: int = _SNP) -> bytes:
    """A report around runtime data that nothing vouches for."""
    size = len(runtime)
    head = (0x414C4348, 1, 1236 + size, 2, 0, 0, 0, 0)
    inner = (20 + size, 1, report_type, 1, size)
    number = [value.to_bytes(4, "little") for value in (*head, *inner)]
    return b"".join((*number[:8], hardware, *number[8:], runtime))


def one(data: bytes) -> None:
    """Read ``data`` as evidence, as a report, as runtime data and as a TDREPORT, and judge it by roots of vendors."""
    for report in (data, hcl_report(data)):
        with contextlib.suppress(EnarxError):
            parse_hcl_report(report).fields()
    with contextlib.suppress(EnarxError):
        td_report_body(data.ljust(1184, b"\x00"), with_1_5=True)
    with contextlib.suppress(EnarxError):
        parse_evidence(data).fields()
    with contextlib.suppress(EnarxError):
        _VERIFIER.verify(data, collateral=Collateral.none(), binding=AnyBinding(), now=_NOW)
        raise AssertionError("arbitrary bytes were accepted as a machine of Azure")
