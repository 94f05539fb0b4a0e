"""What only the owner of a guest knows of its launch, without which a measurement says nothing.

The measurement is a MAC under a key that the owner made, and it covers a digest that it does not reveal: evidence of
SEV is judged by whoever prepared the session.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enarx.attest.sev._session import DIGEST_BYTES, KEY_BYTES
from enarx.tcb.errors import Malformed

SESSION_BYTES: Final = 128
MAX_DIGESTS: Final = 64
"""Images times numbers of processors; each costs a MAC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSession:
    """One session of LAUNCH_START, as its owner keeps it. Use it for one launch: who reuses it accepts a replay."""

    tik: bytes = field(repr=False)
    """16 bytes."""
    session: bytes
    """The buffer of ``prepare_session`` that went to the platform."""
    pdh_sha256: bytes
    """SHA-256 of the SubjectPublicKeyInfo of the PDH for which it was prepared: nobody else can open it."""
    digests: tuple[bytes, ...]
    """The launch digests (32 bytes) that the owner is prepared to see, as ``enarx measure sev`` gives them."""
    owner: bytes | None = None
    """SubjectPublicKeyInfo of the OCA, where the platform must have an owner who is known."""

    def __post_init__(self) -> None:
        lengths = (
            ("tik", len(self.tik), KEY_BYTES),
            ("session", len(self.session), SESSION_BYTES),
            ("pdh_sha256", len(self.pdh_sha256), 32),
            *(("digests", len(digest), DIGEST_BYTES) for digest in self.digests),
        )
        for name, found, expected in lengths:
            if found != expected:
                raise Malformed(f"sev session: {name} has {found} bytes, expected {expected}")
        if not 0 < len(self.digests) <= MAX_DIGESTS:
            raise Malformed(f"sev session: {len(self.digests)} digests, expected 1 to {MAX_DIGESTS}")

    @classmethod
    def prepared(
        cls, pdh: ec.EllipticCurvePublicKey, *, tik: bytes, session: bytes, digests: tuple[bytes, ...]
    ) -> Self:
        """Keep what ``prepare_session`` was called with for the verified key ``pdh``."""
        spki = pdh.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(tik=tik, session=session, pdh_sha256=hashlib.sha256(spki).digest(), digests=digests)

    @property
    def binding(self) -> bytes:
        """What evidence of this launch is bound to: SHA-512 of the session buffer, 64 bytes."""
        return hashlib.sha512(self.session).digest()


_KEYS: Final = frozenset({"tik", "session", "pdh_sha256", "digests"})


def parse_session(data: bytes) -> LaunchSession:
    """Read a session from JSON (docs/spec/sev-evidence.md). Raises ``Malformed``, which never shows a value."""
    try:
        found = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise Malformed("sev session: not JSON") from None
    if not isinstance(found, dict) or not _KEYS <= set(found) <= _KEYS | {"owner"}:
        raise Malformed(f"sev session: expected an object of {', '.join(sorted(_KEYS))}, and owner or not")
    if not isinstance(found["digests"], list):
        raise Malformed("sev session: digests are no list")
    return LaunchSession(
        tik=_octets("tik", found["tik"]),
        session=_octets("session", found["session"]),
        pdh_sha256=_octets("pdh_sha256", found["pdh_sha256"]),
        digests=tuple(_octets("digests", one) for one in found["digests"]),
        owner=_octets("owner", found["owner"]) if "owner" in found else None,
    )


def write_session(session: LaunchSession) -> str:
    """Write what ``parse_session`` reads: keep it secret, the key is in it."""
    document: dict[str, object] = {
        name: getattr(session, name).hex() for name in ("tik", "session", "pdh_sha256")
    }
    document["digests"] = [digest.hex() for digest in session.digests]
    if session.owner is not None:
        document["owner"] = session.owner.hex()
    return json.dumps(document, indent=2) + "\n"


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise Malformed("sev session: a name occurs twice")
    return dict(pairs)


def _octets(name: str, value: object) -> bytes:
    try:
        if isinstance(value, str) and value.isalnum():
            return bytes.fromhex(value)
    except ValueError:
        pass
    raise Malformed(f"sev session: {name} is not hex")
