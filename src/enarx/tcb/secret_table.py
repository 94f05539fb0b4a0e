"""The table of secrets that the owner of an SEV guest has put into its memory: a GUID and bytes each, little endian.

A header (GUID, u32 size of header and entries), then entries (GUID, u32 size of the whole entry, data), then zeros up
to a multiple of 16. Source: edk2, OvmfPkg/AmdSev/SecretDxe; Linux, drivers/virt/coco/efi_secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enarx.tcb.errors import Malformed

TABLE_GUID: Final = bytes.fromhex("42f5741edd71664d963eef4287ff173b")
"""1e74f542-71dd-4d66-963e-ef4287ff173b, as all GUIDs here in the bytes in which memory has them."""
ERASED_GUID: Final = bytes(16)
"""What Linux puts in place of the GUID of an entry that was deleted."""
HEAD_BYTES: Final = 20
STEP_BYTES: Final = 16


def guid_bytes(guid: str) -> bytes:
    """Give the 16 bytes of a GUID that is written in hex with dashes."""
    *numbers, clock, node = guid.split("-")
    return b"".join(bytes.fromhex(number)[::-1] for number in numbers) + bytes.fromhex(clock + node)


def read_secret_table(area: bytes) -> tuple[Mapping[bytes, bytes], int]:
    """Give the secrets by GUID, and how many bytes of ``area`` the table with its padding is. Raises ``Malformed``.

    What is behind the padding was not put there with the table, and is not looked at.
    """
    if area[: len(TABLE_GUID)] != TABLE_GUID:
        raise Malformed("secret table: does not begin with its guid")
    end = _size(area, 0, len(area))
    padded = end + -end % STEP_BYTES
    if padded > len(area) or any(area[end:padded]):
        raise Malformed("secret table: what is behind the entries is not its padding")
    found: dict[bytes, bytes] = {}
    at = HEAD_BYTES
    while at < end:
        size, guid = _size(area, at, end), area[at : at + 16]
        if guid in found or guid in (TABLE_GUID, ERASED_GUID):
            raise Malformed("secret table: a guid occurs twice, or is none of a secret")
        found[guid] = area[at + HEAD_BYTES : at + size]
        at += size
    return found, padded


def _size(area: bytes, at: int, end: int) -> int:
    size = int.from_bytes(area[at + 16 : at + HEAD_BYTES], "little")
    if end - at < HEAD_BYTES or not HEAD_BYTES <= size <= end - at:
        raise Malformed(f"secret table: item of {size} bytes at {at}, {end - at} are left")
    return size
