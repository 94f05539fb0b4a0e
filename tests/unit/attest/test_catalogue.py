"""The catalogue of checks is what the code makes: nothing is missing in it, and nothing is in it that no code makes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from enarx.attest.catalogue import CHECKS, NAMES

SOURCE = Path(__file__).parents[3] / "src" / "enarx" / "attest"
CALLS = {"require", "equal", "note", "missing", "judge"}
TEES = ("snp", "sev", "dcap", "sgx", "tdx", "nitro", "tpm", "cca", "azure", "binding", "launch", "pef")
NAME = re.compile(rf"({'|'.join(TEES)})(\.[a-z0-9_]+)+")
FILES = [path for path in sorted(SOURCE.rglob("*.py")) if path.name != "catalogue.py"]


def texts(path: Path) -> set[str]:
    """Every string of a file but the pieces of those that are put together."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    pieces = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    constants = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in pieces]
    return {node.value for node in constants if isinstance(node.value, str)}


def patterns(path: Path) -> Iterator[re.Pattern[str]]:
    """The names that are put together where a check is made; each gap is a group."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0]
        if called in CALLS and isinstance(first, ast.JoinedStr):
            parts = [
                re.escape(str(part.value)) if isinstance(part, ast.Constant) else "([a-z0-9_.]+)"
                for part in first.values
            ]
            yield re.compile("".join(parts))


WRITTEN = {text for path in FILES for text in texts(path) if NAME.fullmatch(text)}
"""Names as they stand in the code, and beginnings of names that are passed on."""
PUT_TOGETHER = [(pattern, texts(path)) for path in FILES for pattern in patterns(path)]


@pytest.mark.parametrize("text", sorted(WRITTEN))
def test_every_name_in_the_code_is_in_the_catalogue(text: str) -> None:
    assert text in NAMES or any(name.startswith(f"{text}.") for name in NAMES)


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in PUT_TOGETHER], ids=lambda one: one.pattern)
def test_every_name_that_is_put_together_is_in_the_catalogue(pattern: re.Pattern[str]) -> None:
    of_policies = pattern.fullmatch("policy.snp.any")
    assert of_policies or any(pattern.fullmatch(name) for name in NAMES)


@pytest.mark.parametrize("name", sorted(NAMES - {"policy.tee"}))
def test_every_name_in_the_catalogue_is_made_by_code(name: str) -> None:
    def filled(pattern: re.Pattern[str], known: set[str]) -> bool:
        match = pattern.fullmatch(name)
        gaps = match.groups() if match else ()
        return bool(gaps) and all(gap in known or gap in WRITTEN or gap.isdigit() for gap in gaps)

    assert name in WRITTEN or any(filled(*one) for one in PUT_TOGETHER)


def test_a_chain_has_all_questions_that_chains_are_asked() -> None:
    text = (SOURCE / "chain.py").read_text()
    asked = set(re.findall(r'f"\{name\}\.([a-z_]+)"', text))
    assert asked == {
        name.rpartition(".")[2] for name in NAMES if name.startswith(("snp.chain.", "snp.crl."))
    } - {
        "names",
        "algorithm",
        "self_signed",
    }


def test_a_name_is_in_one_place_and_its_question_is_one_line() -> None:
    assert sum(map(len, CHECKS.values())) == len(NAMES)
    for checks in CHECKS.values():
        for name, question in checks.items():
            assert 10 < len(question) < 110, name
            assert question[-1] not in ".?", name
            assert "|" not in question, name
