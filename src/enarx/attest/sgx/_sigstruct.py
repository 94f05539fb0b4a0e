"""SIGSTRUCT: what an enclave's author signs, and EINIT checks.

Source: Intel SDM volume 3D, "Enclave signature structure" and EINIT. Numbers of the RSA part are little endian.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256

from enarx.attest._unmeasurable import Unmeasurable
from enarx.tcb.errors import EnarxError, Malformed
from enarx.tcb.wire import Layout

RSA_BYTES: Final = 384
EXPONENT: Final = 3
HEADER: Final = bytes.fromhex("06000000e10000000000010000000000")
HEADER2: Final = bytes.fromhex("01010000600000006000000001000000")
VENDORS: Final = {0: "other", 0x8086: "intel"}
_LAYOUT: Final = Layout(
    name="sigstruct",
    size=1808,
    fields={
        "header": range(16),
        "vendor": range(16, 20),
        "date": range(20, 24),
        "header2": range(24, 40),
        "swdefined": range(40, 44),
        "modulus": range(128, 512),
        "exponent": range(512, 516),
        "signature": range(516, 900),
        "miscselect": range(900, 904),
        "miscmask": range(904, 908),
        "cet_attributes": range(908, 909),
        "cet_attributes_mask": range(909, 910),
        "isv_family_id": range(912, 928),
        "attributes": range(928, 944),
        "attributes_mask": range(944, 960),
        "enclave_hash": range(960, 992),
        "isv_ext_prod_id": range(1008, 1024),
        "isv_prod_id": range(1024, 1026),
        "isv_svn": range(1026, 1028),
        "q1": range(1040, 1424),
        "q2": range(1424, 1808),
    },
    reserved=(range(44, 128), range(910, 912), range(992, 1008), range(1028, 1040)),
)
_SIGNED: Final = (slice(0, 128), slice(900, 1028))


class SigstructRejected(EnarxError):
    """The signature does not hold, so EINIT would refuse the enclave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sigstruct:
    """The fields in the order of the structure. Masks have a bit for each that must be as signed."""

    vendor: int = 0
    date: int
    """The author's date, year, month and day in binary coded decimals (0x20260131). EINIT does not look at it."""
    swdefined: int = 0
    miscselect: int = 0
    miscmask: int = 0xFFFFFFFF
    cet_attributes: int = 0
    cet_attributes_mask: int = 0
    isv_family_id: bytes = bytes(16)
    attributes: bytes
    attributes_mask: bytes
    enclave_hash: bytes
    """MRENCLAVE."""
    isv_ext_prod_id: bytes = bytes(16)
    isv_prod_id: int = 0
    isv_svn: int = 0
    mrsigner: bytes = b""
    """SHA-256 of the modulus as it stands in the structure; set by ``verify_sigstruct``."""
    raw: bytes = field(default=b"", repr=False)


def parse_sigstruct(data: bytes) -> Sigstruct:
    """Read 1808 bytes without believing them. Raises ``Malformed``."""
    fields = _LAYOUT.split(data)
    for name, expected in (("header", HEADER), ("header2", HEADER2)):
        if fields[name] != expected:
            raise Malformed(f"sigstruct: {name} is {fields[name].hex()}, expected {expected.hex()}")
    numbers = {name: int.from_bytes(value, "little") for name, value in fields.items() if len(value) <= 4}
    if numbers["vendor"] not in VENDORS:
        raise Malformed(f"sigstruct: vendor is {numbers['vendor']:#x}, expected 0 or 0x8086")
    if numbers["exponent"] != EXPONENT:
        raise Malformed(f"sigstruct: exponent is {numbers['exponent']}, expected {EXPONENT}")
    return Sigstruct(
        vendor=numbers["vendor"],
        date=numbers["date"],
        swdefined=numbers["swdefined"],
        miscselect=numbers["miscselect"],
        miscmask=numbers["miscmask"],
        cet_attributes=numbers["cet_attributes"],
        cet_attributes_mask=numbers["cet_attributes_mask"],
        isv_family_id=fields["isv_family_id"],
        attributes=fields["attributes"],
        attributes_mask=fields["attributes_mask"],
        enclave_hash=fields["enclave_hash"],
        isv_ext_prod_id=fields["isv_ext_prod_id"],
        isv_prod_id=numbers["isv_prod_id"],
        isv_svn=numbers["isv_svn"],
        mrsigner=hashlib.sha256(fields["modulus"]).digest(),
        raw=data,
    )


