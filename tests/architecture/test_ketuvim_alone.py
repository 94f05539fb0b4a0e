"""``ketuvim`` needs the standard library and nothing else: copied away from here, all of it imports."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / "src" / "ketuvim"
PROBE = """
import sys
sys.path.insert(0, sys.argv[1])
import importlib, pkgutil
import ketuvim
for module in pkgutil.walk_packages(ketuvim.__path__, "ketuvim."):
    importlib.import_module(module.name)
print(*sorted(name for name in sys.modules if name.startswith("ketuvim")))
"""


def test_it_imports_alone(tmp_path: Path) -> None:
    shutil.copytree(HOME, tmp_path / "ketuvim")
    command = [sys.executable, "-I", "-S", "-c", PROBE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    modules = {path.stem for path in HOME.glob("*.py")} - {"__init__"}
    assert set(done.stdout.split()) == {"ketuvim", *(f"ketuvim.{name}" for name in modules)}


def test_it_names_only_the_standard_library() -> None:
    found = set()
    for path in HOME.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    assert found - {"ketuvim"} <= sys.stdlib_module_names
    assert "ctypes" in found  # the walk saw something
