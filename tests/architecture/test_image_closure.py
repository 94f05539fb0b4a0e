"""The keep image is closed: unpacked where nothing else of ours is, every module in it loads, and from it alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from enarx.tenant.image import DISTRIBUTIONS, PackedFile, image_files

PROBE = """
import sys
sys.path.append(sys.argv[1])
import importlib, importlib.util
for name in sys.argv[2:]:
    importlib.import_module(name)
for name in ("enarx.host", "enarx.tenant", "enarx.attest", "enarx.cli", "click", "cffi", "pycparser"):
    print("found", name, importlib.util.find_spec(name) is not None)
for name, module in list(sys.modules.items()):
    print("loaded", name, getattr(module, "__file__", None) or "-")
"""
THIRD_PARTY = {"OpenSSL", "_cffi_backend", "cbor2", "cryptography", "typing_extensions", "wasmtime"}
"""The packages beside ours that a keep loads; ``_cffi_backend`` and ``typing_extensions`` for the other four."""
UNWANTED = {
    "asyncio", "concurrent", "http", "multiprocessing", "pdb", "pickle", "runpy", "site", "sqlite3", "ssl",
    "subprocess", "tempfile", "urllib.request", "xml",
}  # fmt: skip
"""Parts of the standard library that nothing in a keep should need: each is a way out or a way in."""


def unpack(files: list[PackedFile], image: Path) -> Path:
    """Lay out ``files`` as the packer does; links stand for the large ones."""
    for file in files:
        place = image / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.path.endswith(".py"):
            place.write_bytes(file.source.read_bytes())
        else:
            place.symlink_to(file.source)
    return image


def own_modules(files: list[PackedFile]) -> list[str]:
    paths = [file.path for file in files if not file.distribution and not file.path.endswith("__main__.py")]
    return [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in paths]


def run(image: Path, modules: list[str]) -> tuple[dict[str, bool], dict[str, str]]:
    """What an isolated interpreter finds, and what it has loaded from where, with ``image`` alone on its path."""
    command = [sys.executable, "-I", "-S", "-B", "-c", PROBE, str(image), *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    if done.returncode:
        raise ImportError(done.stderr.strip().rpartition("\n")[2])
    lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
    found = {name: answer == "True" for what, name, answer in lines if what == "found"}
    return found, {name: path for what, name, path in lines if what == "loaded"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return unpack(image_files(), tmp_path / "image")


@pytest.mark.xdist_group("image")
def test_every_module_loads_from_the_image_alone(image: Path) -> None:
    found, loaded = run(image, own_modules(image_files()))
    assert not any(found.values()), found
    outside = {
        name: path
        for name, path in loaded.items()
        if path.endswith((".py", ".so"))
        and name.partition(".")[0] in {"enarx", *THIRD_PARTY}
        and str(image) not in path
    }
    assert outside == {}
    assert {name.partition(".")[0] for name, path in loaded.items() if str(image) in path} == {
        "enarx",
        *THIRD_PARTY,
    }
    assert {name for name in loaded if name in UNWANTED} == set()


def test_the_image_packs_what_the_lock_names() -> None:
    lock = Path(__file__).parents[2] / "requirements" / "keep.txt"
    locked = {line.partition("==")[0] for line in lock.read_text().splitlines() if "==" in line}
    assert set(DISTRIBUTIONS) == locked


def test_the_image_holds_modules_and_their_libraries_only() -> None:
    suffixes = {Path(file.path).suffix for file in image_files()}
    assert suffixes == {".py", ".so"}


def test_paths_stay_inside_and_are_unique() -> None:
    paths = [file.path for file in image_files()]
    assert len(set(paths)) == len(paths)
    assert not any(path.startswith("/") or ".." in path.split("/") for path in paths)


@pytest.mark.parametrize(
    "module", ["enarx.host", "enarx.tenant.image", "enarx.attest", "click", "cffi", "pycparser"]
)
def test_what_is_not_packed_does_not_load(image: Path, module: str) -> None:
    (image / "enarx/tcb/new.py").write_text(f"import {module}\n")
    with pytest.raises(ImportError, match=module.partition(".")[0]):
        run(image, ["enarx.tcb.new"])


@pytest.mark.parametrize("module", ["asyncio", "pickle", "subprocess", "ssl", "urllib.request"])
def test_what_is_unwanted_is_found(image: Path, module: str) -> None:
    (image / "enarx/tcb/new.py").write_text(f"import {module}\n")
    assert UNWANTED & run(image, ["enarx.tcb.new"])[1].keys()
