"""Backends of real TEEs where there is none: QEMU reads every option, and misses the hardware and nothing else."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import pytest
from tests.forge.firmware import Ovmf
from tests.unit.host.backends.asked_qemu import (
    ES_OWNER,
    OWNER,
    UNKNOWN,
    WITHOUT_HARDWARE,
    asked,
    sev_es_objects,
    sev_objects,
    snp_objects,
    tdx_objects,
)

from enarx.api.vm_image import VmImage
from enarx.host.backend import open_backend
from enarx.host.backends import _machine
from enarx.host.backends._machine import HARDWARE, MachineBackend, memory_encryption
from enarx.host.backends.pef import PefBackend
from enarx.host.backends.sev import PUBLISHED, Owner, SevBackend, SevKeep, pinning
from enarx.host.backends.sev_es import SevEsBackend
from enarx.host.backends.snp import SnpBackend, SnpLaunch
from enarx.host.backends.tdx import TdxBackend, TdxLaunch
from enarx.host.platform._machine import Machine, this_machine
from enarx.host.vm._options import Files, Guest, Protection, qemu_command
from enarx.tcb.errors import Malformed, ProtocolViolation, Unavailable
from enarx.tcb.wire import decode, encode
from ketuvim.sev_platform import SevPlatform

BACKENDS: Sequence[type[MachineBackend]] = (SnpBackend, SevBackend, SevEsBackend, TdxBackend, PefBackend)
CASES = [
    (SevBackend, sev_objects),
    (SevEsBackend, sev_es_objects),
    (SnpBackend, snp_objects),
    (TdxBackend, tdx_objects),
]


@pytest.mark.parametrize(("backend", "objects"), CASES, ids=[case[0].protection.value for case in CASES])
def test_qemu_reads_every_option_and_misses_the_hardware_alone(
    backend: type[MachineBackend], objects: Callable[[Path], Sequence[str]], tmp_path: Path
) -> None:
    """A QEMU that is older than the TEE says so, and the backend has said it before."""
    said = asked(backend.protection, objects(tmp_path), tmp_path)
    old = not all(fact.passed for fact in backend("")._qemu())
    assert (UNKNOWN if old else WITHOUT_HARDWARE).search(said), said


def test_qemu_checks_what_it_reads(tmp_path: Path) -> None:
    """So that the test above can fail."""
    spoiled = [text.replace("cbitpos=", "cbitposition=") for text in sev_objects(tmp_path)]
    assert "cbitposition" in asked(Protection.SEV, spoiled, tmp_path)
    spoiled = [text.replace("policy=0x1", "policy=many") for text in sev_objects(tmp_path)]
    assert not WITHOUT_HARDWARE.search(asked(Protection.SEV, spoiled, tmp_path))


def test_an_snp_launch_names_what_its_owner_gave() -> None:
    memory, guest = SnpLaunch(
        c_bit=51, reduced_bits=5, host_data=b"h" * 32, id_block=b"b" * 96, id_auth=b"a" * 4096
    ).objects()
    options = dict(part.split("=", 1) for part in guest.split(",")[1:])
    assert "memory-backend-memfd,id=ram0" in memory
    assert b64decode(options["host-data"]) == b"h" * 32
    assert (b64decode(options["id-block"]), b64decode(options["id-auth"])) == (b"b" * 96, b"a" * 4096)
    assert options["author-key-enabled"] == "off"
    assert (options["cbitpos"], options["reduced-phys-bits"], options["policy"]) == ("51", "5", "0x30000")
    assert options["kernel-hashes"] == "on"


def test_no_machine_of_a_tee_has_a_console_a_disk_or_a_network() -> None:
    files = Files(kernel=3, initrd=4, firmware=5, keep=6, control=7)
    for protection in Protection:
        command = qemu_command(protection, Guest(cmdline="quiet"), files, HARDWARE)
        devices = [value for name, value in pairwise(command) if name == "-device"]
        assert [device.partition(",")[0] for device in devices] == ["virtio-serial-pci", "virtserialport"]
        assert "-nodefaults" in command
        assert ("-S" in command) == (protection in (Protection.SEV, Protection.SEV_ES))
        if protection not in (Protection.NONE, Protection.TPM):
            assert "iommu_platform=on" in devices[0]


@pytest.mark.parametrize("backend", BACKENDS, ids=[it.protection.value for it in BACKENDS])
def test_a_backend_says_what_is_missing(backend: type[MachineBackend]) -> None:
    opened = open_backend(backend.protection.value)
    assert isinstance(opened, backend)
    support = opened.support()
    assert support.ready == all(fact.passed for fact in support.facts)
    assert all(fact.advice for fact in support.facts if not fact.passed and not fact.detail)
    if not issubclass(backend, SevBackend):
        with pytest.raises(Malformed, match="takes no argument"):
            backend("something")


def test_snp_needs_no_collateral_on_the_machine() -> None:
    """A tenant asks AMD for it; `enarx platform info` tells of it."""
    names = [fact.name for fact in SnpBackend("").support().facts]
    assert "/dev/sev is readable by user" in names
    assert not [name for name in names if "cache" in name]


class SecureProcessor:
    """Exports certificates as a real one does: its CEK is not signed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def export_pdh(self) -> tuple[bytes, bytes]:
        return b"d" * 2084, b"p" * 2084 + b"o" * 2084 + b"u" * 2084

    def identity(self) -> bytes:
        return bytes(range(64))


