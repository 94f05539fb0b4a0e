"""Verdicts as signed attestation results, for those who believe this verifier: ``enarx verify --ear``."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from enarx.attest import Claims, EvidenceRejected
from enarx.attest.ear import SigningKey, ear_of, ear_of_refusal, to_cwt, to_jwt
from enarx.cli._files import read
from enarx.tcb.errors import Malformed


class Form(Enum):
    """How a token is written."""

    JWT = "jwt"
    CWT = "cwt"


@dataclass(frozen=True, slots=True)
class Token:
    """One signed result."""

    form: Form
    value: bytes

    def text(self) -> str:
        """As text: a JWT is some, a CWT in base64url."""
        if self.form is Form.JWT:
            return self.value.decode()
        return base64.urlsafe_b64encode(self.value).rstrip(b"=").decode()


def load_signing_key(path: Path) -> SigningKey:
    """Read a private key in PEM, without a passphrase: P-256, P-384 or Ed25519. Raises ``Malformed``."""
    try:
        key = load_pem_private_key(read(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Malformed(
            f"{path}: not a private key in PEM without a passphrase",
            hint="openssl genpkey -algorithm ed25519 -out verifier.pem",
        ) from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    raise Malformed(f"{path}: a key of another kind", hint="use P-256, P-384 or Ed25519")


def token_of(
    judged: Claims | EvidenceRejected, tee: str, form: Form, key: SigningKey, *, now: datetime
) -> Token:
    """Say what became of evidence of the kind ``tee``, signed by ``key`` as of ``now``."""
    ear = ear_of(judged, now=now) if isinstance(judged, Claims) else ear_of_refusal(judged, tee, now=now)
    return Token(form, to_jwt(ear, key).encode() if form is Form.JWT else to_cwt(ear, key))
