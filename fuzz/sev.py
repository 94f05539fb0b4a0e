"""Fuzz target: chains of legacy SEV platforms, launch measurements, launch evidence and tables of secrets."""

from __future__ import annotations

import contextlib

from enarx.attest import TrustAnchors
from enarx.attest.checks import Ledger
from enarx.attest.sev import (
    build_secret_table,
    parse_amd_certificate,
    parse_certificate,
    parse_chain,
    parse_evidence,
    parse_launch_measure,
    parse_secret_table,
    verify_chain,
)
from enarx.tcb.errors import EnarxError


def one(data: bytes) -> None:
    """Read ``data`` as each of them, and judge it where no root is trusted."""
    for parse in (parse_certificate, parse_amd_certificate, parse_evidence):
        with contextlib.suppress(EnarxError):
            parse(data)
    with contextlib.suppress(EnarxError):
        assert build_secret_table(parse_secret_table(data)) == data
    with contextlib.suppress(EnarxError):
        parse_launch_measure(data, api=(1, 40), build=10)
    with contextlib.suppress(EnarxError):
        verify_chain(parse_chain(data), anchors=TrustAnchors.none(), ledger=Ledger())
        raise AssertionError("a platform was accepted without a root")
