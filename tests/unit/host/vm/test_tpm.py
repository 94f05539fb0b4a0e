"""The seeds of a host's TPMs: made once, never shared by two hosts, and never left lying about in copies."""

from __future__ import annotations

import os
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from enarx.api.vm_image import VmImage
from enarx.host.backend import LaunchRequest, open_backend
from enarx.host.backends import vm_tpm
from enarx.host.backends.vm_tpm import VmTpmBackend
from enarx.host.platform._machine import Machine
from enarx.host.vm import Accelerator, Guest, Protection, Seeds, qemu_command
from enarx.host.vm._options import Files
from enarx.host.vm._tpm import KEY, SEEDS
from enarx.tcb.errors import Malformed, Unavailable


def test_the_key_is_made_once_and_stays(tmp_path: Path) -> None:
    seeds = Seeds(tmp_path / "state")
    key = seeds.public_key()
    content = (tmp_path / "state" / SEEDS).read_bytes()
    seeds.close()
    again = Seeds(tmp_path / "state")
    assert again.public_key() == key
    assert (tmp_path / "state" / SEEDS).read_bytes() == content
    again.close()
    parsed = load_der_public_key(key)
    assert load_pem_public_key((tmp_path / "state" / KEY).read_bytes()) == parsed
    assert isinstance(parsed, ec.EllipticCurvePublicKey)
    assert isinstance(parsed.curve, ec.SECP256R1)
    other = Seeds(tmp_path / "other")
    assert other.public_key() != key
    other.close()


def test_each_tpm_has_a_copy_that_nobody_else_reads_and_that_goes_with_it(tmp_path: Path) -> None:
    seeds = Seeds(tmp_path / "state")
    first, second = seeds.new_tpm(), seeds.new_tpm()
    folders = [Path(str(it.command[4]).removeprefix("dir=").partition(",")[0]) for it in (first, second)]
    assert folders[0] != folders[1]
    for folder in (tmp_path / "state", folders[0].parent, *folders):
        assert folder.stat().st_mode & 0o077 == 0
    assert [(folder / SEEDS).read_bytes() for folder in folders] == [
        (tmp_path / "state" / SEEDS).read_bytes()
    ] * 2
    for tpm in (first, second):
        tpm.control.close()
        tpm.inside.close()
        tpm.discard()
    assert list((tmp_path / "state" / "keeps").iterdir()) == []
    seeds.close()


def test_two_hosts_do_not_share_seeds(tmp_path: Path) -> None:
    seeds = Seeds(tmp_path)
    with pytest.raises(Unavailable, match="another host"):
        Seeds(tmp_path)
    seeds.close()
    Seeds(tmp_path).close()


def test_what_a_killed_host_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "keeps" / "old").mkdir(parents=True)
    (tmp_path / "keeps" / "old" / SEEDS).write_bytes(b"seeds")
    Seeds(tmp_path).close()
    assert list((tmp_path / "keeps").iterdir()) == []


def test_threads_that_ask_first_get_one_key(tmp_path: Path) -> None:
    seeds = Seeds(tmp_path)
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(seeds.public_key())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert len(set(found)) == 1
    seeds.close()


def test_seeds_that_are_none_are_told_and_kept(tmp_path: Path) -> None:
    (tmp_path / SEEDS).write_bytes(b"no seeds")
    seeds = Seeds(tmp_path)
    with pytest.raises(Unavailable, match="swtpm gives no key"):
        seeds.public_key()
    assert (tmp_path / SEEDS).read_bytes() == b"no seeds"
    assert list((tmp_path / "keeps").iterdir()) == []
    seeds.close()


def test_without_the_program_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    seeds = Seeds(tmp_path / "state")
    with pytest.raises(Unavailable, match="swtpm does not start") as raised:
        seeds.new_tpm()
    assert raised.value.hint == "install swtpm"
    assert sorted(os.listdir(tmp_path / "state")) == ["keeps", "lock"]
    seeds.close()


def test_a_directory_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="file/state: not a directory"):
        Seeds(tmp_path / "file" / "state")


def test_a_machine_has_a_tpm_only_where_one_was_started() -> None:
    accelerator = Accelerator(kvm=False, detail="TCG")
    files = {"kernel": 3, "initrd": 4, "firmware": 5, "keep": 6, "control": 7}
    with_tpm = Files(**files, tpm=8)
    assert 8 in with_tpm.all()
    command = qemu_command(Protection.TPM, Guest(cmdline="quiet"), with_tpm, accelerator)
    assert ("-device", "tpm-crb,tpmdev=tpm0") in pairwise(command)
    assert ("-chardev", "socket,id=tpm,fd=8") in pairwise(command)
    assert "tpm" not in " ".join(
        qemu_command(Protection.NONE, Guest(cmdline="quiet"), Files(**files), accelerator)
    )


def test_the_backend_wants_a_directory() -> None:
    with pytest.raises(Unavailable) as raised:
        open_backend("vm-tpm")
    assert "vm-tpm=DIRECTORY" in raised.value.hint


def test_the_backend_says_what_is_missing_and_that_it_is_no_tee(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_backend(f"vm-tpm={tmp_path / 'state'}")
    assert isinstance(backend, VmTpmBackend)
    assert (backend.name, backend.tee, backend.emulated) == ("vm-tpm", "tpm", True)
    monkeypatch.setattr(vm_tpm, "this_machine", lambda: Machine(root=tmp_path))
    support = backend.support()
    assert not support.ready
    assert [fact.name for fact in support.facts if not fact.passed] == ["QEMU", "swtpm"]
    assert all(fact.advice for fact in support.facts if not fact.passed)
    (memory,) = (fact for fact in support.facts if fact.name == "Memory encryption")
    assert "none: no TEE" in memory.detail
    assert not (tmp_path / "state").exists()  # who only looks makes nothing


def test_the_backend_takes_nothing_from_a_tenant(tmp_path: Path) -> None:
    backend = VmTpmBackend(str(tmp_path / "state"))
    file = tmp_path / "file"
    image = VmImage(
        kernel=file, vmlinux=file, initrd=file, cmdline="", sev_firmware=None, firmware=file, manifest=b""
    )
    with pytest.raises(Malformed, match="takes nothing from the tenant"):
        backend.start(image, b"something")
    with pytest.raises(Unavailable):
        backend.launch(LaunchRequest(image=tmp_path / "no image"))
