"""Envelopes: what is written is read, the draft's own examples are read, and nothing else is."""

from __future__ import annotations

import pytest

from enarx.attest import MalformedEvidence, cmw
from enarx.attest.cmw import Collection, Indicator, Record

MESSAGES = [
    Record("application/eat+cwt", b"\x2e\xa4"),
    Record("application/eat+jwt; eat_profile=x", b"", Indicator.EVIDENCE),
    Record(30001, b"\x23\x47\xda\x55", Indicator.REFERENCE_VALUES | Indicator.ENDORSEMENTS),
    Collection(
        {"one": Record(1, b"a"), "two": Collection({"in": Record(2, b"b")})}, "tag:example.test,2025:x"
    ),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_what_is_written_is_read(message: Record | Collection) -> None:
    assert cmw.parse(cmw.to_json(message)) == message
    assert cmw.parse(cmw.to_cbor(message)) == message
    assert cmw.looks_like(cmw.to_json(message))
    assert cmw.looks_like(cmw.to_cbor(message))


def test_a_tag_is_a_record_of_its_content_format() -> None:
    assert cmw.parse(bytes.fromhex("da63747632" + "442347da55")) == Record(
        0x63747632 - 1668546817, b"\x23\x47\xda\x55"
    )


def test_json_and_cbor_as_the_draft_writes_them() -> None:
    assert cmw.parse(b'["application/vnd.example.rats-conceptual-msg", "I0faVQ", 3]') == Record(
        "application/vnd.example.rats-conceptual-msg", b"\x23\x47\xda\x55", Indicator(3)
    )
    assert cmw.parse(bytes.fromhex("83197531442347da5503")) == Record(
        30001, b"\x23\x47\xda\x55", Indicator(3)
    )


BAD = {
    "nothing": b"",
    "no JSON": b"[",
    "no record": b"[]",
    "one element": b'["a/b"]',
    "four elements": b'["a/b","","",1]',
    "type without slash": b'["ab",""]',
    "type out of range": b'[65536,""]',
    "true as type": b'[true,""]',
    "padded": b'["a/b","QQ=="]',
    "base64 with plus": b'["a/b","+/+/"]',
    "bits behind the end": b'["a/b","QR"]',
    "indicator of nothing": b'["a/b","QQ",0]',
    "unknown indicator": b'["a/b","QQ",32]',
    "true as indicator": b'["a/b","QQ",true]',
    "key twice": b'{"a":["a/b",""],"a":["a/b",""]}',
    "empty collection": b"{}",
    "only a type": b'{"__cmwc_t":"x"}',
    "type that is no text": b'{"__cmwc_t":1,"a":["a/b",""]}',
    "too deep": b'{"a":' * 5 + b'["a/b",""]' + b"}" * 5,
    "very deep": b'{"a":' * 50000,
    "very deep arrays": b"[" * 50000,
    "infinity": b'["a/b","",Infinity]',
    "trailing": b'["a/b",""] x',
    "text as value in CBOR": bytes.fromhex("82186f6161"),
    "bytes trail in CBOR": bytes.fromhex("82186f416100"),
    "indefinite length": bytes.fromhex("9f186f4161ff"),
    "key twice in CBOR": bytes.fromhex("a2616182186f4161616182186f4161"),
    "other tag": bytes.fromhex("d2442347da55"),
    "label that is bytes": bytes.fromhex("a1416182186f4161"),
    "label twice as text and number": bytes.fromhex("a2613182186f41610182186f4161"),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        cmw.parse(data)
    assert cmw.unwrap(data) == data


def test_too_many_messages_are_refused() -> None:
    many = Collection({str(number): Record(1, b"") for number in range(65)})
    with pytest.raises(MalformedEvidence, match="1 to 64"):
        cmw.parse(cmw.to_json(many))


def test_only_records_are_unwrapped() -> None:
    assert cmw.unwrap(cmw.to_json(Record(1, b"abc"))) == b"abc"
    whole = cmw.to_json(Collection({"a": Record(1, b"abc")}))
    assert cmw.unwrap(whole) == whole
