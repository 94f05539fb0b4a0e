"""Fuzz target: what a service answers: the whole answer as it comes over a connection, and what its body must be."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time

from enarx.attest.collateral import Kind
from enarx.attest.errors import MalformedCollateral
from enarx.attest.fetch import Client, CollateralUnavailable
from enarx.attest.fetch._item import certificates, document, revocation_list, until

_CLIENT = Client(max_body_bytes=1 << 14, proxies={})
_READERS = (
    certificates("a"),
    revocation_list("a", chain_header="x-issuer-chain"),
    document("a", Kind.TCB_INFO, "x-issuer-chain"),
    document("a", Kind.QE_IDENTITY, "x-issuer-chain"),
)


def one(data: bytes) -> None:
    """Take ``data`` as an answer; then its body, or all of it, as each kind of collateral."""
    body, headers = data, {"x-issuer-chain": data[:200].decode("latin-1")}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        with contextlib.suppress(CollateralUnavailable, http.client.HTTPException):
            answer = _CLIENT._read("https://service.test/", ours, time.monotonic() + 5)
            assert len(answer.body) <= _CLIENT.max_body_bytes
            body, headers = answer.body, dict(answer.headers)
    for read in _READERS:
        with contextlib.suppress(MalformedCollateral):
            assert until(read(body, headers)).tzinfo is not None
