"""What a file of collateral is, by its content: so that a caller can hand over a whole folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from enarx.attest.chain import parse_revocation_list
from enarx.attest.collateral import Collateral, Document, Kind
from enarx.attest.der import Der, Tag
from enarx.attest.errors import MalformedCollateral
from enarx.attest.snp import parse_certificate_table
from enarx.attest.x509 import parse_certificate
from enarx.tcb.errors import Malformed

SEV_CERTIFICATE_BYTES: Final = 2084
_AMD_ROOT_BYTES: Final = (576, 832, 1600)


def recognise_collateral(data: bytes) -> Collateral:
    """Say what ``data`` is and take it in. Raises ``MalformedCollateral`` if it is nothing we know."""
    for look in _LOOKS:
        found = look(data)
        if found is not None:
            return found
    raise MalformedCollateral(
        f"{len(data)} bytes are no collateral that we know",
        hint="known are certificates and revocation lists (PEM, DER), Intel's TCB info and QE identity, AMD's SEV "
        "certificates and certificate tables, TCG event logs",
    )


def _pem(data: bytes) -> Collateral | None:
    return Collateral.from_pem(data) if b"-----BEGIN " in data[:4096] and b"PRIVATE" not in data else None


def _der(data: bytes) -> Collateral | None:
    """Certificates and lists share their first bytes; one in a row behind the other is how some services give
    a chain.
    """
    if data[:1] != b"\x30":
        return None
    found = Collateral()
    at = Der(data, name="collateral")
    while at.more():
        tag, value, whole = at.any()
        if tag != Tag.SEQUENCE:
            raise at.bad("neither a certificate nor a revocation list")
        inner = Der(Der(value, name="collateral").any()[1], name="collateral")
        if inner.peek() == 0xA0:
            parse_certificate(whole)
            found |= Collateral(certificates=(whole,))
        elif inner.peek() == Tag.INTEGER:
            parse_revocation_list(whole)
            found |= Collateral(crls=(whole,))
        else:
            found |= Collateral(documents=(Document(Kind.PUBLIC_KEY, whole),))
    return found


def _intel(data: bytes) -> Collateral | None:
    head = data.lstrip()[:64].replace(b" ", b"").replace(b"\n", b"")
    for key, kind in ((b'{"tcbInfo":', Kind.TCB_INFO), (b'{"enclaveIdentity":', Kind.QE_IDENTITY)):
        if head.startswith(key):
            return Collateral(documents=(Document(kind, data),))
    return None


def _sev(data: bytes) -> Collateral | None:
    if data[:4] != b"\x01\x00\x00\x00":
        return None
    if len(data) % SEV_CERTIFICATE_BYTES and len(data) % SEV_CERTIFICATE_BYTES not in {
        size + other for size in (0, *_AMD_ROOT_BYTES) for other in (0, *_AMD_ROOT_BYTES)
    }:
        return None
    return Collateral(documents=(Document(Kind.SEV_CERTIFICATE, data),))


def _event_log(data: bytes) -> Collateral | None:
    is_log = b"Spec ID Event0" in data[:80] or (data[:1] == b"[" and b'"imr"' in data[:4096])
    return Collateral(documents=(Document(Kind.EVENT_LOG, data),)) if is_log else None


def _snp_table(data: bytes) -> Collateral | None:
    try:
        certificates = parse_certificate_table(data)
    except Malformed:
        return None
    return Collateral(certificates=tuple(certificates)) if certificates else None


_LOOKS: Final[tuple[Callable[[bytes], Collateral | None], ...]] = (
    _pem,
    _der,
    _intel,
    _sev,
    _event_log,
    _snp_table,
)
