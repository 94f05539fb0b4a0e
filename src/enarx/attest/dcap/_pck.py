"""The certificate of the platform's key (PCK) and what Intel writes into it.

Source: Intel, "SGX PCK Certificate and Certificate Revocation List Profile Specification".
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from enarx.attest.der import Der, Tag, only
from enarx.attest.errors import MalformedCollateral
from enarx.attest.x509 import Certificate, parse_certificate

SGX_EXTENSION: Final = "1.2.840.113741.1.13.1"
_ARC: Final = bytes.fromhex("2a864886f84d010d01")
"""The same in DER."""

CHAIN_CERTIFICATES: Final = 3
"""Leaf, intermediate and root, in this order (certification data of type 5)."""

_BLOCK: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE-----[\r\n]*"
)


class SgxType(Enum):
    """How the platform protects enclave memory."""

    STANDARD = "standard"
    SCALABLE = "scalable"
    SCALABLE_WITH_INTEGRITY = "scalable-with-integrity"


_TCB_NAMES: Final = ("pce", *(f"sgx{at:02}" for at in range(1, 17)))
_SGX_TYPES: Final = tuple(SgxType)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pck:
    """A PCK certificate: which platform it is of, and the security versions for which its key was derived."""

    certificate: Certificate
    ppid: bytes
    components: bytes
    """The sixteen SVNs of the TCB, one byte each."""
    pce_svn: int
    cpu_svn: bytes
    pce_id: bytes
    fmspc: bytes
    sgx_type: SgxType
    platform_instance_id: bytes | None
    """Only multi-package platforms have one, and the three bits below."""
    dynamic_platform: bool | None
    cached_keys: bool | None
    smt: bool | None

    def tcb(self) -> dict[str, int]:
        """The security versions by component: ``pce``, ``sgx01`` to ``sgx16``."""
        return dict(zip(_TCB_NAMES, (self.pce_svn, *self.components), strict=True))

    def fields(self) -> Mapping[str, object]:
        """What the extension says, by name."""
        return {
            name: getattr(self, name)
            for name in (
                "ppid",
                "components",
                "pce_svn",
                "cpu_svn",
                "pce_id",
                "fmspc",
                "sgx_type",
                "platform_instance_id",
                "dynamic_platform",
                "cached_keys",
                "smt",
            )
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PckChain:
    """The certificates in a quote: the leaf as a value, the two others in DER."""

    leaf: Certificate
    pck: Pck | None
    """Nothing if the first certificate has no SGX extension: it is no PCK certificate."""
    others: tuple[bytes, ...]


def parse_pck_chain(data: bytes) -> PckChain:
    """Read certification data of type 5: certificates in PEM, leaf first, perhaps ended by one zero byte.

    Nothing may stand between or after them, and base64 must be in its one form. Raises ``MalformedCollateral``.
    """
    text = data.removesuffix(b"\x00")
    found: list[bytes] = []
    at = 0
    while at < len(text):
        block = _BLOCK.match(text, at)
        if block is None or len(found) == CHAIN_CERTIFICATES:
            raise MalformedCollateral(f"PCK chain: no certificate, or one too many, at {at:#x}")
        found.append(_base64(b"".join(block[1].split())))
        at = block.end()
    if len(found) != CHAIN_CERTIFICATES:
        raise MalformedCollateral(f"PCK chain has {len(found)} certificates, expected {CHAIN_CERTIFICATES}")
    leaf = parse_certificate(found[0])
    return PckChain(
        leaf=leaf, pck=parse_pck(leaf) if SGX_EXTENSION in leaf.extensions else None, others=tuple(found[1:])
    )


def _base64(text: bytes) -> bytes:
    try:
        der = base64.b64decode(text, validate=True)
    except ValueError:
        der = b""
    if base64.b64encode(der) != text:
        raise MalformedCollateral("PCK chain: a certificate is not base64 in its one form")
    return der


def parse_pck(certificate: Certificate) -> Pck:
    """Read the SGX extension. Raises ``MalformedCollateral`` for parts missing, unknown, twice or of a wrong size."""
    extension = certificate.extensions.get(SGX_EXTENSION)
    if extension is None:
        raise MalformedCollateral(f"{certificate.common_name} has no SGX extension")
    part = _items(only(extension.value, Tag.SEQUENCE, name="SGX extension"), _ARC, range(1, 8), range(1, 6))
    tcb = _items(part[2].inside(Tag.SEQUENCE, "TCB"), _ARC + b"\x02", range(1, 19), range(1, 19))
    configuration: dict[int, Der] = {}
    if 7 in part:
        given = part[7].inside(Tag.SEQUENCE, "configuration")
        configuration = _items(given, _ARC + b"\x07", range(1, 4), range(0))
    bits = {number: item.boolean("value") for number, item in configuration.items()}
    pck = Pck(
        certificate=certificate,
        ppid=_octets(part[1], 16),
        components=bytes(tcb[number].small("component", most=255) for number in range(1, 17)),
        pce_svn=tcb[17].small("PCESVN"),
        cpu_svn=_octets(tcb[18], 16),
        pce_id=_octets(part[3], 2),
        fmspc=_octets(part[4], 6),
        sgx_type=_SGX_TYPES[part[5].small("SGX type", most=len(_SGX_TYPES) - 1, tag=Tag.ENUMERATED)],
        platform_instance_id=_octets(part[6], 16) if 6 in part else None,
        dynamic_platform=bits.get(1),
        cached_keys=bits.get(2),
        smt=bits.get(3),
    )
    for item in (*part.values(), *tcb.values(), *configuration.values()):
        item.end()
    return pck


def _items(listed: Der, arc: bytes, known: range, required: range) -> dict[int, Der]:
    """A list of pairs of OID and value: the values by the last number of the OID, each once."""
    found: dict[int, Der] = {}
    while listed.more():
        pair = listed.inside(Tag.SEQUENCE, "item")
        oid = pair.take(Tag.OID, "oid")
        if oid[:-1] != arc or oid[-1] not in known or oid[-1] in found:
            raise listed.bad(f"item {oid.hex()} is unknown or occurs twice")
        found[oid[-1]] = pair
    if missing := [number for number in required if number not in found]:
        raise listed.bad(f"item {missing[0]} is missing")
    return found


def _octets(at: Der, size: int) -> bytes:
    value = at.take(Tag.OCTET_STRING, "value")
    if len(value) != size:
        raise at.bad(f"{len(value)} bytes, expected {size}")
    return value
