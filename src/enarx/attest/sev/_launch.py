"""What only the owner of a guest knows of its launch, without which a measurement says nothing.

The measurement is a MAC under a key that the owner made, and it covers a digest that it does not reveal: evidence of
SEV is judged by whoever prepared the session.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enarx.attest._json import octets, read_object
from enarx.attest.launch_proof import SECRET_BYTES
from enarx.attest.sev._session import DIGEST_BYTES, KEY_BYTES, VerifiedLaunch
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
    measure: bytes | None = None
    """MEASURE (32 bytes) of the one launch for which ``secret`` was packed."""
    secret: bytes | None = field(default=None, repr=False)
    """What that launch was given (32 bytes), by which its guest answers challenges later."""

    def __post_init__(self) -> None:
        if (self.measure is None) != (self.secret is None):
            raise Malformed("sev session: measure and secret belong together")
        lengths = (
            ("tik", self.tik, KEY_BYTES),
            ("session", self.session, SESSION_BYTES),
            ("pdh_sha256", self.pdh_sha256, 32),
            *(("digests", digest, DIGEST_BYTES) for digest in self.digests),
            ("measure", self.measure, DIGEST_BYTES),
            ("secret", self.secret, SECRET_BYTES),
        )
        for name, value, expected in lengths:
            if value is not None and len(value) != expected:
                raise Malformed(f"sev session: {name} has {len(value)} bytes, expected {expected}")
        if not 0 < len(self.digests) <= MAX_DIGESTS:
            raise Malformed(f"sev session: {len(self.digests)} digests, expected 1 to {MAX_DIGESTS}")

    @classmethod
    def prepared(
        cls, pdh: ec.EllipticCurvePublicKey, *, tik: bytes, session: bytes, digests: tuple[bytes, ...]
    ) -> Self:
        """Keep what ``prepare_session`` was called with for the verified key ``pdh``."""
        spki = pdh.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(tik=tik, session=session, pdh_sha256=hashlib.sha256(spki).digest(), digests=digests)

    def released(self, launch: VerifiedLaunch, secret: bytes) -> Self:
        """Remember the ``secret`` that was packed for ``launch``, the only one that gets any. Raises ``Malformed``."""
        if self.secret is not None:
            raise Malformed("sev session: its secret was given to a launch already")
        return replace(self, measure=launch.measure, secret=secret)

    @property
    def binding(self) -> bytes:
        """What evidence of this launch is bound to without a proof: SHA-512 of the session buffer, 64 bytes."""
        return hashlib.sha512(self.session).digest()


_KEYS: Final = frozenset({"tik", "session", "pdh_sha256", "digests"})
_OPTIONAL: Final = frozenset({"owner", "measure", "secret"})


def parse_session(data: bytes) -> LaunchSession:
    """Read a session from JSON (docs/spec/sev-evidence.md). Raises ``Malformed``, which never shows a value."""
    found = read_object(data, "sev session")
    if not _KEYS <= set(found) <= _KEYS | _OPTIONAL:
        raise Malformed(
            f"sev session: expected an object of {', '.join(sorted(_KEYS))}, and perhaps {', '.join(sorted(_OPTIONAL))}"
        )
    if not isinstance(found["digests"], list):
        raise Malformed("sev session: digests are no list")
    return LaunchSession(
        digests=tuple(octets(one, "sev session: digests") for one in found.pop("digests")),
        **{name: octets(value, f"sev session: {name}") for name, value in found.items()},
    )


def write_session(session: LaunchSession) -> str:
    """Write what ``parse_session`` reads: keep it secret, the key is in it."""
    document: dict[str, object] = {
        name: getattr(session, name).hex() for name in ("tik", "session", "pdh_sha256")
    }
    document["digests"] = [digest.hex() for digest in session.digests]
    kept = {name: getattr(session, name) for name in sorted(_OPTIONAL)}
    document |= {name: value.hex() for name, value in kept.items() if value is not None}
    return json.dumps(document, indent=2) + "\n"
