"""What to ask a service for, and what its answer must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import unquote_to_bytes

from enarx.attest.chain import parse_revocation_list
from enarx.attest.collateral import Collateral, Kind
from enarx.attest.dcap import parse_qe_identity, parse_tcb_info
from enarx.attest.errors import MalformedCollateral
from enarx.attest.material import recognise_collateral
from enarx.attest.x509 import parse_certificate

Files = Mapping[str, bytes]
"""Contents by the name of the file to which they may be written."""
Read = Callable[[bytes, Mapping[str, str]], Files]
"""From body and headers (by lower-case name) to files. Raises ``MalformedCollateral``."""

REVALIDATED: Final = timedelta(days=1)
"""Lists and documents are replaced before they end: the service is asked this often whether it has newer ones."""

_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PARSERS: Final = {Kind.TCB_INFO: parse_tcb_info, Kind.QE_IDENTITY: parse_qe_identity}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One address."""

    url: str
    read: Read
    revalidated: timedelta | None
    """How long an answer is good without asking again; nothing: as long as it says itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one piece of evidence needs."""

    choices: tuple[tuple[Item, ...], ...] = ((),)
    """Sets of which one is right: the first whose first item the service knows. Most evidence leaves no choice."""
    notes: tuple[str, ...] = ()
    """What no service gives."""


def certificates(name: str) -> Read:
    """Certificates, in PEM or DER."""

    def read(body: bytes, _headers: Mapping[str, str]) -> Files:
        _only(recognise_collateral(body), certificates=True)
        return {f"{name}.pem" if b"-----BEGIN" in body else f"{name}.der": body}

    return read


def revocation_list(name: str, *, chain_header: str = "") -> Read:
    """One list in DER, or in hex as some caching services give it, and its issuers from a header."""

    def read(body: bytes, headers: Mapping[str, str]) -> Files:
        der = _unhexed(body)
        _only(recognise_collateral(der), crls=True)
        return {f"{name}.crl": der, **_chain(name, headers, chain_header)}

    return read


def document(name: str, kind: Kind, *chain_headers: str) -> Read:
    """A signed document exactly as it was sent, and its issuers from the first of these headers that is there."""

    def read(body: bytes, headers: Mapping[str, str]) -> Files:
        _only(recognise_collateral(body), kind=kind)
        header = next((one for one in chain_headers if one in headers), chain_headers[0])
        return {f"{name}.json": body, **_chain(name, headers, header)}

    return read


def until(files: Files) -> datetime:
    """When the first part of an answer ends by its own word. Raises ``MalformedCollateral``."""
    ends: list[datetime] = []
    for data in files.values():
        found = recognise_collateral(data)
        ends += [parse_certificate(der).not_after for der in found.certificates]
        ends += [parse_revocation_list(der).next_update for der in found.crls]
        ends += [_PARSERS[one.kind](one.data).next_update for one in found.documents]
    return min(ends)


def _only(
    found: Collateral, *, certificates: bool = False, crls: bool = False, kind: Kind | None = None
) -> None:
    kinds = {document.kind for document in found.documents}
    wanted = {kind} if kind else set()
    if (bool(found.certificates), bool(found.crls), kinds) != (certificates, crls, wanted):
        raise MalformedCollateral("it is another kind of collateral than was asked for")


def _unhexed(body: bytes) -> bytes:
    try:
        return bytes.fromhex(body.decode("ascii").strip())
    except ValueError:
        return body


def _chain(name: str, headers: Mapping[str, str], header: str) -> Files:
    """The certificates in a header, where they stand percent-encoded in PEM."""
    if not header:
        return {}
    text = headers.get(header)
    if text is None:
        raise MalformedCollateral(f"the header {header} is missing")
    if _BAD_ESCAPE.search(text) or not text.isascii():
        raise MalformedCollateral(f"the header {header} is not percent-encoded")
    pem = unquote_to_bytes(text)
    try:
        _only(recognise_collateral(pem), certificates=True)
    except MalformedCollateral:
        raise MalformedCollateral(f"the header {header} holds no certificates") from None
    return {f"{name}-chain.pem": pem}
