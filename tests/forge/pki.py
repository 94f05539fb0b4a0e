"""Keys, names and times of the tests' vendors, and certificates with anything in them, as an attacker makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enarx_emulator import pki
from enarx_emulator.amd.endorsement import amd_name
from enarx_emulator.pki import Key

__all__ = ["END", "EPOCH", "NOW", "Cert", "Key", "amd_name", "ec_key", "rsa_key"]

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
"""Everything is issued here."""
NOW = datetime(2025, 1, 1, tzinfo=UTC)
"""When the tests verify."""
END = datetime(2030, 1, 1, tzinfo=UTC)


@cache
def rsa_key(label: str) -> rsa.RSAPrivateKey:
    """One RSA key a label and test run. 2048 bits, because they are made quickly."""
    del label
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key(label: str, curve: type[ec.EllipticCurve] = ec.SECP384R1) -> ec.EllipticCurvePrivateKey:
    """One elliptic-curve key a label and test run."""
    del label
    return ec.generate_private_key(curve())


@dataclass(frozen=True, kw_only=True)
class Cert(pki.Cert):
    """A certificate that is valid when the tests verify."""

    not_before: datetime = EPOCH
    not_after: datetime = END

    def crl(
        self,
        *revoked: int,
        this_update: datetime = NOW - timedelta(days=10),
        next_update: datetime = NOW + timedelta(days=10),
        signer: Key | None = None,
        number: int = 1,
        extensions: Sequence[tuple[str, bool, bytes]] = (),
    ) -> bytes:
        """Make a revocation list that is current when the tests verify, in DER."""
        return super().crl(
            *revoked,
            this_update=this_update,
            next_update=next_update,
            signer=signer,
            number=number,
            extensions=extensions,
        )
