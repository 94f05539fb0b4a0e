"""Every relative link in a page of the repository leads to a file, and every anchor to a heading."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.docs.console import ROOT

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def pages() -> list[Path]:
    """All pages that are in the repository or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).exists()]


def anchors(page: str) -> set[str]:
    """The anchors of the headings, as the sites that show such pages make them."""
    headings = _HEADING.findall(_FENCE.sub("", page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """The links of ``page`` that lead nowhere."""
    found = []
    for target in _LINK.findall(_FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        there = path.exists() and path.is_relative_to(ROOT)
        if not there or (anchor and anchor not in anchors(path.read_text())):
            found.append(target)
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_the_page_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_every_page_of_the_documentation_is_on_its_map() -> None:
    docs = ROOT / "docs"
    linked = {
        (docs / target.partition("#")[0]).resolve()
        for target in _LINK.findall((docs / "README.md").read_text())
    }
    assert {page for page in pages() if page.is_relative_to(docs)} - linked == {docs / "README.md"}


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = ROOT / "docs" / "README.md"
    text = (
        "[a](nowhere.md) [b](../README.md#no-such-heading) [c](../README.md#status)\n```\n[d](code.md)\n```\n"
    )
    fake = _Fake(page, text)
    assert broken(fake) == ["nowhere.md", "../README.md#no-such-heading"]  # type: ignore[arg-type]


class _Fake:
    """A page with other text in the place of ``path``."""

    def __init__(self, path: Path, text: str) -> None:
        self.parent, self._text = path.parent, text

    def read_text(self) -> str:
        return self._text
