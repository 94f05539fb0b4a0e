"""``enarx image``: the same bytes from the same release, whatever the checkout looks like."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from enarx.api.keep_image import read_image
from enarx.cli._host import parse_allowed, parse_endpoint
from enarx.tcb.errors import Malformed

SOURCE = Path(__file__).resolve().parents[2] / "src"
TEES = {"snp": 48, "sev": 32, "sev-es": 32, "tdx": 48, "sgx": 32, "pef": 48}


def enarx(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "enarx.cli", "image", *arguments]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def checkout(folder: Path, *, mode: int, time: int) -> Path:
    """A copy of the sources as somebody else's machine would have it."""
    copied = Path(shutil.copytree(SOURCE, folder / "src", ignore=shutil.ignore_patterns("__pycache__")))
    for path in sorted(copied.rglob("*"), reverse=True):
        if path.is_file():
            path.chmod(mode)
        os.utime(path, (time, time))
    return copied


def test_two_checkouts_build_the_same_bytes(tmp_path: Path) -> None:
    archives = []
    for name, mode, time in (("one", 0o644, 10**9), ("two", 0o755, 1_700_000_000)):
        (tmp_path / name).mkdir()
        copied = checkout(tmp_path / name, mode=mode, time=time)
        if name == "two":  # it has been used before
            cache = copied / "enarx" / "tcb" / "__pycache__"
            cache.mkdir()
            (cache / "wire.cpython-311.pyc").write_bytes(b"compiled")
        env = {"PYTHONPATH": str(copied), "TZ": "Asia/Tokyo" if name == "two" else "UTC", "LC_ALL": "C"}
        out = tmp_path / f"{name}.tar"
        built = document(enarx("build", "--out", str(out), "--json", env=env))
        assert built["path"] == str(out)
        archives.append(out.read_bytes())
    assert archives[0] == archives[1]
    changed = tmp_path / "one" / "src" / "enarx" / "tcb" / "errors.py"
    changed.write_text(changed.read_text() + "# another\n")
    env = {"PYTHONPATH": str(tmp_path / "one" / "src")}
    other = document(enarx("build", "--out", str(tmp_path / "other.tar"), "--json", env=env))
    assert other["sha256"] != read_image(tmp_path / "one.tar").digest.hex()


def test_a_file_shows_what_the_installation_says_it_would_build(tmp_path: Path) -> None:
    out = tmp_path / "keep.tar"
    built = document(enarx("build", "--out", str(out), "--json"))
    shown = document(enarx("show", str(out), "--json"))
    installed = document(enarx("show", "--json"))
    assert shown == built
    assert {**installed, "path": str(out)} == shown
    assert shown["sha256"] == read_image(out).digest.hex()
    assert {tee: len(value) // 2 for tee, value in shown["measurements"].items()} == TEES
    manifest = "".join(f"{it['sha256']}  {it['path']}\n" for it in shown["files"])
    assert sha256(manifest.encode()).hexdigest() == shown["sha256"]
    text = enarx("show", str(out)).stdout
    assert all(value in text for value in shown["measurements"].values())


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keep.tar"
    path.write_bytes(b"no archive")
    assert enarx("show", str(path)).returncode == 3
    assert enarx("show", str(tmp_path / "missing")).returncode == 2
    assert enarx("build", "--out", str(tmp_path / "no" / "folder.tar")).returncode == 4


def test_the_image_of_a_release_is_built_once_and_again_when_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from enarx.cli._image import cached_image

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cached_image()
    before = path.stat().st_mtime_ns
    assert cached_image() == path
    assert path.stat().st_mtime_ns == before
    data = bytearray(path.read_bytes())
    data[-20000] ^= 1
    path.write_bytes(data)
    assert read_image(cached_image()).digest.hex() == path.stem


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:7478", ("127.0.0.1", 7478)),
        ("[::1]:0", ("::1", 0)),
        ("name.example:65535", ("name.example", 65535)),
    ],
)
def test_endpoints_are_read(text: str, endpoint: tuple[str, int]) -> None:
    assert parse_endpoint(text) == parse_allowed(text) == endpoint


@pytest.mark.parametrize(
    "text", ["", "any", "7478", ":7478", "host:", "host:65536", "host:-1", "host:٣", "host:1:"]
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="HOST:PORT"):
        parse_endpoint(text)


def test_any_is_any() -> None:
    assert parse_allowed("any") is None
