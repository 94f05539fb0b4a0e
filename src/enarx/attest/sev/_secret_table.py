"""The table of secrets that a guest finds in its secret area after LAUNCH_SECRET: a GUID and bytes each, little endian.

A header (GUID, u32 size of header and entries), then entries (GUID, u32 size of the whole entry, data), then zeros up
to a multiple of 16. Source: edk2, OvmfPkg/AmdSev/SecretDxe; Linux, drivers/virt/coco/efi_secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from enarx.attest.sev._session import KEY_BYTES, MAX_SECRET_BYTES
from enarx.tcb.errors import Malformed

TABLE: Final = UUID("1e74f542-71dd-4d66-963e-ef4287ff173b")
HEAD_BYTES: Final = 20
_ERASED: Final = UUID(int=0)
"""What Linux puts in place of the GUID of an entry that was deleted."""


def build_secret_table(secrets: Mapping[UUID, bytes]) -> bytes:
    """Give what ``pack_secret`` encrypts, entries in the order given. Raises ``Malformed``."""
    if not secrets:
        raise Malformed("secret table: no secret is given")
    if TABLE in secrets or _ERASED in secrets:
        raise Malformed(
            "secret table: a guid is the table's own or zero", hint="name each secret by its own guid"
        )
    entries = b"".join(_item(guid, data) for guid, data in secrets.items())
    table = _item(TABLE, entries)
    padded = table + bytes(-len(table) % KEY_BYTES)
    if len(padded) > MAX_SECRET_BYTES:
        raise Malformed(f"secret table: {len(padded)} bytes, at most {MAX_SECRET_BYTES} fit")
    return padded


def parse_secret_table(data: bytes) -> Mapping[UUID, bytes]:
    """Read a table: every byte belongs to it, what is behind the entries is zero. Raises ``Malformed``."""
    if len(data) % KEY_BYTES or len(data) > MAX_SECRET_BYTES or data[:16] != TABLE.bytes_le:
        raise Malformed(f"secret table: {len(data)} bytes that do not begin with its guid")
    end = _size(data, 0, len(data))
    if len(data) - end >= KEY_BYTES or any(data[end:]):
        raise Malformed("secret table: what is behind the entries is not its padding")
    found: dict[UUID, bytes] = {}
    at = HEAD_BYTES
    while at < end:
        size, guid = _size(data, at, end), UUID(bytes_le=data[at : at + 16])
        if guid in found or guid in (TABLE, _ERASED):
            raise Malformed(f"secret table: guid {guid} occurs twice, or is none of a secret")
        found[guid] = data[at + HEAD_BYTES : at + size]
        at += size
    return found


def _item(guid: UUID, data: bytes) -> bytes:
    return guid.bytes_le + (HEAD_BYTES + len(data)).to_bytes(4, "little") + data


def _size(data: bytes, at: int, end: int) -> int:
    size = int.from_bytes(data[at + 16 : at + HEAD_BYTES], "little")
    if end - at < HEAD_BYTES or not HEAD_BYTES <= size <= end - at:
        raise Malformed(f"secret table: item of {size} bytes at {at}, {end - at} are left")
    return size
