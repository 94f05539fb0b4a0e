"""What is packed: ours from the folder, theirs from their records, and nothing that does not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from enarx.tcb.errors import Unavailable
from enarx.tenant.image import DISTRIBUTIONS, distribution_files, image_files, own_files
from enarx.tenant.image import _contents as contents


def test_ours_is_the_folder_and_nothing_else(tmp_path: Path) -> None:
    for name in (
        "__init__.py",
        "tcb/__init__.py",
        "tcb/a/b.py",
        "tcb/__pycache__/x.pyc",
        "host/x.py",
        "tcb/data",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [file.path for file in own_files(tmp_path)] == [
        "enarx/__init__.py",
        "enarx/tcb/__init__.py",
        "enarx/tcb/a/b.py",
        "enarx/tcb/data",
    ]


def test_ours_comes_first() -> None:
    ours = [not file.distribution for file in image_files()]
    assert ours == sorted(ours, reverse=True)
    assert any(ours)


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("wasmtime", "wasmtime/_engine.py"),
        ("cryptography", "cryptography/hazmat/bindings/_rust.abi3.so"),
        ("pyopenssl", "OpenSSL/SSL.py"),
        ("cbor2", "cbor2/__init__.py"),
        ("typing-extensions", "typing_extensions.py"),
    ],
)
def test_theirs_comes_from_their_records(name: str, member: str) -> None:
    files = distribution_files(name)
    assert member in [file.path for file in files]
    assert all(file.source.is_file() and file.distribution == name for file in files)


def test_the_compilers_of_declarations_stay_out() -> None:
    assert [file.path.partition(".")[0] for file in distribution_files("cffi")] == ["_cffi_backend"]
    assert distribution_files("pycparser") == []


@pytest.mark.parametrize("suffix", [".pyc", ".pyi", ".typed", "METADATA", "RECORD", ".h"])
def test_what_does_not_run_stays_out(suffix: str) -> None:
    assert not [file.path for file in image_files() if file.path.endswith(suffix)]


def test_a_missing_distribution_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "DISTRIBUTIONS", {**DISTRIBUTIONS, "no-such-thing": ()})
    with pytest.raises(Unavailable, match="no-such-thing is not installed") as caught:
        distribution_files("no-such-thing")
    assert "enarx[keep]" in caught.value.hint