def verify_sigstruct(data: bytes) -> Sigstruct:
    """Check the signature and its helper values as EINIT does. Raises ``SigstructRejected``, or ``Malformed``."""
    parsed = parse_sigstruct(data)
    n, s, q1, q2 = (
        int.from_bytes(_cut(data, name), "little") for name in ("modulus", "signature", "q1", "q2")
    )
    if n.bit_length() != 8 * RSA_BYTES or not n & 1:
        raise Malformed(
            f"sigstruct: modulus has {n.bit_length()} bits, expected an odd number of {8 * RSA_BYTES}"
        )
    if not 0 < s < n:
        raise SigstructRejected("sigstruct: signature is not smaller than the modulus")
    try:
        key = RSAPublicNumbers(EXPONENT, n).public_key()
        key.verify(s.to_bytes(RSA_BYTES, "big"), _signed(data), PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        raise SigstructRejected("sigstruct: signature does not hold under the modulus in it") from None
    if (q1, q2) != _helpers(s, n):
        raise SigstructRejected("sigstruct: q1 or q2 is not the quotient that EINIT expects")
    return parsed


def build_sigstruct(content: Sigstruct, key: RSAPrivateKey) -> bytes:
    """Sign ``content`` with an RSA-3072 key of exponent 3 (1808 bytes). Raises ``Unmeasurable`` for other keys."""
    numbers = key.public_key().public_numbers()
    if numbers.e != EXPONENT or numbers.n.bit_length() != 8 * RSA_BYTES:
        raise Unmeasurable(
            f"enclave key has {numbers.n.bit_length()} bits and exponent {numbers.e}, expected 3072 bits and 3"
        )
    data = bytearray(_LAYOUT.size)
    for name, value in (
        ("header", HEADER), ("header2", HEADER2), ("vendor", content.vendor), ("date", content.date),
        ("swdefined", content.swdefined), ("modulus", numbers.n), ("exponent", EXPONENT),
        ("miscselect", content.miscselect), ("miscmask", content.miscmask),
        ("cet_attributes", content.cet_attributes), ("cet_attributes_mask", content.cet_attributes_mask),
        ("isv_family_id", content.isv_family_id), ("attributes", content.attributes),
        ("attributes_mask", content.attributes_mask), ("enclave_hash", content.enclave_hash),
        ("isv_ext_prod_id", content.isv_ext_prod_id), ("isv_prod_id", content.isv_prod_id),
        ("isv_svn", content.isv_svn),
    ):  # fmt: skip
        _put(data, name, value)
    signature = int.from_bytes(key.sign(_signed(bytes(data)), PKCS1v15(), SHA256()), "big")
    q1, q2 = _helpers(signature, numbers.n)
    for name, number in (("signature", signature), ("q1", q1), ("q2", q2)):
        _put(data, name, number)
    parse_sigstruct(bytes(data))
    return bytes(data)


def _helpers(s: int, n: int) -> tuple[int, int]:
    """Give the quotients with which EINIT computes s^3 mod n without dividing."""
    q1 = s * s // n
    return q1, (s * s - q1 * n) * s // n


def _signed(data: bytes) -> bytes:
    return b"".join(data[part] for part in _SIGNED)


def _cut(data: bytes, name: str) -> bytes:
    at = _LAYOUT.fields[name]
    return data[at.start : at.stop]


def _put(data: bytearray, name: str, value: bytes | int) -> None:
    at = _LAYOUT.fields[name]
    if isinstance(value, int):
        if not 0 <= value < 1 << 8 * len(at):
            raise Unmeasurable(f"sigstruct: {name} {value:#x} does not fit into {len(at)} bytes")
        value = value.to_bytes(len(at), "little")
    if len(value) != len(at):
        raise Unmeasurable(f"sigstruct: {name} has {len(value)} bytes, expected {len(at)}")
    data[at.start : at.stop] = value
