"""The keep image's own part imports only what tcb.toml allows, names nothing it forbids, and stays small.

The files that are checked are those that ``enarx.tenant.image`` packs. The checks stop mistakes, not malice: malice is
for review, which is why the folder must stay small.
"""

from __future__ import annotations

import ast
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enarx.tenant.image import own_files

ROOT = Path(__file__).parents[2]
RULES: dict[str, Any] = tomllib.loads((ROOT / "tcb.toml").read_text())
EXCEPTIONS = {entry["file"]: set(entry["uses"]) for entry in RULES["exceptions"]}


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported name in full, and its line; a relative import comes out with its dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every plain name and every attribute of a plain name, and its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}", node.lineno


def complaint_about_import(name: str, excepted: set[str]) -> str:
    top = name.partition(".")[0]
    allowed = {*RULES["imports"]["standard"], *RULES["imports"]["third_party"], *excepted}
    if not top:
        return "relative imports hide the zone; write the full path"
    if top == "enarx":
        inside = f"{name}.".startswith("enarx.tcb.") or name == "enarx.__version__"
        return "" if inside else f"{name} is outside the image"
    return "" if top in allowed else f"import of {top}"


def complaints(home: Path) -> Iterator[str]:
    """What the files of ``home``, a folder like src/enarx, do against the rules."""
    never = set(RULES["names"]["forbidden"])
    never |= {
        f"{module}.{name}" for module, found in RULES["names"]["forbidden_of"].items() for name in found
    }
    files = own_files(home)
    for file in files:
        path = file.path.removeprefix("enarx/")
        if not path.endswith(".py"):
            yield f"{path}: only Python files belong into the image"
            continue
        tree, excepted = ast.parse(file.source.read_text()), EXCEPTIONS.get(path, set())
        found = list(imports(tree))
        for name, line in found:
            if message := complaint_about_import(name, excepted):
                yield f"{path}:{line}: {message}"
        for name, line in [*names(tree), *found]:
            if name in never:
                yield f"{path}:{line}: {name}"
        unused = excepted - {name.partition(".")[0] for name, _ in found}
        if unused:
            yield f"{path}: is excepted for {', '.join(sorted(unused))}, which it does not use"
    paths = {file.path.removeprefix("enarx/") for file in files}
    for path in EXCEPTIONS.keys() - paths:
        yield f"{path}: is excepted but not in the image"
    for folder, ceiling in RULES["ceiling"].items():
        lines = sum(count(file.source) for file in files if file.path.startswith(f"enarx/{folder}/"))
        if lines > ceiling:
            yield f"{folder}: {lines} lines, the ceiling is {ceiling}"


def count(path: Path) -> int:
    return sum(1 for line in path.read_text().splitlines() if line.strip())


def test_the_image_obeys_its_rules() -> None:
    assert list(complaints(ROOT / "src" / "enarx")) == []


def test_every_exception_has_a_reason() -> None:
    assert all(len(entry["why"].split()) > 1 for entry in RULES["exceptions"])


def test_what_is_allowed_is_known() -> None:
    assert set(RULES["imports"]["standard"]) <= sys.stdlib_module_names


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy of what is packed of src/enarx, to spoil."""
    copy = tmp_path / "enarx"
    shutil.copytree(ROOT / "src/enarx/tcb", copy / "tcb", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "src/enarx/__init__.py", copy)
    return copy


@pytest.fixture(scope="module")
def before() -> set[str]:
    """What there is to complain about without any spoiling."""
    return set(complaints(ROOT / "src" / "enarx"))


@pytest.mark.parametrize(
    ("path", "code", "complaint"),
    [
        ("tcb/wire/_codec.py", "import socket", "import of socket"),
        ("tcb/wire/_codec.py", "from ctypes import CDLL", "import of ctypes"),
        ("tcb/wire/_codec.py", "def f():\n    import subprocess", "import of subprocess"),
        ("tcb/keep/boot.py", "import importlib.metadata", "import of importlib"),
        ("tcb/keep/boot.py", "import pickle as json", "import of pickle"),
        ("tcb/keep/boot.py", "import click", "import of click"),
        ("tcb/keep/boot.py", "import builtins", "import of builtins"),
        ("tcb/keep/boot.py", "from enarx.host import relay", "enarx.host.relay is outside the image"),
        ("tcb/keep/boot.py", "import enarx.attest", "enarx.attest is outside the image"),
        ("tcb/keep/boot.py", "from enarx import tenant", "enarx.tenant is outside the image"),
        ("tcb/keep/boot.py", "import enarx_emulator", "import of enarx_emulator"),
        ("tcb/keep/boot.py", "from . import engine", "relative imports"),
        ("tcb/keep/boot.py", "from ..wire import encode", "relative imports"),
        ("tcb/keep/boot.py", "open('/etc/passwd')", "open"),
        ("tcb/keep/boot.py", "read = open", "open"),
        ("tcb/keep/boot.py", "exec('1')", "exec"),
        ("tcb/keep/boot.py", "eval('1')", "eval"),
        ("tcb/keep/boot.py", "compile('1', '', 'eval')", "compile"),
        ("tcb/keep/boot.py", "__import__('socket')", "__import__"),
        ("tcb/keep/boot.py", "__builtins__['open']", "__builtins__"),
        ("tcb/keep/boot.py", "breakpoint()", "breakpoint"),
        ("tcb/keep/boot.py", "print('secret')", "print"),
        ("tcb/keep/boot.py", "os.system('id')", "os.system"),
        ("tcb/keep/boot.py", "from os import execv", "os.execv"),
        ("__init__.py", "import os", "import of os"),
        ("tcb/errors.py", "import wasmtime\nimport time", "import of time"),
        ("tcb/new.py", "import threading", "import of threading"),
        ("tcb/wire/_layout.py", "\n".join(f"A{n} = {n}" for n in range(400)), "the ceiling is 400"),
        ("tcb/errors.py", "\n".join(f"A{n} = {n}" for n in range(6000)), "tcb: "),
        ("tcb/data.json", "{}", "only Python files"),
    ],
)
def test_a_violation_is_found(home: Path, before: set[str], path: str, code: str, complaint: str) -> None:
    with (home / path).open("a") as file:
        file.write(f"\n{code}\n")
    new = set(complaints(home)) - before
    assert any(complaint in it for it in new), new


def test_an_exception_that_is_not_used_is_found(home: Path) -> None:
    (home / "tcb/keep/wasi/_memory.py").write_text("")
    assert "tcb/keep/wasi/_memory.py: is excepted for ctypes, which it does not use" in set(complaints(home))
    (home / "tcb/keep/wasi/_memory.py").unlink()
    assert "tcb/keep/wasi/_memory.py: is excepted but not in the image" in set(complaints(home))
