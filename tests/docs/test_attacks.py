"""Every attack that the documentation lists names tests, and all of them exist."""

from __future__ import annotations

import re
from functools import cache

import pytest
from tests.docs.console import ROOT

PAGE = (ROOT / "docs" / "explanation" / "attacks.md").read_text()
ROW = re.compile(
    r"^\| (?P<case>[^|]+?) \| (?P<tried>[^|]+?) \| (?P<stops>[^|]+?) \| (?P<tests>[^|]+?) \|$", re.M
)
TEST = re.compile(r"`(test_\w+)`")
ROWS = [row for row in ROW.finditer(PAGE) if row["case"] not in ("case", "---")]


@cache
def existing() -> set[str]:
    """The names of all tests of the repository."""
    files = (ROOT / "tests").rglob("test_*.py")
    return {
        name for file in files for name in re.findall(r"(?m)^\s*(?:async )?def (test_\w+)", file.read_text())
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["case"])
def test_the_tests_of_an_attack_exist(row: re.Match[str]) -> None:
    named = TEST.findall(row["tests"])
    assert named
    assert set(named) - existing() == set()


def test_every_line_of_the_tables_is_read() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    assert len(lines) == len(ROWS) + 2 * PAGE.count("| case |")


def test_every_case_is_in_a_table_or_said_not_to_apply() -> None:
    """From the first case to the last that concerns evidence, secrets, channel and launch."""
    named = set(re.findall(r"\bA\d+\b", PAGE))
    assert named == {f"A{number}" for number in range(1, 54)}
    assert len({row["case"] for row in ROWS}) == len(ROWS)


def test_a_test_that_does_not_exist_is_noticed() -> None:
    assert "test_that_nobody_wrote" not in existing()
