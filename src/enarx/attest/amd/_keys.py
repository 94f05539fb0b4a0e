"""ECC keys and signatures in AMD's fixed structures: little-endian numbers in 72-byte fields.

Source: AMD 55766 (SEV API), appendix C.2 and C.3; AMD 56860 (SEV-SNP ABI), tables of ECDSA_PUB_KEY and signature.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from enarx.attest._unmeasurable import Unmeasurable
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Layout

KEY_BYTES: Final = 1028
SIGNATURE_BYTES: Final = 512
P384: Final = 2
"""The curve number."""
_KEY: Final = Layout(
    name="ecdsa public key",
    size=KEY_BYTES,
    fields={"curve": range(4), "qx": range(4, 76), "qy": range(76, 148)},
    reserved=(range(148, KEY_BYTES),),
)
_SIGNATURE: Final = Layout(
    name="ecdsa signature",
    size=SIGNATURE_BYTES,
    fields={"r": range(72), "s": range(72, 144)},
    reserved=(range(144, SIGNATURE_BYTES),),
)


def load_private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a PEM private key without a password. Raises ``Malformed``, for other than ECC keys too."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise Malformed("private key: no PEM that can be read without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Malformed(
            "private key: no elliptic curve key", hint="openssl ecparam -name secp384r1 -genkey makes one"
        )
    return key


def pack_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """Give the 1028 bytes of a P-384 key. Raises ``Unmeasurable`` for another curve."""
    if not isinstance(key.curve, ec.SECP384R1):
        raise Unmeasurable(f"key is on curve {key.curve.name}, expected secp384r1")
    numbers = key.public_numbers()
    point = numbers.x.to_bytes(72, "little") + numbers.y.to_bytes(72, "little")
    return (P384.to_bytes(4, "little") + point).ljust(KEY_BYTES, b"\0")


def unpack_key(data: bytes) -> ec.EllipticCurvePublicKey:
    """Read the 1028 bytes of a P-384 key. Raises ``Malformed`` when the point is not on the curve."""
    fields = {name: int.from_bytes(value, "little") for name, value in _KEY.split(data).items()}
    if fields["curve"] != P384:
        raise Malformed(f"ecdsa public key: curve is {fields['curve']}, expected {P384} (P-384)")
    try:
        return ec.EllipticCurvePublicNumbers(fields["qx"], fields["qy"], ec.SECP384R1()).public_key()
    except ValueError:
        raise Malformed("ecdsa public key: the point is not on P-384") from None


def key_digest(key: bytes) -> bytes:
    """Give ID_KEY_DIGEST or AUTHOR_KEY_DIGEST of a packed key, as the report shows it (48 bytes)."""
    if len(key) != KEY_BYTES:
        raise Malformed(f"ecdsa public key: expected {KEY_BYTES} bytes, got {len(key)}")
    return hashlib.sha384(key).digest()


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Sign with ECDSA P-384 and SHA-384 (512 bytes). Deterministic (RFC 6979): no randomness is needed."""
    pack_key(key.public_key())  # refuses another curve
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA384(), deterministic_signing=True)))
    return (r.to_bytes(72, "little") + s.to_bytes(72, "little")).ljust(SIGNATURE_BYTES, b"\0")


def signature_holds(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    """Tell whether ``signature`` (512 bytes) over ``data`` is that of a P-384 ``key``."""
    fields = _SIGNATURE.split(signature)
    r, s = (int.from_bytes(fields[name], "little") for name in ("r", "s"))
    try:
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(SHA384()))
    except InvalidSignature:
        return False
    return True
