"""The ID block: what a guest's owner signs so that only the measured image starts under an identity.

The firmware checks it at launch and reports only digests of the keys. Source: AMD 56860 (SEV-SNP ABI),
SNP_LAUNCH_FINISH, tables of ID_BLOCK and ID_AUTH_INFO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from enarx.attest._unmeasurable import Unmeasurable
from enarx.attest.amd._keys import key_digest, pack_key, sign, signature_holds, unpack_key
from enarx.tcb.errors import EnarxError, Malformed
from enarx.tcb.wire import Layout

VERSION: Final = 1
ECDSA_P384_SHA384: Final = 1
_BLOCK: Final = Layout(
    name="id block",
    size=96,
    fields={
        "launch_digest": range(0x30),
        "family_id": range(0x30, 0x40),
        "image_id": range(0x40, 0x50),
        "version": range(0x50, 0x54),
        "guest_svn": range(0x54, 0x58),
        "policy": range(0x58, 0x60),
    },
)
_AUTH: Final = Layout(
    name="id authentication information",
    size=4096,
    fields={
        "id_key_algo": range(0x004),
        "author_key_algo": range(0x004, 0x008),
        "id_block_sig": range(0x040, 0x240),
        "id_key": range(0x240, 0x644),
        "id_key_sig": range(0x680, 0x880),
        "author_key": range(0x880, 0xC84),
    },
    reserved=(range(0x008, 0x040), range(0x644, 0x680), range(0xC84, 0x1000)),
)


class IdBlockRejected(EnarxError):
    """A signature over the ID block or the ID key does not hold: the firmware would refuse the launch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdBlock:
    """What the ID key signs."""

    launch_digest: bytes
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    guest_svn: int = 0
    policy: int

    def pack(self) -> bytes:
        """Give the 96 bytes. Raises ``Unmeasurable`` when a field has another size."""
        for name, value, size in (
            ("launch digest", self.launch_digest, 48),
            ("family id", self.family_id, 16),
            ("image id", self.image_id, 16),
        ):
            if len(value) != size:
                raise Unmeasurable(f"id block: {name} has {len(value)} bytes, expected {size}")
        for name, number, bits in (("guest svn", self.guest_svn, 32), ("policy", self.policy, 64)):
            if not 0 <= number < 1 << bits:
                raise Unmeasurable(f"id block: {name} {number:#x} does not fit into {bits} bits")
        numbers = (
            VERSION.to_bytes(4, "little")
            + self.guest_svn.to_bytes(4, "little")
            + self.policy.to_bytes(8, "little")
        )
        return self.launch_digest + self.family_id + self.image_id + numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class IdKeys:
    """The digests that the report of a guest with this ID block shows."""

    id_key_digest: bytes
    author_key_digest: bytes
    """48 zero bytes where no author key is used."""


def parse_id_block(data: bytes) -> IdBlock:
    """Read 96 bytes. Raises ``Malformed``."""
    fields = _BLOCK.split(data)
    if (version := int.from_bytes(fields["version"], "little")) != VERSION:
        raise Malformed(f"id block: version is {version}, expected {VERSION}")
    return IdBlock(
        launch_digest=fields["launch_digest"],
        family_id=fields["family_id"],
        image_id=fields["image_id"],
        guest_svn=int.from_bytes(fields["guest_svn"], "little"),
        policy=int.from_bytes(fields["policy"], "little"),
    )


def build_id_auth(
    block: IdBlock, id_key: ec.EllipticCurvePrivateKey, author_key: ec.EllipticCurvePrivateKey | None = None
) -> bytes:
    """Sign ``block`` with the ID key, and the ID key with the author key: the 4096 bytes for the launch."""
    packed = pack_key(id_key.public_key())
    auth = bytearray(_AUTH.size)
    values = {"id_key_algo": _algorithm(), "id_block_sig": sign(id_key, block.pack()), "id_key": packed}
    if author_key is not None:
        values["author_key_algo"] = _algorithm()
        values["id_key_sig"] = sign(author_key, packed)
        values["author_key"] = pack_key(author_key.public_key())
    for name, value in values.items():
        at = _AUTH.fields[name]
        auth[at.start : at.stop] = value
    return bytes(auth)


def verify_id_auth(block: bytes, auth: bytes) -> IdKeys:
    """Check both signatures as the firmware does. Raises ``IdBlockRejected``, or ``Malformed``.

    An author is recognised by its algorithm field; without one all of the author's fields must be zero.
    """
    parse_id_block(block)
    fields = _AUTH.split(auth)
    algorithms = {name: int.from_bytes(fields[name], "little") for name in ("id_key_algo", "author_key_algo")}
    if algorithms["id_key_algo"] != ECDSA_P384_SHA384:
        raise Malformed(
            f"id authentication information: id_key_algo is {algorithms['id_key_algo']}, expected 1"
        )
    if algorithms["author_key_algo"] not in (0, ECDSA_P384_SHA384):
        raise Malformed(
            f"id authentication information: author_key_algo is {algorithms['author_key_algo']}, expected 0 or 1"
        )
    if not signature_holds(unpack_key(fields["id_key"]), fields["id_block_sig"], block):
        raise IdBlockRejected("id block: the signature by the id key does not hold")
    author_digest = bytes(48)
    if algorithms["author_key_algo"]:
        if not signature_holds(unpack_key(fields["author_key"]), fields["id_key_sig"], fields["id_key"]):
            raise IdBlockRejected("id key: the signature by the author key does not hold")
        author_digest = key_digest(fields["author_key"])
    elif any(fields["id_key_sig"]) or any(fields["author_key"]):
        raise Malformed("id authentication information: author key without author_key_algo")
    return IdKeys(id_key_digest=key_digest(fields["id_key"]), author_key_digest=author_digest)


def _algorithm() -> bytes:
    return ECDSA_P384_SHA384.to_bytes(4, "little")
