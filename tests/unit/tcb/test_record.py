"""Records behave as frozen dataclasses with slots do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from enarx.tcb.record import field, names, record, replace


@record
class Plain:
    """All that a field can be."""

    kind: ClassVar = "plain"
    size: int
    name: str = "none"
    table: Mapping[str, int] = field(default_factory=dict)
    secret: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("size")


@record(kw_only=False)
class Pair:
    """Fields by position."""

    left: int
    right: int = 2


@record
class Empty:
    """No field at all."""


@record
class Alike:
    """The fields of ``Pair``, and another class."""

    left: int
    right: int = 2


def test_fields_have_their_values_and_defaults() -> None:
    made = Plain(size=3)
    assert (made.size, made.name, made.table, made.secret, made.kind) == (3, "none", {}, b"", "plain")
    assert names(Plain) == ("size", "name", "table", "secret")
    assert made.table is not Plain(size=3).table
    assert Empty() == Empty()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Plain(),  # type: ignore[call-arg]
        lambda: Plain(3),  # type: ignore[call-arg]
        lambda: Plain(size=3, length=4),  # type: ignore[call-arg]
        lambda: Pair(1, 2, 3),  # type: ignore[call-arg]
        lambda: Pair(1, left=1),  # type: ignore[misc]
        lambda: Pair(),  # type: ignore[call-arg]
        lambda: Empty(1),  # type: ignore[call-arg]
    ],
)
def test_fields_that_are_missing_unknown_or_given_twice_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        make()


def test_what_was_made_is_checked() -> None:
    with pytest.raises(ValueError, match="size"):
        Plain(size=-1)
    with pytest.raises(ValueError, match="size"):
        replace(Plain(size=1), size=-1)


@pytest.mark.parametrize("name", ["size", "kind", "other"])
def test_nothing_can_be_changed_or_added(name: str) -> None:
    made: Any = Plain(size=3)
    with pytest.raises(AttributeError):
        setattr(made, name, 4)
    with pytest.raises(AttributeError):
        delattr(made, name)
    assert made.size == 3
    assert not hasattr(made, "__dict__")


def test_equality_is_of_class_and_fields() -> None:
    assert Pair(1) == Pair(1, 2) == Pair(left=1, right=2) != Pair(1, 3)
    alike: object = Alike(left=1)
    assert Pair(1) != alike
    assert hash(Pair(1)) == hash(Pair(1, 2))
    assert len({Pair(1), Pair(1, 2), Pair(2)}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(Plain(size=1))


def test_a_replaced_field_is_all_that_differs() -> None:
    made = Plain(size=3, name="a", secret=b"s")
    assert replace(made, name="b") == Plain(size=3, name="b", secret=b"s")
    with pytest.raises(TypeError):
        replace(made, length=1)


def test_secrets_are_not_shown() -> None:
    assert repr(Plain(size=3, secret=b"hidden")) == "Plain(size=3, name='none', table={})"
    assert repr(Empty()) == "Empty()"


def test_copies_are_equal() -> None:
    made = Pair(1, 5)
    assert copy.copy(made) == copy.deepcopy(made) == made


def test_records_match_patterns() -> None:
    match Pair(1, 5):
        case Pair(left, 5):
            assert left == 1
        case _:
            pytest.fail("no match")
    match Plain(size=7):
        case Plain(size=size):
            assert size == 7
