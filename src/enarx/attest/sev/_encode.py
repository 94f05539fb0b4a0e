"""Writing certificates of legacy SEV: the owner of a guest needs one for the key of a launch session.

Source: AMD 55766 (SEV API), appendix C.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from enarx.attest.sev._certs import SIGNED_BYTES, Algorithm, Usage

NO_SIGNATURE: Final = Usage.EMPTY.to_bytes(4, "little") + bytes(516)
"""One of the two places for a signature (520 bytes), unused."""
_CURVES: Final = {"secp256r1": 1, "secp384r1": 2}


def pack_body(
    usage: int, algorithm: int, key: ec.EllipticCurvePublicKey, *, api: tuple[int, int] = (0, 0)
) -> bytes:
    """Give what is signed of a certificate (1044 bytes); ``api``: of the firmware that makes it."""
    point = key.public_numbers()
    head = (1).to_bytes(4, "little") + bytes((*api, 0, 0))
    role = usage.to_bytes(4, "little") + algorithm.to_bytes(4, "little")
    numbers = _CURVES[key.curve.name].to_bytes(4, "little")
    numbers += point.x.to_bytes(72, "little") + point.y.to_bytes(72, "little")
    return (head + role + numbers).ljust(SIGNED_BYTES, b"\0")


def owner_certificate(key: ec.EllipticCurvePublicKey) -> bytes:
    """Give the certificate (2084 bytes) that LAUNCH_START takes beside a session prepared with this key.

    Nobody signs it: the session proves that its sender has the key.
    """
    return pack_body(Usage.PDH, Algorithm.ECDH_SHA256, key) + NO_SIGNATURE * 2
