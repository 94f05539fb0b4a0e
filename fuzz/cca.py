"""Fuzz target: CCA tokens, and each of the two that are in one."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Final

import cbor2

from enarx.attest import AnyBinding, AuthenticityOnly, Cache, Collateral, TrustAnchors, Vendor, Verifier
from enarx.attest.cca import VERIFIER, parse_token
from enarx.attest.cca._token import parse_platform, parse_realm
from enarx.tcb.errors import EnarxError

_CPAK: Final = bytes.fromhex(
    "3059301306072a8648ce3d020106082a8648ce3d030107034200"
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
"""The generator of P-256, whose private key is one: nobody's."""
_VERIFIER = Verifier(
    tees=[VERIFIER],
    anchors=TrustAnchors.none().adding(_CPAK, name="nobody's", vendor=Vendor.ARM_CCA),
    policy=AuthenticityOnly(),
    cache=Cache(),
)
_NOW = datetime(2025, 6, 1, tzinfo=UTC)


def one(data: bytes) -> None:
    """Read ``data`` as a token, as either part, as the claims of either, and judge it by a key that signed nothing."""
    message = cbor2.dumps(cbor2.CBORTag(18, [b"\xa1\x01\x26", {}, data, bytes(64)]))
    for part in (data, message):
        with contextlib.suppress(EnarxError):
            parse_platform(part).fields()
        with contextlib.suppress(EnarxError):
            parse_realm(part).fields()
    with contextlib.suppress(EnarxError):
        parse_token(data).fields()
    with contextlib.suppress(EnarxError):
        _VERIFIER.verify(data, collateral=Collateral.none(), binding=AnyBinding(), now=_NOW)
        raise AssertionError("a token was accepted that no platform signed")
