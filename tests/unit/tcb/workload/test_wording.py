"""How errors speak of what they found."""

from __future__ import annotations

import datetime

import pytest

from enarx.tcb.workload._wording import kind_of, nearest, shown

KEYS = ("steward", "args", "env", "files")


@pytest.mark.parametrize(
    ("found", "advice"),
    [
        ("arg", "args"),
        ("argz", "args"),
        ("rags", "args"),
        ("file", "files"),
        ("Steward", "steward"),
        ("stewrad", "steward"),
        ("evn", "env"),
    ],
)
def test_a_slip_is_recognised(found: str, advice: str) -> None:
    assert nearest(found, KEYS) == f"did you mean `{advice}`?"


@pytest.mark.parametrize("found", ["", "x", "package", "volumes", "a" * 41, "steward" * 1000, None, 1])
def test_anything_else_gets_the_list(found: object) -> None:
    assert nearest(found, KEYS) == "known are steward, args, env, files"


def test_of_equals_the_first_is_meant() -> None:
    assert nearest("prt", ("prot", "port")) == "did you mean `prot`?"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "nothing"),
        ("x", "a string"),
        (True, "a boolean"),
        (1, "an integer"),
        (1.0, "a float"),
        ([], "an array"),
        ({}, "a table"),
        (datetime.time(1), "a date or a time"),
    ],
)
def test_kinds(value: object, kind: str) -> None:
    assert kind_of(value) == kind


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "'x'"),
        ("\x1b", "'\\x1b'"),
        ("a" * 61, f"'{'a' * 60}...'"),
        (7, "7"),
        (1 << 64, "an integer"),
        (True, "a boolean"),
    ],
)
def test_showing(value: object, text: str) -> None:
    assert shown(value) == text
