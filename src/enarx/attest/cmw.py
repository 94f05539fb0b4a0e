"""RATS conceptual message wrapper (draft-ietf-rats-msg-wrap-23): the envelope in which evidence and results
travel.

Read: JSON and CBOR records, the CBOR tag form, and collections of them. Written: JSON and CBOR. The envelope
proves nothing: its type is a hint, and only the bytes inside are judged.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from types import MappingProxyType
from typing import Final

import cbor2

from enarx.attest.errors import MalformedEvidence

MAX_DEPTH: Final = 4
"""Collections in collections; evidence of one platform needs one or two."""
MAX_ITEMS: Final = 64

_TAG_BASE: Final = 1668546817
"""Tag of CoAP content format 0 (section 3.3); format n has this plus n."""
_MAX_FORMAT: Final = 65024
_TYPE_KEY: Final = "__cmwc_t"


class Indicator(IntFlag):
    """What kind of message it is (section 3.1)."""

    REFERENCE_VALUES = 1
    ENDORSEMENTS = 2
    EVIDENCE = 4
    RESULTS = 8
    APPRAISAL_POLICY = 16


_NOTHING: Final = Indicator(0)


@dataclass(frozen=True, slots=True)
class Record:
    """One message: a media type or a CoAP content format, and the bytes."""

    type: str | int
    value: bytes
    indicator: Indicator = _NOTHING


@dataclass(frozen=True, slots=True)
class Collection:
    """Messages by label."""

    items: Mapping[str, Record | Collection]
    type: str = ""


def parse(data: bytes) -> Record | Collection:
    """Read an envelope in JSON or CBOR. Raises ``MalformedEvidence``."""
    try:
        if data[:1] in (b"[", b"{"):
            value = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse)
        else:
            stream = io.BytesIO(data)
            value = cbor2.CBORDecoder(
                stream, max_depth=2 * MAX_DEPTH + 2, allow_indefinite=False, allow_duplicate_keys=False
            ).decode()
            if stream.read(1):  # the decoder itself does not mind
                raise MalformedEvidence("envelope: bytes trail")
    except MalformedEvidence:
        raise
    except Exception as error:  # foreign decoders on hostile bytes: whatever they raise is a refusal
        raise MalformedEvidence(f"envelope is neither JSON nor CBOR: {type(error).__name__}") from None
    return _read(value, data[:1] in (b"[", b"{"), MAX_DEPTH)


def looks_like(data: bytes) -> bool:
    """Say cheaply whether ``data`` may be an envelope; never raises."""
    if data[:1] == b"[":
        return data[1:].lstrip()[:1] in b'"0123456789'
    first = data[0] if data else 0
    return first in (ord("{"), 0x82, 0x83, 0xDA) or 0xA1 <= first <= 0xB8


def unwrap(data: bytes) -> bytes:
    """Give the value of a record; anything else comes back unchanged. Never raises."""
    if not looks_like(data):
        return data
    try:
        found = parse(data)
    except MalformedEvidence:
        return data
    return found.value if isinstance(found, Record) else data


def to_json(message: Record | Collection) -> bytes:
    """Write an envelope as JSON."""
    return json.dumps(_json(message), separators=(",", ":")).encode()


def to_cbor(message: Record | Collection) -> bytes:
    """Write an envelope as deterministic CBOR."""
    return cbor2.dumps(_cbor(message), canonical=True)


def _read(value: object, is_json: bool, depth: int) -> Record | Collection:
    match value:
        case [str() | int() as kind, str() | bytes() as body, *rest] if len(rest) < 2 and not isinstance(
            kind, bool
        ):
            indicator = _indicator(rest[0]) if rest else Indicator(0)
            return Record(_kind(kind), _body(body, is_json), indicator)
        case cbor2.CBORTag(tag=tag, value=bytes() as body) if (
            0 <= tag - _TAG_BASE <= _MAX_FORMAT and not is_json
        ):
            return Record(tag - _TAG_BASE, body)
        case dict() if depth == 0:
            raise MalformedEvidence(f"envelope: collections nest deeper than {MAX_DEPTH}")
        case dict():
            kind = value.get(_TYPE_KEY, "")
            items = {label: item for label, item in value.items() if label != _TYPE_KEY}
            if not isinstance(kind, str) or not 0 < len(items) <= MAX_ITEMS:
                raise MalformedEvidence(
                    f"envelope: expected 1 to {MAX_ITEMS} messages and a type that is text"
                )
            read: dict[str, Record | Collection] = {}
            for label, item in items.items():
                if not isinstance(label, str | int) or isinstance(label, bool) or str(label) in read:
                    raise MalformedEvidence("envelope: a label is neither text nor number, or occurs twice")
                read[str(label)] = _read(item, is_json, depth - 1)
            return Collection(MappingProxyType(read), kind)
    raise MalformedEvidence("envelope: expected a record of type, value and indicator, or a collection")


def _kind(kind: str | int) -> str | int:
    if isinstance(kind, str) and not (kind.isascii() and kind.isprintable() and "/" in kind[1:-1]):
        raise MalformedEvidence("envelope: type is no media type")
    if isinstance(kind, int) and not 0 <= kind <= 0xFFFF:
        raise MalformedEvidence("envelope: type is no content format")
    return kind


def _body(body: str | bytes, is_json: bool) -> bytes:
    if isinstance(body, str) is not is_json:
        raise MalformedEvidence("envelope: value is text in CBOR")
    if isinstance(body, bytes):
        return body
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise MalformedEvidence("envelope: value is not base64url") from None
    if _base64url(raw) != body:
        raise MalformedEvidence("envelope: value is not base64url without padding")
    return raw


def _indicator(value: object) -> Indicator:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 32:
        raise MalformedEvidence("envelope: indicator is not a combination of the five known bits")
    return Indicator(value)


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _json(message: Record | Collection) -> object:
    if isinstance(message, Record):
        last = [int(message.indicator)] if message.indicator else []
        return [message.type, _base64url(message.value), *last]
    named = {_TYPE_KEY: message.type} if message.type else {}
    return {**named, **{label: _json(item) for label, item in message.items.items()}}


def _cbor(message: Record | Collection) -> object:
    if isinstance(message, Record):
        last = [int(message.indicator)] if message.indicator else []
        return [message.type, message.value, *last]
    named: dict[str, object] = {_TYPE_KEY: message.type} if message.type else {}
    return {**named, **{label: _cbor(item) for label, item in message.items.items()}}


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedEvidence("envelope: a key occurs twice")
    return found


def _refuse(word: str) -> float:
    raise MalformedEvidence(f"envelope: {word} is no JSON")
