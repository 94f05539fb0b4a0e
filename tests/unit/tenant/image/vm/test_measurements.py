"""What machines must prove: each part of an image changes what covers it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.forge.firmware import Ovmf
from tests.forge.kernel import bz_image
from tests.forge.vm_image import FILES, vm_image

from enarx.api.vm_image import VmImage
from enarx.attest import Policy
from enarx.attest.claims import Tee
from enarx.attest.measure import (
    CPU_SIGNATURES,
    Unmeasurable,
    hash_kernel,
    parse_sev_firmware,
    snp_launch_digest,
)
from enarx.attest.rules import Each
from enarx.attest.tpm import VERIFIER as TPM
from enarx.attest.tpm import TpmRules
from enarx.host.vm._options import MEMORY_MIB
from enarx.tenant.image.vm import VM_TEES, Machine, Measurements, tpm_policy, tpm_registers


def values(
    place: Path, machine: Machine | None = None, changed: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    measurements = Measurements(vm_image(place, changed))
    found = {tee.value: measurements.of(tee, machine or Machine()) for tee in VM_TEES}
    return {f"{tee} {name}": value for tee, named in found.items() for name, value in named.items()}


def test_the_values_are_those_of_the_library(tmp_path: Path) -> None:
    expected = snp_launch_digest(
        parse_sev_firmware(FILES["ovmf-sev.fd"]),
        vcpus=3,
        cpu_signature=CPU_SIGNATURES["EPYC-Genoa"],
        kernel=hash_kernel(FILES["vmlinuz"], initrd=b"ramdisk", cmdline="quiet"),
    )
    assert values(tmp_path, Machine(vcpus=3, vcpu_type="EPYC-Genoa"))["snp measurement"] == expected


SEV_FAMILY = {"snp measurement", "sev-es launch_digest", "sev launch_digest"}
KERNEL = {"tdx rtmr1", "tpm pcr4"}
LATER = {"tdx rtmr2", "tpm pcr9", "pef measurement"}


@pytest.mark.parametrize(
    ("changed", "covered"),
    [
        ({"vmlinuz": bz_image(seed=1)}, SEV_FAMILY | KERNEL),
        ({"initrd": b"ramdisj"}, SEV_FAMILY | LATER),
        ({"ovmf-sev.fd": Ovmf(seed=2).build()}, SEV_FAMILY),
        ({"ovmf.fd": Ovmf(seed=2).build()}, {"tdx mrtd"}),
        ({"vmlinux": b"unpackee"}, {"pef measurement"}),
    ],
)
def test_a_changed_file_changes_what_covers_it(
    tmp_path: Path, changed: dict[str, bytes], covered: set[str]
) -> None:
    before, after = values(tmp_path), values(tmp_path, changed=changed)
    assert {name for name in before if before[name] != after[name]} == covered


def test_a_changed_command_line_changes_what_covers_it(tmp_path: Path) -> None:
    before = values(tmp_path)
    console = Measurements(vm_image(tmp_path, {"cmdline": b"console=ttyS0"}))
    after = {
        f"{tee.value} {name}": value for tee in VM_TEES for name, value in console.of(tee, Machine()).items()
    }
    assert {name for name in before if before[name] != after[name]} == SEV_FAMILY | LATER


@pytest.mark.parametrize(
    ("machine", "covered"),
    [
        (Machine(vcpus=2), {"snp measurement", "sev-es launch_digest"}),
        (Machine(vcpu_type="EPYC-Milan"), {"snp measurement", "sev-es launch_digest"}),
        (Machine(vcpu_type="EPYC-v3"), set()),  # the same processor by another name
        (Machine(patched_for=512 << 20), KERNEL),
    ],
)
def test_another_machine_changes_what_covers_it(tmp_path: Path, machine: Machine, covered: set[str]) -> None:
    before, after = values(tmp_path), values(tmp_path, machine)
    assert {name for name in before if before[name] != after[name]} == covered


@pytest.mark.parametrize("tee", [Tee.SNP, Tee.SEV, Tee.SEV_ES, Tee.TDX])
def test_without_firmware_nothing_covers_the_kernel(tmp_path: Path, tee: Tee) -> None:
    whole = vm_image(tmp_path)
    bare = VmImage(
        kernel=whole.kernel,
        vmlinux=whole.vmlinux,
        initrd=whole.initrd,
        cmdline=whole.cmdline,
        sev_firmware=None,
        firmware=None,
        manifest=b"",
    )
    with pytest.raises(Unmeasurable, match="no firmware"):
        Measurements(bare).of(tee, Machine())


def test_an_unknown_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unmeasurable, match="processor model Skylake"):
        Measurements(vm_image(tmp_path)).of(Tee.SNP, Machine(vcpu_type="Skylake"))


def test_enclaves_are_no_machines(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        Measurements(vm_image(tmp_path)).of(Tee.SGX, Machine())


def test_the_policy_for_a_tpm_has_the_registers_of_this_image_and_says_what_it_gives_up(
    tmp_path: Path,
) -> None:
    made = vm_image(tmp_path)
    text = tpm_policy(made, registers={"pcr0": [b"\x11" * 32]})
    policy = Policy.parse(text, [TPM])
    assert any("memory_protected" in line for line in policy.lint())
    (rules,) = policy.sections.values()
    assert isinstance(rules, TpmRules)
    assert rules.vendor_root.admits(False)
    assert not rules.vendor_root.admits(True)  # anybody can rent a machine whose TPM a cloud certifies
    assert isinstance(rules.pcrs, Each)
    expected = {f"pcr{index}": value for index, value in Measurements(made).tpm_pcrs(Machine()).items()}
    assert set(rules.pcrs.rules) == {"pcr0", *expected} == {f"pcr{index}" for index in (0, 2, 3, 4, 5, 6, 9)}
    assert rules.pcrs.admits({"pcr0": b"\x11" * 32, **expected})
    older = {**expected, "pcr4": Measurements(made).tpm_pcrs(Machine(patched_for=MEMORY_MIB << 20))[4]}
    assert older["pcr4"] != expected["pcr4"]
    assert rules.pcrs.admits({"pcr0": b"\x11" * 32, **older})
    for name in expected:
        assert not rules.pcrs.admits({"pcr0": b"\x11" * 32, **expected, name: bytes(32)})


def test_the_policy_for_a_tpm_changes_with_every_part_of_the_image(tmp_path: Path) -> None:
    before = tpm_registers(vm_image(tmp_path))
    for name, register in (("vmlinuz", "pcr4"), ("initrd", "pcr9")):
        content = FILES[name]
        after = tpm_registers(vm_image(tmp_path, {name: content[:-1] + bytes([content[-1] ^ 1])}))
        assert {it for it in before if before[it] != after[it]} == {register}
    assert tpm_registers(vm_image(tmp_path, {"cmdline": b"quiet splash"}))["pcr9"] != before["pcr9"]
