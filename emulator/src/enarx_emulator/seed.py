"""Where emulated machines have their secrets from: everything is derived from one seed, as real chips do from fuses."""

from __future__ import annotations

import secrets
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from enarx_emulator.errors import EmulatorError

MIN_ROOT_BYTES: Final = 16
_EXTRA_BYTES: Final = 8
"""So that reducing by the group's order favours no key noticeably (FIPS 186-5, A.2.1)."""


class Seed:
    """A secret from which others are derived by label (HKDF-SHA-256)."""

    __slots__ = ("_root",)

    def __init__(self, root: bytes) -> None:
        if len(root) < MIN_ROOT_BYTES:
            raise EmulatorError(f"seed has {len(root)} bytes, at least {MIN_ROOT_BYTES} are needed")
        self._root = root

    @property
    def root(self) -> bytes:
        """The secret itself, to be kept in the state of the machine that owns it."""
        return self._root

    def derive(self, label: str, size: int) -> bytes:
        """Derive ``size`` bytes (at most 8160)."""
        info = b"enarx-emulator/1\0" + label.encode()
        return HKDF(hashes.SHA256(), size, salt=None, info=info).derive(self._root)

    def child(self, label: str) -> Seed:
        """Derive a seed for a part that must not know the others' secrets."""
        return Seed(self.derive(f"{label}\0seed", 32))

    def ec_key(self, label: str, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        """Derive a private key on ``curve`` (FIPS 186-5, A.2.1)."""
        order = curve.group_order
        size = (order.bit_length() + 7) // 8 + _EXTRA_BYTES
        number = int.from_bytes(self.derive(f"{label}\0{curve.name}", size), "big")
        return ec.derive_private_key(number % (order - 1) + 1, curve)


def random_seed() -> Seed:
    """Give a seed that nobody else has."""
    return Seed(secrets.token_bytes(32))
