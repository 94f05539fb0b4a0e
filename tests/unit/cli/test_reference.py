"""The pages in docs/reference that are written from the code are current."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES: dict[str, str] = runpy.run_path(str(ROOT / "tools" / "reference.py"))["pages"]()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_current(name: str) -> None:
    assert (ROOT / "docs" / "reference" / name).read_text() == PAGES[name], "run `make docs`"


def test_nothing_of_this_machine_is_in_them() -> None:
    assert not [name for name, text in PAGES.items() if str(Path.home()) in text or str(ROOT) in text]
