"""Fuzz target: TPM quotes and their signatures, alone and in their envelope."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from enarx.attest import AnyBinding, AuthenticityOnly, Cache, Collateral, TrustAnchors, Verifier
from enarx.attest.tpm import VERIFIER, parse_quote
from enarx.attest.tpm._quote import parse_signature
from enarx.tcb.errors import EnarxError

_VERIFIER = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly(), cache=Cache())
_NOW = datetime(2025, 6, 1, tzinfo=UTC)
_SIGNATURE = b"\x00\x14\x00\x0b\x00\x01\x01"


def one(data: bytes) -> None:
    """Read ``data`` as a quote, as a signature, and judge it as evidence by the roots of vendors."""
    with contextlib.suppress(EnarxError):
        parse_signature(data)
    for pcrs in (b"", bytes(32), bytes(32 * 24)):
        with contextlib.suppress(EnarxError):
            parse_quote(data, _SIGNATURE, pcrs).fields()
    with contextlib.suppress(EnarxError):
        _VERIFIER.verify(data, collateral=Collateral.none(), binding=AnyBinding(), now=_NOW)
        raise AssertionError("arbitrary bytes were accepted as a quote of a certified TPM")
