"""The vocabulary: one spelling for each item, and a refusal for everything else."""

from __future__ import annotations

import pathlib
import re

import pytest

from enarx.tcb import wire
from enarx.tcb.errors import Malformed
from enarx.tcb.sallyport import items, limits
from enarx.tcb.sallyport.items import (
    Admit,
    Changed,
    Compiled,
    Connect,
    Deliver,
    Exited,
    Item,
    Listen,
    Opened,
    Progress,
    Ready,
    Reason,
    Refused,
    decode,
    encode,
)

ALL: list[Item] = [
    Ready(version="1.0"),
    Listen(request=1, address="::", port=0),
    Connect(request=2, host="localhost", port=443),
    Compiled(size=0),
    Changed(header={"name": "data"}, size=limits.MAX_BLOB_BYTES),
    Progress(text="compiling"),
    Exited(outcome={"code": 0}),
    Deliver(header=[1, None, b"x"], size=10),
    Opened(request=limits.MAX_REQUEST, port=65535),
    *[Refused(request=3, reason=reason, detail="") for reason in Reason],
    Admit(),
]
SPECIFICATION = pathlib.Path(__file__).parents[4] / "docs" / "spec" / "sallyport.md"


@pytest.mark.parametrize("item", ALL, ids=lambda item: type(item).__name__)
def test_an_item_comes_back_as_it_was(item: Item) -> None:
    assert decode(encode(item)) == item


def test_every_class_of_the_vocabulary_is_tried_here() -> None:
    assert {type(item) for item in ALL} == {kind for kind, _ in items.TABLE.values()}


def test_the_specification_lists_exactly_the_tags_and_fields_of_the_code() -> None:
    listed = {}
    for line in SPECIFICATION.read_text().splitlines():
        if match := re.match(r"\| (\d+) \| (\w+) \|", line):
            listed[int(match[1])] = (
                match[2],
                re.findall(r"`(\w+)` (?:text|integer|value|bytes|truth)", line),
            )
    assert listed == {tag: (kind.__name__, list(fields)) for tag, (kind, fields) in items.TABLE.items()}


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ([], "no known tag"),
        ([0, "1.0"], "no known tag"),
        ([True, "1.0"], "no known tag"),
        (["1", "1.0"], "no known tag"),
        ({"tag": 1}, "no known tag"),
        (1, "no known tag"),
        ([1], "Ready has 1 fields, found 0"),
        ([1, "1.0", 2], "Ready has 1 fields, found 2"),
        ([1, 10], "Ready.version"),
        ([1, ""], "Ready.version"),
        ([1, "x" * (limits.MAX_VERSION + 1)], "Ready.version"),
        ([6, "\x1b[2J"], "Progress.text"),
        ([6, "two\nlines"], "Progress.text"),
        ([2, 0, "::", 80], "Listen.request"),
        ([2, True, "::", 80], "Listen.request"),
        ([2, 1 << 32, "::", 80], "Listen.request"),
        ([2, 1, "::", 65536], "Listen.port"),
        ([2, 1, "::", -1], "Listen.port"),
        ([2, 1, b"::", 80], "Listen.address"),
        ([3, 1, "host", 0], "Connect.port"),
        ([4, limits.MAX_BLOB_BYTES + 1], "Compiled.size"),
        ([4, -1], "Compiled.size"),
        ([4, None], "Compiled.size"),
        ([18, 1, "because", ""], "Refused.reason"),
        ([18, 1, 0, ""], "Refused.reason"),
    ],
)
def test_an_item_outside_the_vocabulary_is_refused(message: wire.Value, says: str) -> None:
    with pytest.raises(Malformed, match=re.escape(says)):
        decode(wire.encode(message))


def test_an_item_in_another_spelling_is_refused() -> None:
    assert encode(Compiled(size=1)) == b"\x82\x04\x01"
    with pytest.raises(Malformed, match="deterministic"):
        decode(b"\x82\x04\x18\x01")


def test_an_oversized_item_is_refused_on_both_sides() -> None:
    item = Exited(outcome=b"x" * limits.MAX_ITEM_BYTES)
    with pytest.raises(Malformed, match="at most"):
        encode(item)
    with pytest.raises(Malformed, match="at most"):
        decode(wire.encode([7, b"x" * limits.MAX_ITEM_BYTES]))


def test_an_item_outside_its_limits_is_not_even_sent() -> None:
    with pytest.raises(Malformed, match="integer"):
        encode(Connect(request=1, host="host", port=0))
    with pytest.raises(Malformed, match="printable"):
        encode(Progress(text="a\x07bell"))
