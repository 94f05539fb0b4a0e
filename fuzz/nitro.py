"""Fuzz target: Nitro documents."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from enarx.attest import AnyBinding, AuthenticityOnly, Cache, Collateral, TrustAnchors, Verifier
from enarx.attest.nitro import VERIFIER, parse_document
from enarx.tcb.errors import EnarxError

_VERIFIER = Verifier(tees=[VERIFIER], anchors=TrustAnchors.none(), policy=AuthenticityOnly(), cache=Cache())
_NOW = datetime(2025, 6, 1, tzinfo=UTC)


def one(data: bytes) -> None:
    """Read ``data`` as a document, and judge it where no root is trusted."""
    with contextlib.suppress(EnarxError):
        parse_document(data).fields()
    with contextlib.suppress(EnarxError):
        _VERIFIER.verify(data, collateral=Collateral.none(), binding=AnyBinding(), now=_NOW)
        raise AssertionError("a document was accepted without a root")
