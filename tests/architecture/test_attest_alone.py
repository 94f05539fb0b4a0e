"""``enarx.attest`` imports with only what the distribution declares as its dependencies, and loads no other zone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROBE = """
import sys
sys.path[:] = [*sys.path, *sys.argv[1:3]]
import importlib, pkgutil
import enarx.attest
sys.modules["enarx.attest.fetch"] = None  # whoever imports it fails
for module in pkgutil.walk_packages(enarx.attest.__path__, "enarx.attest."):
    if not module.name.startswith("enarx.attest.fetch"):
        importlib.import_module(module.name)
print(*sys.modules)
"""


def declared(name: str, found: set[str] | None = None) -> set[str]:
    """The distributions that ``name`` requires without any extra, and what those require."""
    found = set() if found is None else found
    for requirement in metadata.requires(name) or []:
        wanted = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        if "extra ==" not in requirement and wanted not in found and installed(wanted):
            found |= {wanted}
            declared(wanted, found)
    return found


def installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.fixture
def dependencies(tmp_path: Path) -> Path:
    """A folder with links to the declared dependencies and nothing else."""
    folder = tmp_path / "dependencies"
    folder.mkdir()
    for name in declared("enarx"):
        for file in metadata.files(name) or []:
            top = file.parts[0]
            if top != ".." and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(file.locate())).parents[len(file.parts) - 1] / top)
    return folder


def loaded(source: Path, dependencies: Path) -> set[str]:
    """The modules of a fresh process that has imported all of ``enarx.attest`` but the part that fetches."""
    command = [sys.executable, "-I", "-S", "-c", PROBE, str(source), str(dependencies)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImportError(done.stderr.strip().rpartition("\n")[2])
    return set(done.stdout.split())


def strangers(modules: set[str]) -> set[str]:
    """Modules of ours that a relying party should not get."""
    ours = {name for name in modules if name.partition(".")[0] == "enarx"}
    allowed = {"enarx", "enarx.attest", "enarx.tcb"}
    return {
        name
        for name in ours - allowed
        if not name.startswith(("enarx.attest.", "enarx.tcb.")) or name.startswith("enarx.tcb.keep")
    }


def test_the_declared_dependencies_are_few() -> None:
    direct = {
        re.split(r"[^A-Za-z0-9]", line, maxsplit=1)[0]
        for line in metadata.requires("enarx") or []
        if "extra" not in line
    }
    assert direct == {"cryptography", "cbor2"}


def test_attest_needs_nothing_else(dependencies: Path) -> None:
    modules = loaded(ROOT / "src", dependencies)
    assert "enarx.attest" in modules
    assert strangers(modules) == set()


@pytest.mark.parametrize("line", ["import enarx.attest.fetch", "from enarx.attest.fetch import Client"])
def test_verification_that_fetches_is_found(tmp_path: Path, dependencies: Path, line: str) -> None:
    spoilt = Path(shutil.copytree(ROOT / "src", tmp_path / "src"))
    with (spoilt / "enarx/attest/claims.py").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ImportError, match="fetch"):
        loaded(spoilt, dependencies)


@pytest.mark.parametrize("module", ["click", "wasmtime", "OpenSSL", "pytest"])
def test_an_undeclared_dependency_is_found(tmp_path: Path, dependencies: Path, module: str) -> None:
    spoilt = Path(shutil.copytree(ROOT / "src", tmp_path / "src"))
    (spoilt / "enarx/attest/new.py").write_text(f"import {module}\n")
    with pytest.raises(ImportError, match=module):
        loaded(spoilt, dependencies)


@pytest.mark.parametrize("module", ["enarx.host", "enarx.tenant", "enarx.tcb.keep"])
def test_another_zone_is_found(tmp_path: Path, dependencies: Path, module: str) -> None:
    spoilt = Path(shutil.copytree(ROOT / "src", tmp_path / "src"))
    (spoilt / "enarx/attest/new.py").write_text(f"import {module}\n")
    assert module in strangers(loaded(spoilt, dependencies))
