"""Whatever a host answers is understood, or an error of ours that a terminal can show."""

from __future__ import annotations

import json

from fuzz.host_answer import one
from hypothesis import given
from hypothesis import strategies as st

NAMES = [
    "id",
    "tee",
    "backend",
    "emulated",
    "state",
    "keeps",
    "title",
    "status",
    "detail",
    "hint",
    "certificates",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=8),
    max_leaves=12,
)


@given(VALUES)
def test_any_document_is_understood_or_refused(value: object) -> None:
    one(json.dumps(value).encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    one(data)
