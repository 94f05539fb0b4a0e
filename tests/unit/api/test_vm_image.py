"""The image of VM keeps as a directory: read only when it is exactly what its manifest lists."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from enarx.api import vm_image
from enarx.api.keep_image import MANIFEST, manifest_line
from enarx.api.vm_image import CMDLINE, FIRMWARE, NEEDED, SEV_FIRMWARE, read_vm_image, write_snp_identity
from enarx.tcb.errors import Malformed, Unavailable


def write(place: Path, **changed: bytes) -> Path:
    """An image whose files hold their names, but for those that ``changed`` gives (without dots and dashes)."""
    place.mkdir(exist_ok=True)
    lines = []
    for name in sorted(NEEDED | {FIRMWARE, SEV_FIRMWARE}):
        content = changed.get(name.replace(".", "_").replace("-", "_"), name.encode())
        (place / name).write_bytes(content)
        lines.append(manifest_line(name, content))
    (place / MANIFEST).write_text("".join(lines))
    return place


def test_everything_is_found(tmp_path: Path) -> None:
    image = read_vm_image(write(tmp_path, cmdline=b"quiet panic=-1"))
    for path in (image.kernel, image.vmlinux, image.initrd, image.firmware, image.sev_firmware):
        assert path is not None
        assert path.read_bytes() == path.name.encode()
    assert image.cmdline == "quiet panic=-1"
    assert image.digest == sha256((tmp_path / MANIFEST).read_bytes()).digest()


@pytest.mark.parametrize(
    ("cmdline", "console"), [(b"quiet", False), (b"a console=ttyS0", True), (b"noconsole=1", False)]
)
def test_a_console_is_told(tmp_path: Path, cmdline: bytes, console: bool) -> None:
    assert read_vm_image(write(tmp_path, cmdline=cmdline)).console is console


def test_firmware_may_be_absent(tmp_path: Path) -> None:
    write(tmp_path)
    manifest = (tmp_path / MANIFEST).read_text().splitlines(keepends=True)
    (tmp_path / MANIFEST).write_text("".join(line for line in manifest if "ovmf" not in line))
    image = read_vm_image(tmp_path)
    assert (image.firmware, image.sev_firmware) == (None, None)


def _append(name: str) -> Callable[[Path], object]:
    return lambda place: (place / name).write_bytes((place / name).read_bytes() + b"x")


def _rewrite(old: str, new: str) -> Callable[[Path], object]:
    return lambda place: (place / MANIFEST).write_text((place / MANIFEST).read_text().replace(old, new))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        *((_append(name), "not those of its manifest") for name in sorted(NEEDED | {FIRMWARE, SEV_FIRMWARE})),
        (_rewrite("  vmlinuz\n", "  other\n"), "does not list vmlinuz"),
        (_rewrite("  ovmf.fd\n", "  ../x\n"), "lists '../x', which no image has"),
        (_rewrite("  ovmf.fd\n", "  ovmf.fd \n"), "lists 'ovmf.fd ', which no image has"),
        (_append(MANIFEST), "lists '', which no image has"),
        (lambda place: (place / MANIFEST).write_bytes(b"\xff\n"), "does not list cmdline"),
    ],
)
def test_a_damaged_image_is_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(write(tmp_path))
    with pytest.raises(Malformed, match=message):
        read_vm_image(tmp_path)


@pytest.mark.parametrize("cmdline", [b"quiet\n", b"a\0b", "ä".encode(), b"x" * 2049])
def test_a_command_line_of_another_form_is_refused(tmp_path: Path, cmdline: bytes) -> None:
    with pytest.raises(Malformed, match="command line"):
        read_vm_image(write(tmp_path, cmdline=cmdline))


@pytest.mark.parametrize("name", [MANIFEST, CMDLINE])
def test_a_missing_file_is_told(tmp_path: Path, name: str) -> None:
    (write(tmp_path) / name).unlink()
    with pytest.raises(Unavailable, match=name):
        read_vm_image(tmp_path)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm_image, "MAX_FILE_BYTES", 1000)
    with pytest.raises(Malformed, match="initrd has more than 1000 bytes"):
        read_vm_image(write(tmp_path, initrd=bytes(1001)))


def test_a_signature_lies_beside_the_image_and_changes_nothing_of_it(tmp_path: Path) -> None:
    plain = read_vm_image(write(tmp_path))
    write_snp_identity(tmp_path, bytes(96), bytes(4096))
    named = read_vm_image(tmp_path)
    assert (named.digest, named.snp_identity) == (plain.digest, (bytes(96), bytes(4096)))
    write_snp_identity(tmp_path, bytes(95), bytes(4096))
    with pytest.raises(Malformed, match="95 and 4096 bytes"):
        read_vm_image(tmp_path)
    (tmp_path / "snp-id-block").unlink()
    with pytest.raises(Unavailable, match="snp-id-block"):
        read_vm_image(tmp_path)
