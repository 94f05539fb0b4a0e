"""A QEMU that knows every TEE reads each option of the backends: it notices what is wrong, and misses hardware alone.

It is newer than that of Debian 12; `make newer-qemu` unpacks it into ``build/qemu``, which `make test` does first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.unit.host.backends.asked_qemu import (
    WITHOUT_HARDWARE,
    asked,
    sev_es_objects,
    sev_objects,
    snp_objects,
    status,
    tdx_objects,
)
from tools.newer_qemu import TARGET, version

from enarx.host.backends.pef import OBJECTS
from enarx.host.vm._options import Protection

MISSING = {
    Protection.SEV: "cbitpos check failed, host '0' requested '47'",
    Protection.SEV_ES: "host kernel does not support requested KVM_X86_SEV_ES_VM",
    Protection.SNP: "vm-type SEV-SNP not supported by KVM",
    Protection.TDX: "vm-type TDX not supported by KVM",
    Protection.PEF: "invalid accelerator kvm",  # a QEMU for POWER has no KVM on other processors
}
NO_KVM = "Could not access KVM kernel module"


def pef_objects(folder: Path) -> Sequence[str]:
    return OBJECTS


OBJECTS_OF: dict[Protection, Callable[[Path], Sequence[str]]] = {
    Protection.SEV: sev_objects,
    Protection.SEV_ES: sev_es_objects,
    Protection.SNP: snp_objects,
    Protection.TDX: tdx_objects,
    Protection.PEF: pef_objects,
}
TEES = pytest.mark.parametrize("protection", OBJECTS_OF, ids=lambda it: it.value)


@pytest.fixture(scope="module", autouse=True)
def newer_qemu() -> None:
    if version(TARGET) is None:
        pytest.skip("there is no newer QEMU in build/qemu: make newer-qemu")


def newer(command: list[str]) -> list[str]:
    return [str(TARGET / "bin" / command[0]), *command[1:]]


def replaced(command: list[str], option: str, old: str, new: str) -> list[str]:
    """The command with another value of an option."""
    at = command.index(option) + 1
    assert old in command[at]
    return [*command[:at], command[at].replace(old, new), *command[at + 1 :]]


def translated(command: list[str]) -> list[str]:
    """As a newer QEMU takes it where there is no KVM."""
    command = replaced(newer(command), "-accel", "kvm", "tcg")
    return replaced(command, "-cpu", "host", "max") if "host" in command else command


@TEES
def test_every_option_is_read_and_the_hardware_alone_is_missing(
    protection: Protection, tmp_path: Path
) -> None:
    said = asked(protection, OBJECTS_OF[protection](tmp_path), tmp_path, newer)
    assert MISSING[protection] in said or NO_KVM in said, said


def test_without_kvm_snp_and_pef_say_so(tmp_path: Path) -> None:
    said = asked(Protection.SNP, snp_objects(tmp_path), tmp_path, translated)
    assert "cannot set up private guest memory for sev-snp-guest: KVM required" in said
    assert "PEF requires KVM" in asked(Protection.PEF, OBJECTS, tmp_path, translated)


@TEES
def test_all_but_the_tee_starts(protection: Protection, tmp_path: Path) -> None:
    """Machine, processor, memory, firmware and devices, which QEMU makes only after it found the TEE."""

    def without_tee(command: list[str]) -> list[str]:
        command = replaced(translated(command), "-machine", ",confidential-guest-support=tee0", "")
        return [*command, "-S"]

    memory = [it for it in OBJECTS_OF[protection](tmp_path) if it.startswith("memory-backend")]
    assert status(protection, memory, tmp_path, without_tee) == "prelaunch"

    def with_other_device(command: list[str]) -> list[str]:
        return replaced(without_tee(command), "-device", "disable-legacy", "disable-legacies")

    assert status(protection, memory, tmp_path, with_other_device) == ""


def test_memory_of_another_size_than_the_machines_is_noticed(tmp_path: Path) -> None:
    memory = [it.replace("size=512M", "size=513M") for it in snp_objects(tmp_path)[:1]]

    def without_tee(command: list[str]) -> list[str]:
        return replaced(translated(command), "-machine", ",confidential-guest-support=tee0", "")

    assert "does not match the size" in asked(Protection.SNP, memory, tmp_path, without_tee)


NUMBER, SWITCH, LENGTH, BASE64 = (
    "expects a uint64",
    "expects 'on' or 'off'",
    "parameter length of 3",
    "Base64",
)
SPOILED: dict[Protection, Sequence[tuple[str, str, str]]] = {
    Protection.SNP: (
        ("sev-snp-guest", "sev-snp-host", "'sev-snp-host'"),
        ("id=tee0", "id=tee1", "'tee0' not found"),
        (r"\bcbitpos=", "cbitposition=", "'cbitposition'"),
        (r"\bcbitpos=51", "cbitpos=high", NUMBER),
        ("reduced-phys-bits=", "reduced-bits=", "'reduced-phys-bits' is missing"),
        ("reduced-phys-bits=1", "reduced-phys-bits=one", NUMBER),
        ("policy=", "policies=", "'policies'"),
        ("policy=0x30000", "policy=strict", NUMBER),
        ("kernel-hashes=", "kernel-hash=", "'kernel-hash'"),
        ("kernel-hashes=on", "kernel-hashes=yes-please", SWITCH),
        ("host-data=", "hosts-data=", "'hosts-data'"),
        (r"host-data=[^,]+", "host-data=AAAA", f"{LENGTH} not equal to 32"),
        ("host-data=A", "host-data=*", BASE64),
        ("id-block=", "id-blocks=", "'id-blocks'"),
        (r"id-block=[^,]+", "id-block=AAAA", f"{LENGTH} not equal to 96"),
        ("id-block=A", "id-block=*", BASE64),
        ("id-auth=", "id-auths=", "'id-auths'"),
        (r"id-auth=[^,]+", f"id-auth={'A' * 5464}", "exceeds max of 4096"),
        ("id-auth=A", "id-auth=*", BASE64),
        ("author-key-enabled=", "author-key=", "'author-key'"),
        ("author-key-enabled=on", "author-key-enabled=perhaps", SWITCH),
        ("memory-backend-memfd", "memory-backend-memory", "'memory-backend-memory'"),
        ("size=512M", "size=half", "size"),
        ("share=true", "share=perhaps", SWITCH),
        ("prealloc=false", "prealloc=perhaps", SWITCH),
    ),
    Protection.TDX: (
        ("tdx-guest", "tdx-host", "'tdx-host'"),
        ('"tee0"', '"tee1"', "'tee0' not found"),
        ("sept-ve-disable", "sept-disable", "'sept-disable'"),
        ("true", '"certainly"', "sept-ve-disable.*boolean"),
        ("mrconfigid", "mrconfig", "'mrconfig'"),
        (r'"mrconfigid": "[^"]+"', '"mrconfigid": 7', "mrconfigid"),
        (r"mrowner\b", "mrowners", "'mrowners'"),
        (r'"mrowner": "[^"]+"', '"mrowner": 7', "mrowner"),
        ("mrownerconfig", "mrownerconf", "'mrownerconf'"),
        (r'"mrownerconfig": "[^"]+"', '"mrownerconfig": 7', "mrownerconfig"),
        ("quote-generation-socket", "quote-socket", "'quote-socket'"),
        ('"type": "unix"', '"type": "telepathy"', "'telepathy'"),
        ('"path": ', '"place": ', "path"),
        ('"path": "[^"]+"', '"path": 7', "path"),
    ),
    Protection.SEV: (
        ("sev-guest", "sev-host", "'sev-host'"),
        ("id=tee0", "id=tee1", "'tee0' not found"),
        (r"\bcbitpos=", "cbitposition=", "'cbitposition'"),
        (r"\bcbitpos=47", "cbitpos=high", NUMBER),
        ("reduced-phys-bits=", "reduced-bits=", "'reduced-phys-bits' is missing"),
        ("policy=", "policies=", "'policies'"),
        ("policy=0x1", "policy=strict", NUMBER),
        ("kernel-hashes=on", "kernel-hashes=yes-please", SWITCH),
        ("dh-cert-file=", "dh-file=", "'dh-file'"),
        ("session-file=", "sessions-file=", "'sessions-file'"),
    ),
    Protection.SEV_ES: (
        ("policy=0x5", "policy=strict", NUMBER),
        ("legacy-vm-type=", "legacy-vm=", "'legacy-vm'"),
        ("legacy-vm-type=off", "legacy-vm-type=sometimes", "'sometimes'"),
    ),
    Protection.PEF: (
        ("pef-guest", "pef-host", "'pef-host'"),
        ("id=tee0", "id=tee1", "'tee0' not found"),
        ("$", ",more=on", "'more'"),
    ),
}


@pytest.mark.parametrize(
    ("protection", "old", "new", "told"),
    [(protection, *case) for protection, cases in SPOILED.items() for case in cases],
    ids=lambda it: it.value if isinstance(it, Protection) else None,
)
def test_an_option_that_is_wrong_is_noticed(
    protection: Protection, old: str, new: str, told: str, tmp_path: Path
) -> None:
    good = list(OBJECTS_OF[protection](tmp_path))
    spoiled = [re.sub(old, new, it, count=1) for it in good]
    assert spoiled != good
    said = asked(protection, spoiled, tmp_path, newer)
    for argument in spoiled:
        said = said.replace(argument, "", 1)  # which QEMU repeats
    assert re.search(told, said), said
    assert not WITHOUT_HARDWARE.search(said)


@pytest.mark.parametrize("protection", [Protection.SNP, Protection.TDX, Protection.PEF])
def test_every_value_of_a_tee_is_spoiled_above(protection: Protection, tmp_path: Path) -> None:
    """So that an option that is added later is tried, too."""
    named = "".join(OBJECTS_OF[protection](tmp_path))
    names = set(re.findall(r'(?:^|,)([a-z-]+)=|"([a-z-]+)":', named))
    spoiled = " ".join(old for old, _, _ in SPOILED[protection])
    ignored = {"qom-type", "id", "path", "type"}
    assert {a or b for a, b in names} - ignored <= set(
        re.findall(r"[a-z]+(?:-[a-z]+)*", spoiled.replace(r"\b", " "))
    )
