"""Fetching: from any mirror that has the file, never anything else than what the lock names."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.forge.debian import deb

from enarx.tcb.errors import Unavailable
from enarx.tenant.image.vm import Cache, Lock, Package, Role, Wheel, configured_mirrors

CONTENT = deb({"usr/lib/x": b"1"})
PATH = "pool/main/x/x/libx_1.0+b~1_amd64.deb"
PACKAGE = Package(
    role=Role.SYSTEM,
    name="libx",
    version="1.0+b~1",
    architecture="amd64",
    path=PATH,
    size=len(CONTENT),
    sha256=sha256(CONTENT).hexdigest(),
)
ONE = Lock(packages=(PACKAGE,), wheels=())


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A mirror, and the file that it gives."""
    home = tmp_path / "mirror"
    place = home / PATH
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(home))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", place
        server.shutdown()
        thread.join()


def test_the_second_mirror_is_asked_too(mirror: tuple[str, Path], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", mirrors=[f"{mirror[0]}/nothing", f"{mirror[0]}/"])
    cache.fetch(ONE, ONE.packages)
    assert cache.read(PACKAGE) == CONTENT
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [PACKAGE.file]


def test_what_is_there_is_not_fetched_again(mirror: tuple[str, Path], tmp_path: Path) -> None:
    Cache(tmp_path, mirrors=[mirror[0]]).fetch(ONE, ONE.packages)
    cache = Cache(tmp_path, mirrors=["http://127.0.0.1:1"])
    cache.fetch(ONE, ONE.packages)
    assert cache.read(PACKAGE) == CONTENT


def test_another_file_of_that_name_is_refused(mirror: tuple[str, Path], tmp_path: Path) -> None:
    mirror[1].write_bytes(CONTENT[:-1] + b"!")
    cache = Cache(tmp_path / "cache", mirrors=[mirror[0]])
    with pytest.raises(Unavailable, match="no mirror gave libx_1") as caught:
        cache.fetch(ONE, ONE.packages)
    assert "--mirror" in caught.value.hint
    assert "Hash Sum mismatch" in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_why_no_mirror_gave_it_is_said_for_each(mirror: tuple[str, Path], tmp_path: Path) -> None:
    mirror[1].unlink()
    cache = Cache(tmp_path / "cache", mirrors=[mirror[0], "http://127.0.0.1:1"])
    with pytest.raises(Unavailable, match=r"404 .*; http://127\.0\.0\.1:1/pool/.*[Cc]onnect"):
        cache.fetch(ONE, ONE.packages)


def test_each_package_that_is_fetched_is_told(mirror: tuple[str, Path], tmp_path: Path) -> None:
    told: list[str] = []
    cache = Cache(tmp_path, mirrors=[mirror[0]], tell=told.append)
    cache.fetch(ONE, ONE.packages)
    cache.fetch(ONE, ONE.packages)
    assert told == [f"fetching {PACKAGE.file}, {len(CONTENT)} bytes"]


def test_nothing_is_left_where_there_is_no_room_to_keep(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    Cache(tmp_path).keep("taken", b"1")
    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]


def test_a_file_that_changed_in_the_cache_is_fetched_again(mirror: tuple[str, Path], tmp_path: Path) -> None:
    cache = Cache(tmp_path, mirrors=[mirror[0]])
    (tmp_path / PACKAGE.file).write_bytes(CONTENT[:-1])
    with pytest.raises(Unavailable, match="not what the lock names"):
        cache.read(PACKAGE)
    cache.fetch(ONE, ONE.packages)
    assert cache.read(PACKAGE) == CONTENT


def test_mirrors_are_those_of_apt() -> None:
    mirrors = configured_mirrors()
    assert mirrors
    assert all("://" in mirror and not mirror.endswith("/") for mirror in mirrors)
    assert len(set(mirrors)) == len(mirrors)


def _wheel() -> bytes:
    made = io.BytesIO()
    info = "enarx_sample-1.0.dist-info"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("enarx_sample.py", "x = 1\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: enarx-sample\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp311-cp311-manylinux_2_28_x86_64\n",
        )
        archive.writestr(f"{info}/RECORD", "")
    return made.getvalue()


@pytest.mark.parametrize("damaged", [False, True])
def test_wheels_come_through_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool) -> None:
    name, content = "enarx_sample-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", _wheel()
    (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    digest = sha256(content + b"x" * damaged).hexdigest()
    wheel = Wheel(name="enarx-sample", version="1.0", file=name, sha256=digest)
    cache = Cache(tmp_path / "cache")
    if damaged:
        with pytest.raises(Unavailable, match="pip cannot fetch the wheels"):
            cache.fetch(Lock(packages=(), wheels=(wheel,)), ())
    else:
        cache.fetch(Lock(packages=(), wheels=(wheel,)), ())
        assert cache.read(wheel) == content
