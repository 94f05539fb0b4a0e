"""What only the owner of a virtual machine knows of its launch with PEF: the secret that was sealed for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enarx.attest._json import octets, read_object
from enarx.attest.launch_proof import SECRET_BYTES
from enarx.attest.pef._esm import DIGEST_BYTES, Digests, Random, build_esm_blob, load_machine_key
from enarx.tcb.errors import Malformed
from enarx.tcb.session import LAUNCH_GUID

_PARTS: Final = ("rtas", "kernel", "initrd", "bootargs")
_KEYS: Final = frozenset({"secret", "machine", "digests"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedLaunch:
    """One blob as its owner keeps it: a secret that one machine gives to the virtual machine of ``digests`` alone.

    ``seal`` makes the blob and this together, for one machine and without a lockbox for anybody else.
    """

    secret: bytes = field(repr=False)
    """32 bytes, in no other blob."""
    digests: Digests
    machine: bytes
    """DER SubjectPublicKeyInfo of the one key for which the blob was sealed."""

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET_BYTES:
            raise Malformed(f"pef session: secret has {len(self.secret)} bytes, expected {SECRET_BYTES}")
        for name in _PARTS:
            if (size := len(getattr(self.digests, name))) != DIGEST_BYTES:
                raise Malformed(f"pef session: digest of {name} has {size} bytes, expected {DIGEST_BYTES}")
        if not 0 < self.digests.kernel_size < 1 << 32:
            raise Malformed(
                f"pef session: kernel of {self.digests.kernel_size} bytes, expected 1 to 2**32 - 1"
            )

    @classmethod
    def seal(cls, digests: Digests, *, machine: bytes, random: Random) -> tuple[bytes, Self]:
        """Give a blob with a fresh secret for the machine whose public key (PEM) is ``machine``, and what to keep.

        Raises ``MalformedEvidence``.
        """
        secret = random(SECRET_BYTES)
        key = load_machine_key(machine)
        blob = build_esm_blob(digests, machines={"": machine}, files={LAUNCH_GUID: secret}, random=random)
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return blob, cls(secret=secret, digests=digests, machine=spki)

    @property
    def machine_sha256(self) -> bytes:
        """The name of the machine in verdicts and policies."""
        return hashlib.sha256(self.machine).digest()


def parse_sealed(data: bytes) -> SealedLaunch:
    """Read a session from JSON (docs/spec/pef-evidence.md). Raises ``Malformed``, which never shows a value."""
    found = read_object(data, "pef session")
    digests = found.get("digests")
    if set(found) != _KEYS or not isinstance(digests, dict):
        raise Malformed(f"pef session: expected an object of {', '.join(sorted(_KEYS))}")
    size = digests.pop("kernel_size", None)
    if set(digests) != set(_PARTS) or not isinstance(size, int) or isinstance(size, bool):
        raise Malformed(f"pef session: digests are not {', '.join(_PARTS)}, and kernel_size as a number")
    return SealedLaunch(
        secret=octets(found["secret"], "pef session: secret"),
        machine=octets(found["machine"], "pef session: machine"),
        digests=Digests(
            kernel_size=size, **{name: octets(digests[name], f"pef session: {name}") for name in _PARTS}
        ),
    )


def write_sealed(launch: SealedLaunch) -> str:
    """Write what ``parse_sealed`` reads: keep it secret, the secret is in it."""
    digests: Mapping[str, object] = {
        **{name: getattr(launch.digests, name).hex() for name in _PARTS},
        "kernel_size": launch.digests.kernel_size,
    }
    document = {"secret": launch.secret.hex(), "machine": launch.machine.hex(), "digests": digests}
    return json.dumps(document, indent=2) + "\n"
