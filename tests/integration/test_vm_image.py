"""The image of VM keeps as it is built: the same everywhere, small, and with nothing in it that is not needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from sevsnpmeasure import guest, vcpu_types  # type: ignore[import-untyped]
from sevsnpmeasure.sev_mode import SevMode  # type: ignore[import-untyped]
from tests.integration.vm_keep import CACHE, keep_image

from enarx.api.vm_image import FILES, SBOM, VmImage
from enarx.attest.claims import Tee
from enarx.cli._exit import ExitCode
from enarx.cli._main import main
from enarx.tenant.image.vm import Cache, Machine, Measurements, Options, build_vm_image, installed_lock

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vm-image"), pytest.mark.timeout(300)]
MAX_INITRD_BYTES = 20_000_000
BUILD_S = 240
NOWHERE = "http://127.0.0.1:1"
"""A mirror that answers nothing: what is built from it comes from the cache."""
SHELLS = {
    "sh",
    "bash",
    "dash",
    "busybox",
    "ash",
    "apt",
    "apt-get",
    "dpkg",
    "pip",
    "ip",
    "modprobe",
    "mount",
    "perl",
}


@pytest.fixture(scope="module")
def image() -> VmImage:
    lock = installed_lock()
    Cache(CACHE).fetch(lock, lock.packages)  # the image may be older than the cache
    return keep_image()


@pytest.fixture(scope="module")
def listed(image: VmImage) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((image.kernel.parent / FILES).read_bytes())
    return document


def contents(directory: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def test_another_builder_makes_the_same_bytes(image: VmImage, tmp_path: Path) -> None:
    """Another directory, time, umask, locale, hash seed and environment, and no network."""
    cache = tmp_path / "home" / "enarx" / "vm"
    cache.mkdir(parents=True)
    for path in CACHE.iterdir():
        if path.suffix in (".deb", ".whl"):  # no compressed initrd: compress anew
            (cache / path.name).symlink_to(path)
    out = tmp_path / "a directory with another name"
    subprocess.run(
        [sys.executable, "-m", "enarx", "image", "build", "--vm", "--out", out.name, "--mirror", NOWHERE],
        check=True,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        env={
            "PATH": os.environ["PATH"],
            "XDG_CACHE_HOME": str(tmp_path / "home"),
            "PYTHONHASHSEED": "12345",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TZ": "Pacific/Kiritimati",
            "LC_ALL": "C",
            "SOURCE_DATE_EPOCH": "1",
            "LD_LIBRARY_PATH": "/nonexistent",
        },
        umask=0o077,
        timeout=BUILD_S,
    )
    assert contents(out) == contents(image.kernel.parent)


def test_a_console_is_another_image(image: VmImage, tmp_path: Path) -> None:
    cache = Cache(CACHE, mirrors=[NOWHERE])
    made = build_vm_image(tmp_path / "image", cache, options=Options(console=True, firmware=False))
    assert (made.console, image.console) == (True, False)
    assert made.initrd.read_bytes() == image.initrd.read_bytes()
    assert made.cmdline != image.cmdline
    assert (made.firmware, made.sev_firmware) == (None, None)
    assert made.digest != image.digest


def test_it_is_small(image: VmImage) -> None:
    assert image.initrd.stat().st_size < MAX_INITRD_BYTES


def test_there_is_no_shell_and_nothing_else_that_is_not_needed(listed: dict[str, Any]) -> None:
    paths = [file["path"] for file in listed["initrd"]]
    assert {path.rpartition("/")[2] for path in paths} & SHELLS == set()
    executable = {file["path"] for file in listed["initrd"] if int(file["mode"], 8) & 0o111}
    assert {"/init", "/usr/bin/python3.11"} <= executable
    assert [it for it in executable if it not in {"/init", "/usr/bin/python3.11"} and ".so" not in it] == []
    assert [path for path in paths if path.endswith((".py", ".sh", ".pl"))] == []
    assert sorted(path for path in paths if path.endswith(".ko")) == [
        "/lib/modules/configfs.ko",
        "/lib/modules/sev-guest.ko",
        "/lib/modules/tdx-guest.ko",
        "/lib/modules/tsm.ko",
    ]
    assert {path.split("/")[1] for path in paths} == {"init", "keep", "lib", "lib64", "usr"}
    assert [path for path in paths if "libcrypto" in path or "libssl" in path] == []
    assert [path for path in paths if path.startswith("/keep/enarx/") and "/tcb/" not in path] == [
        "/keep/enarx/__init__.pyc"
    ]


def test_every_file_has_a_source_that_the_lock_names(listed: dict[str, Any]) -> None:
    lock = installed_lock()
    locked = {package.file: package.sha256 for package in lock.packages}
    locked |= {wheel.file: wheel.sha256 for wheel in lock.wheels}
    assert {archive["file"]: archive["sha256"] for archive in listed["archives"]}.items() <= locked.items()
    sources = {file["from"] for file in (*listed["initrd"], *listed["beside"])}
    assert sources - {"enarx"} == {archive["file"] for archive in listed["archives"]}


def test_files_beside_are_the_packages_own(image: VmImage, listed: dict[str, Any]) -> None:
    found = contents(image.kernel.parent)
    assert {file["path"]: file["sha256"] for file in listed["beside"]}.items() <= found.items()
    assert {file["path"] for file in listed["beside"]} == {"vmlinuz", "ovmf.fd", "ovmf-sev.fd"}


def test_the_bill_of_materials_is_valid_and_whole(image: VmImage, listed: dict[str, Any]) -> None:
    text = (image.kernel.parent / SBOM).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    files = {
        file["name"]: file["hashes"][0]["content"]
        for component in bill["components"]
        for file in component.get("components", ())
    }
    assert files == {file["path"]: file["sha256"] for file in (*listed["initrd"], *listed["beside"])}
    kernel = next(it for it in bill["components"] if it["name"].startswith("linux-image"))
    assert kernel["purl"].startswith("pkg:deb/debian/linux-image-6.12")
    assert {it["name"]: it["version"] for it in bill["components"]}["openssl"].startswith("OpenSSL ")


@pytest.mark.parametrize(("vcpus", "kind"), [(1, "EPYC-v4"), (4, "EPYC-Milan-v2"), (2, "EPYC-Genoa")])
def test_a_peer_computes_the_same_launch_digests(image: VmImage, vcpus: int, kind: str) -> None:
    ours = Measurements(image)
    for mode, tee, name in (
        (SevMode.SEV_SNP, Tee.SNP, "measurement"),
        (SevMode.SEV_ES, Tee.SEV_ES, "launch_digest"),
    ):
        theirs = guest.calc_launch_digest(
            mode,
            vcpus,
            vcpu_types.CPU_SIGS[kind],
            str(image.sev_firmware),
            str(image.kernel),
            str(image.initrd),
            image.cmdline,
            0x1 if tee is Tee.SNP else 0,
        )
        assert ours.of(tee, Machine(vcpus=vcpus, vcpu_type=kind))[name] == theirs


def test_show_gives_what_the_library_computes(image: VmImage, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["image", "show", str(image.kernel.parent), "--vcpus", "2", "--vcpu-type", "EPYC-Genoa"]
    assert main([*arguments, "--json"]) == ExitCode.DONE
    document = json.loads(capsys.readouterr().out)
    machine = Machine(vcpus=2, vcpu_type="EPYC-Genoa")
    for tee, values in document["measurements"].items():
        expected = Measurements(image).of(Tee(tee), machine)
        assert values == {name: value.hex() for name, value in expected.items()}
    assert set(document["measurements"]) == {"snp", "sev-es", "sev", "tdx", "pef", "tpm"}
    assert main(arguments) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert image.digest.hex() in shown
    assert document["measurements"]["snp"]["measurement"] in shown


def test_only_an_older_image_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "letter").write_text("mine")
    arguments = ["image", "build", "--vm", "--no-firmware", "--out", str(tmp_path / "image")]
    assert main(arguments) == ExitCode.UNAVAILABLE
    assert (tmp_path / "image" / "letter").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["image"]
