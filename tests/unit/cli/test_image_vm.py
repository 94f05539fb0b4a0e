"""``enarx image`` for VM images: what goes together on its command line, and what it says of an image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.forge.firmware import Ovmf
from tests.forge.kernel import bz_image

from enarx.api.keep_image import MANIFEST, manifest_line
from enarx.api.vm_image import SNP_ID_BLOCK
from enarx.cli._exit import ExitCode
from enarx.cli._main import main

FILES = {
    "vmlinuz": bz_image(),
    "vmlinux": b"unpacked",
    "initrd": b"ramdisk",
    "cmdline": b"quiet",
    "files.json": json.dumps({"initrd": [], "beside": [], "archives": []}).encode(),
    "sbom.json": b"{}",
}
FIRMWARE = {"ovmf-sev.fd": Ovmf().build(), "ovmf.fd": Ovmf(seed=1).build()}


def write(place: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        (place / name).write_bytes(content)
    (place / MANIFEST).write_text("".join(manifest_line(name, files[name]) for name in sorted(files)))
    return str(place)


@pytest.mark.parametrize("option", [["--console"], ["--no-firmware"], ["--mirror", "http://127.0.0.1:1"]])
def test_choices_for_machines_go_with_machines(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "build", *option]) == ExitCode.USAGE
    assert "go with --vm" in capsys.readouterr().err


def test_every_value_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = write(tmp_path, FILES | FIRMWARE)
    assert main(["image", "show", place]) == ExitCode.DONE
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    shown = {(words[0], words[1]) for words in lines if len(words) == 3 and len(words[2]) in (64, 96)}
    assert shown == {
        ("snp", "measurement"), ("sev-es", "launch_digest"), ("sev", "launch_digest"), ("tdx", "mrtd"),
        ("tdx", "rtmr1"), ("tdx", "rtmr2"), ("pef", "measurement"), ("tpm", "pcr4"), ("tpm", "pcr9"),
    }  # fmt: skip
    assert "the host reads the console" not in str(lines)


def test_without_firmware_only_others_firmware_can_measure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "show", write(tmp_path, FILES), "--json"]) == ExitCode.DONE
    document = json.loads(capsys.readouterr().out)
    assert set(document["measurements"]) == {"pef", "tpm"}
    assert set(document["unmeasured"]) == {"snp", "sev-es", "sev", "tdx"}


def test_why_there_is_no_value_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "show", write(tmp_path, FILES | FIRMWARE), "--vcpus", "100000"]) == ExitCode.DONE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "not measured: " in line] == ["snp", "sev-es"]


@pytest.mark.parametrize(
    "listed", [b"", b"[]", b"{}", b'{"initrd": [], "beside": [], "archives": 1}', b"[" * 100000]
)
def test_a_list_of_files_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], listed: bytes
) -> None:
    assert main(["image", "show", write(tmp_path, {**FILES, "files.json": listed})]) == ExitCode.MALFORMED
    assert "files.json: no list" in capsys.readouterr().err


def test_a_console_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = write(tmp_path, {**FILES, "cmdline": b"console=ttyS0"})
    assert main(["image", "show", place]) == ExitCode.DONE
    assert "the host reads the console" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cmdline", "code"), [(b"quiet", ExitCode.DONE), (b"console=ttyS0", ExitCode.UNAVAILABLE)]
)
def test_no_image_with_a_console_is_signed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cmdline: bytes, code: ExitCode
) -> None:
    """A policy that names the signer accepts whatever was signed."""
    key = tmp_path / "id.pem"
    made = ec.generate_private_key(ec.SECP384R1())
    key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "image").mkdir()
    place = write(tmp_path / "image", {**FILES, **FIRMWARE, "cmdline": cmdline})
    assert main(["image", "sign", place, "--id-key", str(key)]) == code
    assert (tmp_path / "image" / SNP_ID_BLOCK).exists() == (code == ExitCode.DONE)
    assert ("console" in capsys.readouterr().err) == (code != ExitCode.DONE)


def test_a_patched_kernel_needs_the_size_of_the_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = write(tmp_path, FILES)
    assert main(["image", "show", place, "--patched-kernel"]) == ExitCode.USAGE
    assert "--memory" in capsys.readouterr().err
    found = []
    for options in ([], ["--patched-kernel", "--memory", "512M"]):
        assert main(["image", "show", place, *options, "--json"]) == ExitCode.DONE
        found.append(json.loads(capsys.readouterr().out)["measurements"]["tpm"])
    assert found[0]["pcr4"] != found[1]["pcr4"]
    assert found[0]["pcr9"] == found[1]["pcr9"]


def test_a_changed_image_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = write(tmp_path, FILES)
    (tmp_path / "initrd").write_bytes(b"ramdisj")
    assert main(["image", "show", place]) == ExitCode.MALFORMED
    assert f"not those of its manifest: {tmp_path / 'initrd'}" in capsys.readouterr().err


def test_a_directory_that_is_no_image_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "show", str(tmp_path)]) == ExitCode.UNAVAILABLE
    assert "enarx image build --vm" in capsys.readouterr().err
