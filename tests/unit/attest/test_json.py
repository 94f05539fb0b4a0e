"""Objects are read strictly, and every refusal begins with the name that was given."""

from __future__ import annotations

import pytest

from enarx.attest import MalformedEvidence
from enarx.attest._json import read_object


def test_an_object_is_read() -> None:
    assert read_object(b' {"a": [1, {"b": null}]} ', "thing") == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a": 1, "a": 1}', "a key occurs twice"),
        (b'{"a": {"b": 1, "b": 2}}', "a key occurs twice"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b'{"a": -Infinity}', "-Infinity is no JSON"),
        (b"[]", "not a JSON object"),
        (b'"a"', "not a JSON object"),
        (b"", "not JSON"),
        (b'{"a": 1} {}', "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a": ' + b"[" * 100_000, "not JSON"),
    ],
)
def test_all_else_is_malformed(data: bytes, why: str) -> None:
    """A9."""
    with pytest.raises(MalformedEvidence, match=f"^thing: {why}$"):
        read_object(data, "thing")
