"""The tutorial and the how-to pages work as they are written, and show the real output of every command."""

from __future__ import annotations

from pathlib import Path

import pytest
from examples.build import build
from tests.docs.console import ROOT, Command, Save, agrees, follow, steps

PAGES = [ROOT / "docs/tutorial/first-keep.md", *sorted((ROOT / "docs/how-to").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.timeout(300)  # the first C build also compiles the C library
@pytest.mark.xdist_group("docs")
def test_page_shows_what_its_commands_write(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    for name in ("wordfreq", "rot13", "hello", "snoop", "tls-echo", "primes-py", "sealed-vote"):
        if f"examples/build/{name}.wasm" in text:
            build(name)
    results = follow(page, tmp_path)
    assert results, "a page of this kind shows commands"
    for command, shown, found in results:
        assert agrees(shown, found), f"$ {command}\n--- the page shows\n{shown}--- found\n{found}"


def test_extractor_finds_files_commands_and_outputs() -> None:
    page = (
        "<!-- file: a.c -->\n\n```c\nint a;\n```\n\n```console\n$ one\n1\n$ two\n```\n\n```sh\nthree\n```\n"
    )
    assert list(steps(page)) == [Save("a.c", "int a;\n"), Command("one", "1\n"), Command("two", "")]


@pytest.mark.parametrize(
    ("found", "agreed"), [("a 12 b\n", True), ("a 12 c\n", False), ("a 12 b\nmore\n", False)]
)
def test_dots_stand_for_anything_and_nothing_else_does(found: str, agreed: bool) -> None:
    assert agrees("a ... b\n", found) is agreed


def test_page_with_a_wrong_output_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ false\n$ echo $?\n0\n$ echo right\nright\n```\n")
    (tmp_path / "work").mkdir()
    results = follow(page, tmp_path / "work")
    assert [agrees(shown, found) for _, shown, found in results] == [True, False, True]
