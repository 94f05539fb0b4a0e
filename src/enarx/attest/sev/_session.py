"""The launch of a legacy guest as its owner sees it: session, measurement, secret.

Source: AMD 55766 (SEV API), 2.2.1 (key derivation), 6.2 LAUNCH_START, 6.5 LAUNCH_MEASURE, 6.6 LAUNCH_SECRET.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from enarx.tcb.errors import EnarxError, Malformed

KEY_BYTES: Final = 16
DIGEST_BYTES: Final = 32
MEASURE_BYTES: Final = 48
MAX_SECRET_BYTES: Final = 16 * 1024
"""The most that one LAUNCH_SECRET takes."""
_MEASURE: Final = b"\x04"
_SECRET: Final = b"\x01"


class LaunchRefused(EnarxError):
    """The measurement is not the one expected: release nothing to this guest."""


class GuestPolicy(IntFlag):
    """The low bits of POLICY; bits 16 to 31 are the least API version, major then minor (chapter 3)."""

    NODBG = 1
    NOKS = 2
    ES = 4
    NOSEND = 8
    DOMAIN = 16
    SEV = 32


STRICT: Final = GuestPolicy.NODBG | GuestPolicy.NOKS | GuestPolicy.NOSEND | GuestPolicy.SEV
"""No debugging, no shared keys, no sending, and no migration to platforms without SEV. SEV-ES adds ``ES``."""


def pack_policy(flags: GuestPolicy, *, api: tuple[int, int] = (0, 0)) -> bytes:
    """Give the 4 bytes of POLICY. Raises ``Malformed`` for bits or versions that it has no room for."""
    if not 0 <= flags.value < 64 or not all(0 <= part < 256 for part in api):
        raise Malformed(f"guest policy: flags {flags.value:#x} or api {api} are out of range")
    return flags.value.to_bytes(2, "little") + bytes(api)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKeys:
    """The two transport keys, which only the guest's owner and the platform know."""

    tek: bytes = field(repr=False)
    tik: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.tek) != KEY_BYTES or len(self.tik) != KEY_BYTES:
            raise Malformed(f"transport keys: expected {KEY_BYTES} bytes each")


def prepare_session(
    pdh: ec.EllipticCurvePublicKey,
    *,
    owner: ec.EllipticCurvePrivateKey,
    keys: SessionKeys,
    policy: bytes,
    nonce: bytes,
    iv: bytes,
) -> bytes:
    """Give the session buffer of LAUNCH_START (128 bytes) for the platform whose verified key is ``pdh``.

    ``owner`` is a fresh key on the curve of ``pdh``, ``nonce`` and ``iv`` are 16 fresh random bytes each.
    """
    if len(policy) != 4 or len(nonce) != KEY_BYTES or len(iv) != KEY_BYTES:
        raise Malformed(f"session: expected a policy of 4 bytes, nonce and iv of {KEY_BYTES}")
    if owner.curve.name != pdh.curve.name:
        raise Malformed(f"session: owner's key is on {owner.curve.name}, expected {pdh.curve.name}")
    master = _derive(owner.exchange(ec.ECDH(), pdh), "sev-master-secret", nonce)
    wrapped = _aes_ctr(_derive(master, "sev-kek"), iv, keys.tek + keys.tik)
    wrap_mac = _mac(_derive(master, "sev-kik"), wrapped)
    return nonce + wrapped + iv + wrap_mac + policy_mac(keys.tik, policy)


def policy_mac(tik: bytes, policy: bytes) -> bytes:
    """The last 32 bytes of a session buffer, by which the platform knows the owner's policy."""
    return _mac(tik, policy)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchMeasure:
    """What LAUNCH_MEASURE gave, with what the host says of the platform: true only once ``check`` returned."""

    measure: bytes
    nonce: bytes
    api: tuple[int, int]
    build: int

    def check(
        self, tik: bytes, *, policy: bytes, digest: bytes, minimum: tuple[int, int, int] = (0, 0, 0)
    ) -> VerifiedLaunch:
        """Compare with the launch ``digest`` and ``policy`` that were asked for. Raises ``LaunchRefused``.

        ``minimum``: API major, API minor, build of the platform's firmware.
        """
        if len(tik) != KEY_BYTES or len(policy) != 4 or len(digest) != DIGEST_BYTES:
            raise Malformed("launch measure: tik, policy or digest has a wrong length")
        if self.api < (policy[2], policy[3]) or (*self.api, self.build) < minimum:
            raise LaunchRefused(
                f"firmware is {self.api[0]}.{self.api[1]}.{self.build}, "
                f"expected at least {'.'.join(map(str, minimum))} and api {policy[2]}.{policy[3]}",
                hint="update the firmware of the platform",
            )
        if not hmac.compare_digest(self.mac(tik, policy=policy, digest=digest), self.measure):
            raise LaunchRefused(
                "launch measure is not that of the expected digest, policy and firmware",
                hint="compare the firmware image, kernel, number of processors and policy with `enarx measure`",
            )
        return VerifiedLaunch(measure=self.measure)

    def mac(self, tik: bytes, *, policy: bytes, digest: bytes) -> bytes:
        """What ``measure`` is if the guest was launched by ``policy`` and with ``digest``."""
        return _mac(tik, _MEASURE + bytes((*self.api, self.build)) + policy + digest + self.nonce)


def parse_launch_measure(blob: bytes, *, api: tuple[int, int], build: int) -> LaunchMeasure:
    """Read the 48 bytes that the platform gave: MEASURE, then MNONCE. Raises ``Malformed``."""
    if len(blob) != MEASURE_BYTES:
        raise Malformed(f"launch measure: expected {MEASURE_BYTES} bytes, got {len(blob)}")
    if not all(0 <= part < 256 for part in (*api, build)):
        raise Malformed(f"launch measure: version {api} or build {build} is out of range")
    return LaunchMeasure(measure=blob[:DIGEST_BYTES], nonce=blob[DIGEST_BYTES:], api=api, build=build)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedLaunch:
    """A launch that ``LaunchMeasure.check`` found right: only then may a secret be packed for it."""

    measure: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretPacket:
    """What LAUNCH_SECRET takes."""

    header: bytes
    """52 bytes: flags, IV, MAC."""
    payload: bytes


def pack_secret(launch: VerifiedLaunch, secret: bytes, *, keys: SessionKeys, iv: bytes) -> SecretPacket:
    """Encrypt ``secret`` (1 to 16384 bytes, a multiple of 16) for one launch; ``iv``: 16 fresh random bytes."""
    if not 0 < len(secret) <= MAX_SECRET_BYTES or len(secret) % 16 or len(iv) != KEY_BYTES:
        raise Malformed(
            f"secret: expected 16 to {MAX_SECRET_BYTES} bytes in steps of 16 and an iv of {KEY_BYTES}, "
            f"got {len(secret)} and {len(iv)}"
        )
    flags, size = bytes(4), len(secret).to_bytes(4, "little")
    payload = _aes_ctr(keys.tek, iv, secret)
    mac = _mac(keys.tik, _SECRET + flags + iv + size + size + payload + launch.measure)
    return SecretPacket(header=flags + iv + mac, payload=payload)


def _derive(key: bytes, label: str, context: bytes = b"") -> bytes:
    """NIST SP 800-108 in counter mode: one block, so the counter is 1 and the length 128 bits."""
    said = (1).to_bytes(4, "little") + label.encode() + b"\0" + context + (128).to_bytes(4, "little")
    return _mac(key, said)[:KEY_BYTES]


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.sha256)


def _aes_ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()
    return encryptor.update(data) + encryptor.finalize()
