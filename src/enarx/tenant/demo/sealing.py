"""What tenant and enclave of the SGX demo share: what a quote is bound to, and how numbers are sealed (HPKE, RFC 9180).

Both directions are bound to the one quote, and the answer to a key that only the enclave was told.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value, decode, encode

MAX_SEALED_BYTES: Final = 4096
OPERANDS: Final = b"enarx demo sgx operands"
SUM: Final = b"enarx demo sgx sum"
_BINDING: Final = b"enarx demo sgx binding"


def report_data(nonce: bytes, key: bytes) -> bytes:
    """Give what a quote is bound to (64 bytes): the tenant's challenge and the enclave's key, 32 bytes each."""
    return hashlib.sha512(_BINDING + nonce + key).digest()


def public_bytes(key: X25519PrivateKey) -> bytes:
    """Give the public key (32 bytes)."""
    return key.public_key().public_bytes_raw()


def seal(value: Value, *, key: bytes, purpose: bytes, binding: bytes) -> bytes:
    """Encrypt ``value`` to a public key (32 bytes)."""
    return _suite().encrypt(encode(value), X25519PublicKey.from_public_bytes(key), info=purpose + binding)


def unseal(data: bytes, *, key: X25519PrivateKey, purpose: bytes, binding: bytes) -> Value:
    """Decrypt what ``seal`` made. Raises ``Malformed``."""
    try:
        plain = _suite().decrypt(data, key, info=purpose + binding)
    except InvalidTag:
        raise Malformed("sealed: not made for this key, this purpose and this quote") from None
    return decode(plain, max_bytes=MAX_SEALED_BYTES)


def _suite() -> Suite:
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
