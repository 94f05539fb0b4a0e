"""The certificate of the platform's key (PCK) and what Intel writes into it.

Source: Intel, "SGX PCK Certificate and Certificate Revocation List Profile Specification".
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from enarx.attest.der import BOOLEANS, Tag, elements, is_shortest_integer
from enarx.attest.errors import MalformedCollateral
from enarx.attest.x509 import Certificate, parse_certificate

SGX_EXTENSION: Final = "1.2.840.113741.1.13.1"
_ARC: Final = bytes.fromhex("2a864886f84d010d01")
"""The same in DER."""
_NAME: Final = "SGX extension"

CHAIN_CERTIFICATES: Final = 3
"""Leaf, intermediate and root, in this order (certification data of type 5)."""

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"
_LINE_ENDS: Final = b"\r\n"


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
    before, *blocks = data.removesuffix(b"\x00").split(_BEGIN)
    if before or len(blocks) != CHAIN_CERTIFICATES:
        raise MalformedCollateral(f"PCK chain has {len(blocks)} certificates, expected {CHAIN_CERTIFICATES}")
    found = [_certificate(block) for block in blocks]
    leaf = parse_certificate(found[0])
    return PckChain(
        leaf=leaf, pck=parse_pck(leaf) if SGX_EXTENSION in leaf.extensions else None, others=tuple(found[1:])
    )


def _certificate(block: bytes) -> bytes:
    """What stands between two lines of PEM, if nothing but line ends follows them."""
    body, end, after = block.partition(_END)
    text = body.translate(None, _LINE_ENDS)
    try:
        der = binascii.a2b_base64(text)
    except ValueError:
        der = b""
    if not der or not end or after.strip(_LINE_ENDS) or binascii.b2a_base64(der, newline=False) != text:
        raise MalformedCollateral(
            "PCK chain: a certificate is not base64 in its one form, or something follows it"
        )
    return der


def parse_pck(certificate: Certificate) -> Pck:
    """Read the SGX extension. Raises ``MalformedCollateral`` for parts missing, unknown, twice or of a wrong size."""
    extension = certificate.extensions.get(SGX_EXTENSION)
    if extension is None:
        raise MalformedCollateral(f"{certificate.common_name} has no SGX extension")
    part = _items((Tag.SEQUENCE, _only(extension.value)), _ARC, range(1, 8), range(1, 6))
    tcb = _tcb(part[2])
    configuration = _items(part[7], _ARC + b"\x07", range(1, 4), range(0)) if 7 in part else {}
    bits = {number: _boolean(item) for number, item in configuration.items()}
    return Pck(
        certificate=certificate,
        ppid=_octets(part[1], 16),
        components=bytes([_small(tcb[number], 255) for number in range(1, 17)]),
        pce_svn=_small(tcb[17], 0xFFFF),
        cpu_svn=_octets(tcb[18], 16),
        pce_id=_octets(part[3], 2),
        fmspc=_octets(part[4], 6),
        sgx_type=_SGX_TYPES[_small(part[5], len(_SGX_TYPES) - 1, Tag.ENUMERATED)],
        platform_instance_id=_octets(part[6], 16) if 6 in part else None,
        dynamic_platform=bits.get(1),
        cached_keys=bits.get(2),
        smt=bits.get(3),
    )


_Item = tuple[int, bytes]
"""Tag and value."""


def _only(extension: bytes) -> bytes:
    whole = elements(extension, name=_NAME)
    if len(whole) != 1 or whole[0][0] != Tag.SEQUENCE:
        raise MalformedCollateral(f"{_NAME} is not one sequence")
    return whole[0][1]


def _items(listed: _Item, arc: bytes, known: range, required: range) -> dict[int, _Item]:
    """A list of pairs of OID and value: the values by the last number of the OID, each once."""
    if listed[0] != Tag.SEQUENCE:
        raise MalformedCollateral(f"{_NAME}: a list has tag {listed[0]}, expected {Tag.SEQUENCE}")
    found: dict[int, _Item] = {}
    for tag, pair in elements(listed[1], name=_NAME):
        parts = elements(pair, name=_NAME)
        if tag != Tag.SEQUENCE or len(parts) != 2 or parts[0][0] != Tag.OID:
            raise MalformedCollateral(f"{_NAME}: an item is not identifier and value")
        oid = parts[0][1]
        if oid[:-1] != arc or oid[-1] not in known or oid[-1] in found:
            raise MalformedCollateral(f"{_NAME}: item {oid.hex()} is unknown or occurs twice")
        found[oid[-1]] = parts[1]
    if missing := [number for number in required if number not in found]:
        raise MalformedCollateral(f"{_NAME}: item {missing[0]} is missing")
    return found


# One of the eighteen items: an INTEGER of one to three bytes, or an OCTET STRING of sixteen.
_TCB_ITEM: Final = re.compile(
    rb"\x30(.)\x06\x0b" + re.escape(_ARC) + rb"\x02([\x01-\x12])(\x02(?:\x01.|\x02..|\x03...)|\x04\x10.{16})",
    re.DOTALL,
)


def _tcb(listed: _Item) -> dict[int, _Item]:
    """The security versions by number, each of the eighteen once."""
    found: dict[int, _Item] = {}
    read = 0
    items = _TCB_ITEM.findall(listed[1])
    for size, number, item in items:
        if size[0] == 13 + len(item):
            found[number[0]] = (item[0], item[2:])
            read += 15 + len(item)
    if listed[0] != Tag.SEQUENCE or not len(found) == len(items) == 18 or read != len(listed[1]):
        raise MalformedCollateral(f"{_NAME}: the TCB is not a list of eighteen numbered items, each once")
    return found


def _small(item: _Item, most: int, kind: int = Tag.INTEGER) -> int:
    tag, value = item
    number = int.from_bytes(value, "big", signed=True)
    if tag == kind and len(value) == 1 and 0 <= number <= most:  # most are short
        return number
    if tag != kind or not is_shortest_integer(value) or not 0 <= number <= most:
        raise MalformedCollateral(f"{_NAME}: {value.hex()} with tag {tag}, expected a number to {most}")
    return number


def _octets(item: _Item, size: int) -> bytes:
    tag, value = item
    if tag != Tag.OCTET_STRING or len(value) != size:
        raise MalformedCollateral(
            f"{_NAME}: {len(value)} bytes with tag {tag}, expected {size} in a byte string"
        )
    return value


def _boolean(item: _Item) -> bool:
    if item not in BOOLEANS:
        raise MalformedCollateral(f"{_NAME}: {item[1].hex()} with tag {item[0]}, expected a boolean")
    return item == BOOLEANS[True]
