"""JSON objects as evidence and tokens use them (RFC 8259): no key twice, no numbers that are none."""

from __future__ import annotations

import json
from typing import Any

from enarx.attest.errors import MalformedEvidence


def read_object(data: bytes, name: str) -> dict[str, Any]:
    """Read one object. Raises ``MalformedEvidence`` that begins with ``name``."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise MalformedEvidence(f"{name}: a key occurs twice")
        return found

    def refuse(word: str) -> float:
        raise MalformedEvidence(f"{name}: {word} is no JSON")

    try:
        found = json.loads(data, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise MalformedEvidence(f"{name}: not JSON") from None
    if not isinstance(found, dict):
        raise MalformedEvidence(f"{name}: not a JSON object")
    return found


def octets(value: object, name: str) -> bytes:
    """Read a value that is bytes in hex. Raises ``MalformedEvidence``, which never shows it."""
    try:
        if isinstance(value, str) and value.isalnum():
            return bytes.fromhex(value)
    except ValueError:
        pass
    raise MalformedEvidence(f"{name} is not hex")
