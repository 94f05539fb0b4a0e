"""Fuzz target: chains of legacy SEV platforms and launch measurements."""

from __future__ import annotations

import contextlib

from enarx.attest import TrustAnchors
from enarx.attest.checks import Ledger
from enarx.attest.sev import (
    parse_amd_certificate,
    parse_certificate,
    parse_chain,
    parse_launch_measure,
    verify_chain,
)
from enarx.tcb.errors import EnarxError


def one(data: bytes) -> None:
    """Read ``data`` as each of them, and judge it where no root is trusted."""
    for parse in (parse_certificate, parse_amd_certificate):
        with contextlib.suppress(EnarxError):
            parse(data)
    with contextlib.suppress(EnarxError):
        parse_launch_measure(data, api=(1, 40), build=10)
    with contextlib.suppress(EnarxError):
        verify_chain(parse_chain(data), anchors=TrustAnchors.none(), ledger=Ledger())
        raise AssertionError("a platform was accepted without a root")
