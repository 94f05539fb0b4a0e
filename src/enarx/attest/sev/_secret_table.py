"""The secrets that ``pack_secret`` encrypts and that a guest finds in its secret area after LAUNCH_SECRET."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from enarx.attest.sev._session import MAX_SECRET_BYTES
from enarx.tcb.errors import Malformed
from enarx.tcb.secret_table import ERASED_GUID, HEAD_BYTES, STEP_BYTES, TABLE_GUID, read_secret_table


def build_secret_table(secrets: Mapping[UUID, bytes]) -> bytes:
    """Give what ``pack_secret`` encrypts, entries in the order given. Raises ``Malformed``."""
    if not secrets:
        raise Malformed("secret table: no secret is given")
    if any(guid.bytes_le in (TABLE_GUID, ERASED_GUID) for guid in secrets):
        raise Malformed(
            "secret table: a guid is the table's own or zero", hint="name each secret by its own guid"
        )
    entries = b"".join(_item(guid.bytes_le, data) for guid, data in secrets.items())
    table = _item(TABLE_GUID, entries)
    padded = table + bytes(-len(table) % STEP_BYTES)
    if len(padded) > MAX_SECRET_BYTES:
        raise Malformed(f"secret table: {len(padded)} bytes, at most {MAX_SECRET_BYTES} fit")
    return padded


def parse_secret_table(data: bytes) -> Mapping[UUID, bytes]:
    """Read a table: every byte belongs to it, what is behind the entries is zero. Raises ``Malformed``."""
    if len(data) > MAX_SECRET_BYTES:
        raise Malformed(f"secret table: {len(data)} bytes, at most {MAX_SECRET_BYTES} fit")
    found, size = read_secret_table(data)
    if size != len(data):
        raise Malformed("secret table: what is behind the entries is not its padding")
    return {UUID(bytes_le=guid): secret for guid, secret in found.items()}


def _item(guid: bytes, data: bytes) -> bytes:
    return guid + (HEAD_BYTES + len(data)).to_bytes(4, "little") + data
