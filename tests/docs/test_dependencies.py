"""The record of dependencies names exactly those that the requirements name."""

from __future__ import annotations

import re

import pytest
from tests.docs.console import ROOT

RECORD = (ROOT / "docs" / "adr" / "0002-dependencies.md").read_text()
FILES = ("keep", "run", "examples", "dev")


def _required(name: str) -> set[str]:
    lines = (ROOT / "requirements" / f"{name}.in").read_text().splitlines()
    return {re.split(r"[\[=<> #]", line)[0] for line in lines if line and not line.startswith(("-r", "#"))}


def _recorded(name: str) -> set[str]:
    section = re.search(rf"^###[^\n]*\(`{name}\.in`\)\n(.*?)(?=^##|\Z)", RECORD, re.DOTALL | re.MULTILINE)
    assert section is not None
    return set(re.findall(r"(?m)^\| `([\w-]+)` \|", section[1]))


@pytest.mark.parametrize("name", FILES)
def test_record_has_every_dependency_and_no_other(name: str) -> None:
    assert _required(name)
    assert _recorded(name) == _required(name)


def test_every_requirements_file_is_on_record() -> None:
    assert {path.stem for path in (ROOT / "requirements").glob("*.in")} == set(FILES)
