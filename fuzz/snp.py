"""Fuzz target: SNP reports with their certificate table, and every parser of collateral."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from enarx.attest import AnyBinding, AuthenticityOnly, Cache, Collateral, TrustAnchors, Verifier
from enarx.attest.chain import parse_revocation_list
from enarx.attest.material import recognise_collateral
from enarx.attest.snp import VERIFIER, parse_evidence
from enarx.attest.x509 import parse_certificate
from enarx.tcb.errors import EnarxError

_VERIFIER = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly(), cache=Cache())
_NOW = datetime(2025, 6, 1, tzinfo=UTC)


def one(data: bytes) -> None:
    """Read ``data`` as each of them, and judge it as evidence that brings its own collateral."""
    for parse in (parse_certificate, parse_revocation_list, recognise_collateral):
        with contextlib.suppress(EnarxError):
            parse(data)
    with contextlib.suppress(EnarxError):
        parse_evidence(data).fields()
    with contextlib.suppress(EnarxError):
        _VERIFIER.verify(
            data, collateral=Collateral(certificates=(data[1184:],)), binding=AnyBinding(), now=_NOW
        )
        raise AssertionError("arbitrary bytes were accepted as evidence of AMD")
