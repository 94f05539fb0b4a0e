"""VM keeps on emulated platforms: the firmware measures what a tenant and a peer compute from the same files."""

from __future__ import annotations

from pathlib import Path

import pytest
from sevsnpmeasure import guest as peer  # type: ignore[import-untyped]
from sevsnpmeasure import vcpu_types
from sevsnpmeasure.sev_mode import SevMode  # type: ignore[import-untyped]
from sevsnpmeasure.vmm_types import VMMType  # type: ignore[import-untyped]
from tests.forge import amd, intel
from tests.forge.firmware import Ovmf
from tests.forge.vm_image import vm_image

from enarx.api.vm_image import VmImage
from enarx.attest import Tee
from enarx.attest.measure import (
    CPU_SIGNATURES,
    hash_kernel,
    parse_sev_firmware,
    sev_es_launch_digest,
    sev_launch_digest,
    snp_launch_digest,
)
from enarx.tenant.image.vm import Machine, Measurements
from enarx_emulator.errors import EmulatorError
from enarx_emulator.ibm.machine import make as pef_machine
from enarx_emulator.machine import Setup
from enarx_emulator.seed import Seed
from enarx_emulator.vm_launch import launch_arguments

EPYC = CPU_SIGNATURES["EPYC-v4"]


@pytest.fixture
def image(tmp_path: Path) -> VmImage:
    ovmf = Ovmf(pages=16).build()
    return vm_image(tmp_path, {"vmlinux": b"kernel", "ovmf-sev.fd": ovmf, "ovmf.fd": ovmf})


def measured(kind: str, image: VmImage) -> object:
    arguments = dict(launch_arguments(kind, image))
    if kind == "snp":
        return amd.snp().command("launch", arguments)["measurement"]
    machine = amd.sev(kind)
    policy = (4 if kind == "sev-es" else 0).to_bytes(4, "little")
    handle = machine.command("launch", {"policy": policy, **arguments})["guest"]
    return machine.firmware._guests[amd.number(handle)].digest.digest()


def expected(kind: str, image: VmImage) -> bytes:
    assert image.sev_firmware is not None
    firmware = parse_sev_firmware(image.sev_firmware.read_bytes())
    kernel = hash_kernel(image.kernel.read_bytes(), initrd=image.initrd.read_bytes(), cmdline=image.cmdline)
    if kind == "snp":
        return snp_launch_digest(firmware, vcpus=1, cpu_signature=EPYC, kernel=kernel)
    if kind == "sev-es":
        return sev_es_launch_digest(firmware, vcpus=1, cpu_signature=EPYC, kernel=kernel)
    return sev_launch_digest(firmware, kernel=kernel)


@pytest.mark.parametrize("kind", ["snp", "sev", "sev-es"])
def test_the_firmware_measures_what_a_tenant_expects(kind: str, image: VmImage) -> None:
    assert measured(kind, image) == expected(kind, image)


@pytest.mark.parametrize("kind", ["snp", "sev", "sev-es"])
def test_every_file_and_the_command_line_are_measured(kind: str, image: VmImage) -> None:
    before = measured(kind, image)
    for path in (image.kernel, image.initrd, image.sev_firmware):
        assert path is not None
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert measured(kind, image) != before
        path.write_bytes(content)
    with_console = VmImage(
        **{name: getattr(image, name) for name in VmImage.__dataclass_fields__ if name != "cmdline"},
        cmdline="console=ttyS0",
    )
    assert measured(kind, with_console) != before
    assert measured(kind, image) == before


def test_a_trust_domain_has_the_registers_that_a_tenant_computes(image: VmImage) -> None:
    machine = intel.machine("tdx")
    handle = machine.command("launch", dict(launch_arguments("tdx", image)))["guest"]
    tree = machine.guest(amd.number(handle)).tree()
    wanted = Measurements(image).of(Tee.TDX, Machine())
    names = {"mrtd": "mrtd:sha384", "rtmr1": "rtmr1:sha384", "rtmr2": "rtmr2:sha384"}
    for name, file in names.items():
        assert tree.read(f"measurements/{file}") == wanted[name], name


def test_a_secure_machine_of_pef_is_measured_with_its_unpacked_kernel(image: VmImage, tmp_path: Path) -> None:
    setup = Setup(kind="pef", seed=Seed(bytes(32)), vendor=amd.store())
    arguments = {**launch_arguments("pef", image), "esm_blob": b"blob"}
    launched = pef_machine(setup).command("launch", arguments)
    assert launched["measurement"] == Measurements(image).of(Tee.PEF, Machine())["measurement"]


def test_sev_snp_measure_says_the_same(image: VmImage) -> None:
    assert measured("snp", image) == peer.calc_launch_digest(
        SevMode.SEV_SNP,
        1,
        vcpu_types.CPU_SIGS["EPYC-v4"],
        str(image.sev_firmware),
        str(image.kernel),
        str(image.initrd),
        image.cmdline,
        1,
        vmm_type=VMMType.QEMU,
    )


def test_what_cannot_be_measured_is_not_launched(image: VmImage) -> None:
    with pytest.raises(EmulatorError, match="runs no VM keeps"):
        launch_arguments("sgx", image)
    assert image.sev_firmware is not None
    image.sev_firmware.write_bytes(Ovmf(pages=4, hashes=None).build())
    with pytest.raises(EmulatorError, match="would start any kernel"):
        launch_arguments("snp", image)
    image.kernel.unlink()
    with pytest.raises(EmulatorError):
        launch_arguments("sev", image)
