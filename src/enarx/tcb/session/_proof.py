"""Proofs of possession inside one TLS session: the tenant's key, and the secret that only a measured guest got."""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.session._messages import VERSION, Hello
from enarx.tcb.wire import encode

TENANT_LABEL: Final = "enarx-tenant-key/1"
LAUNCH_GUID: Final = "6c3a3a0e-2b3f-4d6b-9a44-0a3d1a8e6e52"
"""Under which a tenant puts the secret of a launch, where the platform names secrets by GUID."""
LAUNCH_KEY_BYTES: Final = 32


def hello(key: Ed25519PrivateKey, *, nonce: bytes, exporter: bytes) -> Hello:
    """Make the challenge with the proof that the tenant's ``key`` is at this end of the session."""
    return Hello(
        version=VERSION,
        nonce=nonce,
        key=key.public_key().public_bytes_raw(),
        signature=key.sign(_signed(nonce, exporter)),
    )


def check_possession(hello: Hello, exporter: bytes) -> None:
    """Raise ``ProtocolViolation`` unless the key of ``hello`` has signed this session."""
    try:
        Ed25519PublicKey.from_public_bytes(hello.key).verify(hello.signature, _signed(hello.nonce, exporter))
    except (InvalidSignature, ValueError):
        raise ProtocolViolation("tenant does not hold the key that it names") from None


def _signed(nonce: bytes, exporter: bytes) -> bytes:
    return encode([TENANT_LABEL, nonce, exporter])


def launch_proof(secret: bytes, report_data: bytes) -> bytes:
    """HMAC-SHA-256 by which a guest of a pre-boot TEE shows that it got its launch ``secret``."""
    return hmac.digest(secret, report_data, "sha256")