def test_sev_shows_the_certificate_that_amd_signed_in_place_of_the_platforms_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(SevPlatform, "open", SecureProcessor)
    published = b"c" * 2084 + b"s" * 832 + b"r" * 576
    file = tmp_path / "amd.cert"
    file.write_bytes(published)
    ((kind, document),) = SevBackend(str(file)).endorsements().documents
    assert kind == "sev-certificate"
    assert document == b"d" * 2084 + b"p" * 2084 + b"o" * 2084 + published
    file.write_bytes(b"c" * 2084)
    for argument, told in (
        ("", "no file"),
        (str(file), "no CEK with"),
        (str(tmp_path / "missing"), "no such file"),
    ):
        backend = SevEsBackend(argument)
        fact = backend.support().facts[-1]
        assert (fact.name, fact.passed) == (PUBLISHED, False)
        assert f"https://kdsintf.amd.com/cek/id/{bytes(range(64)).hex()}" in fact.advice
        assert "--backend sev-es=FILE" in fact.advice
        with pytest.raises(Unavailable, match=told):
            backend.endorsements()


def test_a_sev_keep_must_fit_into_the_memory_that_may_be_locked() -> None:
    small, none = 8 << 20, -1
    assert not pinning(Machine(root=Path("/"), memlock=(small, small)), 1000).passed
    for memlock, user in (((small, small), 0), ((none, none), 1000), ((528 << 20, none), 1000)):
        assert pinning(Machine(root=Path("/"), memlock=memlock), user).passed
    assert "A whole keep can be locked in memory" in [fact.name for fact in SevEsBackend("").support().facts]


def test_a_qemu_that_is_too_old_is_refused_in_clear_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = tmp_path / "usr/bin/qemu-system-x86_64"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"")
    old = Machine(root=tmp_path, version_of=lambda path: "QEMU emulator version 8.2.1")
    monkeypatch.setattr(_machine, "this_machine", lambda: old)
    with pytest.raises(Unavailable, match=r"version 8\.2\.1") as raised:
        SnpBackend("")._need_qemu()
    assert "9.1 or later" in raised.value.hint


def image(folder: Path, **changes: Any) -> VmImage:
    values = {
        "kernel": folder / "vmlinuz",
        "vmlinux": folder / "vmlinux",
        "initrd": folder / "initrd",
        "cmdline": "quiet",
        "sev_firmware": folder / "ovmf-sev.fd",
        "firmware": folder / "ovmf.fd",
        "manifest": b"",
    }
    return VmImage(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"cmdline": "console=ttyS0"}, "console"), ({"sev_firmware": None}, "no firmware for snp")],
)
def test_an_image_that_would_tell_the_host_or_proves_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    monkeypatch.setattr(_machine, "read_vm_image", lambda path: image(tmp_path, **changes))
    with pytest.raises(Unavailable, match=told):
        SnpBackend("").prepare(tmp_path)


def test_an_image_of_process_keeps_is_refused_as_what_it_is(tmp_path: Path) -> None:
    archive = tmp_path / "keep.tar"
    archive.touch()
    with pytest.raises(Unavailable, match=r"snp launches virtual machines, .*keep\.tar") as caught:
        SnpBackend("").prepare(archive)
    assert "--image" in caught.value.hint


FIRMWARE: Sequence[tuple[type[MachineBackend], Ovmf, str]] = (
    (SnpBackend, Ovmf(hashes=None), "no place for kernel hashes"),
    (SnpBackend, Ovmf(hashes=(0, 0)), "no place for kernel hashes"),
    (SnpBackend, Ovmf(sev=None), "lists no secrets page"),
    (SevBackend, Ovmf(hashes=(0, 0)), "no place for kernel hashes"),
    (SevEsBackend, Ovmf(hashes=None), "no place for kernel hashes"),
    (TdxBackend, Ovmf(tdx=None), "no tdx metadata"),
)
"""Firmware of distributions that is too old, or built for something else."""


@pytest.mark.parametrize(("backend", "firmware", "told"), FIRMWARE)
def test_firmware_whose_launch_proves_nothing_is_refused_in_clear_words(
    backend: type[MachineBackend],
    firmware: Ovmf,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(_machine, "read_vm_image", lambda path: image(tmp_path))
    name = "ovmf.fd" if backend is TdxBackend else "ovmf-sev.fd"
    there = tmp_path / name
    there.write_bytes(firmware.build())
    with pytest.raises(Unavailable, match=told) as raised:
        backend("").prepare(tmp_path)
    assert str(raised.value).startswith(f"{there}: not for {backend.protection.value}: ")
    assert "build the image anew" in raised.value.hint
    there.write_bytes(Ovmf().build())
    backend("").prepare(tmp_path)


def test_a_launch_of_sizes_that_the_hardware_does_not_take_is_refused() -> None:
    """QEMU itself takes some of them, and looks at others only on the hardware."""
    for given in (
        {"host_data": bytes(31)},
        {"id_block": bytes(95), "id_auth": bytes(4096)},
        {"id_block": bytes(96), "id_auth": bytes(4095)},
        {"id_block": bytes(96)},
        {"id_auth": bytes(4096)},
    ):
        with pytest.raises(Malformed, match=r"expected \d+ bytes"):
            SnpLaunch(c_bit=51, reduced_bits=1, **given)  # type: ignore[arg-type]
    for name in ("mr_config_id", "mr_owner", "mr_owner_config"):
        with pytest.raises(Malformed, match=f"{name}: expected 48 bytes, found 47"):
            TdxLaunch(**{name: bytes(47)})  # type: ignore[arg-type]
    assert "x" * 106 in TdxLaunch(quote_socket="/" + "x" * 106).objects()[0]
    with pytest.raises(Malformed, match="no socket"):
        TdxLaunch(quote_socket="/" + "x" * 107)


def test_the_owners_part_of_a_launch_is_read_strictly(tmp_path: Path) -> None:
    good = {"policy": OWNER.policy, "certificate": OWNER.certificate, "session": OWNER.session}
    assert Owner.parse(encode({**good})) == OWNER
    for bad in ({**good, "more": b""}, {**good, "policy": b"12345"}, {"policy": b"1234"}, {}):
        with pytest.raises(Malformed):
            Owner.parse(encode({**bad}))
    (guest,) = OWNER.objects(47, 5, tmp_path)
    assert "policy=0x1," in guest
    assert "legacy-vm-type" not in guest  # as a QEMU that does not know it can launch SEV
    assert "policy=0x5,kernel-hashes=on,legacy-vm-type=off" in ES_OWNER.objects(47, 5, tmp_path)[0]
    assert b64decode((tmp_path / "session").read_bytes()) == OWNER.session


class Qemu:
    """A machine whose QEMU gives recorded answers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, object]]] = []
        self.control, self.pid, self.channel = self, 1, "the channel"
        self.answers: dict[str, object] = {
            "query-sev": {"api-major": 1, "api-minor": 55, "build-id": 8, "enabled": True},
            "query-sev-launch-measure": {"data": b64encode(b"m" * 48).decode()},
        }

    def command(self, name: str, **arguments: object) -> object:
        self.told.append((name, arguments))
        return self.answers.get(name, {})

    def await_ready(self) -> None:
        self.told.append(("await_ready", {}))

    def stop(self) -> None:
        self.told.append(("stop", {}))


def test_a_sev_machine_runs_only_after_its_secret() -> None:
    qemu: Any = Qemu()
    keep = SevKeep(qemu)
    assert decode(keep.launch, max_bytes=1 << 10) == {
        "measure": b"m" * 48,
        "api_major": 1,
        "api_minor": 55,
        "build": 8,
    }
    assert keep.channel is None
    with pytest.raises(Malformed):
        keep.secret(encode({"header": b""}))
    keep.secret(encode({"header": b"head", "payload": b"body"}))
    injected = {"packet-header": b64encode(b"head").decode(), "secret": b64encode(b"body").decode()}
    assert qemu.told[2:] == [("sev-inject-launch-secret", injected), ("cont", {}), ("await_ready", {})]
    with pytest.raises(ProtocolViolation):
        keep.secret(encode({"header": b"head", "payload": b"body"}))


def test_a_qemu_that_tells_no_measurement_is_refused() -> None:
    qemu: Any = Qemu()
    for answer in ({}, {"data": 7}, {"data": "not base64"}, None):
        qemu.answers["query-sev-launch-measure"] = answer
        with pytest.raises(Unavailable, match="data"):
            SevKeep(qemu)


def test_where_pages_are_marked_is_asked_of_the_processor() -> None:
    machine = Machine(root=Path("/"), cpuid=lambda leaf, subleaf: (0, 51 | 5 << 6, 0, 0))
    assert memory_encryption(machine) == (51, 5)
    with pytest.raises(Unavailable, match="processor does not tell"):
        memory_encryption(Machine(root=Path("/")))


def test_pef_says_that_there_is_no_image_for_it(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="x86-64 only"):
        PefBackend("").start(image(tmp_path), b"")
    assert this_machine().root == Path("/")


def test_the_qemu_that_is_judged_is_the_one_that_would_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_text("#!/bin/sh\necho QEMU emulator version 99.1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"relative:{tmp_path}:/usr/bin")
    fact = SnpBackend("").support().facts[0]
    assert (fact.passed, fact.detail) == (True, f"{program}, version 99.1")
