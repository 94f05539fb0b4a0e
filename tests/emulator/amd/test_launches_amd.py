"""Whole launches of virtual machines, as a hypervisor makes them: the firmware measures what two other implementations
say, and what real hardware measured.
"""

from __future__ import annotations

import hashlib
import json

import pytest
from sevsnpmeasure import guest as peer  # type: ignore[import-untyped]
from sevsnpmeasure import vcpu_types
from sevsnpmeasure.sev_mode import SevMode  # type: ignore[import-untyped]
from sevsnpmeasure.vmm_types import VMMType  # type: ignore[import-untyped]
from tests.evidence import Evidence
from tests.forge import amd
from tests.forge.amd import REPORT_DATA, Owner
from tests.forge.firmware import Ovmf
from tests.forge.pki import ec_key

from enarx.attest import Policy
from enarx.attest.measure import (
    CPU_SIGNATURES,
    IdBlock,
    KernelHashes,
    Section,
    SectionKind,
    SevFirmware,
    build_id_auth,
    hash_kernel,
    key_digest,
    pack_key,
    parse_sev_firmware,
    snp_launch_digest,
    vmsa_pages,
)
from enarx.attest.measure import Vmm as Hypervisor
from enarx.attest.snp import VERIFIER
from enarx.attest.snp._launch import VMSA_GPA, PageType
from enarx.attest.snp._report import parse_report
from enarx_emulator.amd.snp_machine import SnpMachine

PAGE = 4096
EPYC = CPU_SIGNATURES["EPYC-v4"]
TYPES = {
    SectionKind.SEC_MEM: PageType.ZERO,
    SectionKind.SVSM_CAA: PageType.ZERO,
    SectionKind.SECRETS: PageType.SECRETS,
    SectionKind.CPUID: PageType.CPUID,
}


def begin(machine: SnpMachine) -> int:
    """A guest to which pages can be added."""
    handle = amd.number(machine.command("gctx_create", {})["guest"])
    machine.command("launch_start", {"guest": handle, "policy": 0x30000})
    machine.command("activate", {"guest": handle, "asid": 1})
    return handle


def add(machine: SnpMachine, handle: int, kind: PageType, gpa: int, data: bytes) -> None:
    """Pages of one type."""
    for at in range(0, len(data), PAGE):
        given = {"guest": handle, "page_type": int(kind), "gpa": gpa + at, "page": data[at : at + PAGE]}
        machine.command("launch_update", given)


def add_sections(machine: SnpMachine, handle: int, firmware: SevFirmware, kernel: KernelHashes) -> None:
    """What the metadata of the firmware asks for, in its order."""
    for section in firmware.sections:
        if section.kind is SectionKind.KERNEL_HASHES:
            assert firmware.kernel_hashes_gpa is not None
            page = kernel.page(firmware.kernel_hashes_gpa - section.gpa)
            add(machine, handle, PageType.NORMAL, section.gpa, page)
        else:
            add(machine, handle, TYPES[section.kind], section.gpa, bytes(section.size))


def test_a_virtual_machine_is_measured_as_two_others_say() -> None:
    image = Ovmf(pages=16).build()
    firmware, kernel = parse_sev_firmware(image), hash_kernel(b"kernel", initrd=b"ramdisk", cmdline="quiet")
    machine = amd.snp("genoa")
    handle = begin(machine)
    add(machine, handle, PageType.NORMAL, firmware.gpa, image)
    add_sections(machine, handle, firmware, kernel)
    for page in vmsa_pages(firmware, Hypervisor.QEMU, vcpus=4, cpu_signature=EPYC, features=1):
        add(machine, handle, PageType.VMSA, VMSA_GPA, page)
    finished = machine.command("launch_finish", {"guest": handle})
    assert finished["measurement"] == snp_launch_digest(firmware, vcpus=4, cpu_signature=EPYC, kernel=kernel)


def test_a_virtual_machine_without_a_kernel_is_measured_as_sev_snp_measure_says(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    image = Ovmf(pages=16, sev=((0x800000, 0x9000, 1), (0x80D000, 0x1000, 2), (0x80E000, 0x1000, 3))).build()
    path = tmp_path_factory.mktemp("firmware") / "ovmf.fd"
    path.write_bytes(image)
    firmware = parse_sev_firmware(image)
    machine = amd.snp()
    handle = begin(machine)
    add(machine, handle, PageType.NORMAL, firmware.gpa, image)
    for section in firmware.sections:
        add(machine, handle, TYPES[section.kind], section.gpa, bytes(section.size))
    for page in vmsa_pages(firmware, Hypervisor.QEMU, vcpus=2, cpu_signature=EPYC, features=1):
        add(machine, handle, PageType.VMSA, VMSA_GPA, page)
    finished = machine.command("launch_finish", {"guest": handle})
    assert finished["measurement"] == peer.calc_launch_digest(
        SevMode.SEV_SNP,
        2,
        vcpu_types.CPU_SIGS["EPYC-v4"],
        str(path),
        None,
        None,
        None,
        1,
        vmm_type=VMMType.QEMU,
    )


@pytest.mark.evidence
def test_a_launch_gives_the_measurement_that_real_hardware_gave() -> None:
    """The image of that guest is known by its digest alone; from there on every page is loaded."""
    sample = Evidence().sample("snp/dstack-v3-with-launch-digest-inputs")
    inputs = json.loads(sample.read("launch_measurement_input"))
    firmware = SevFirmware(
        image=b"",
        gpa=0,
        sections=tuple(
            Section(gpa=one["gpa"], size=one["size"], kind=SectionKind(one["section_type"]))
            for one in inputs["ovmf_sections"]
        ),
        ap_reset=inputs["sev_es_reset_eip"],
        kernel_hashes_gpa=inputs["sev_hashes_table_gpa"],
    )
    kernel = KernelHashes(
        kernel=bytes.fromhex(inputs["kernel_hash"]),
        initrd=bytes.fromhex(inputs["initrd_hash"]),
        cmdline=hashlib.sha256(inputs["base_cmdline"].encode() + b"\0").digest(),
    )
    machine = amd.snp("genoa")
    handle = begin(machine)
    machine.firmware._guest(handle).measurement = bytes.fromhex(inputs["ovmf_hash"])
    add_sections(machine, handle, firmware, kernel)
    signature, features = CPU_SIGNATURES[inputs["vcpu_type"]], inputs["guest_features"]
    for page in vmsa_pages(
        firmware, Hypervisor.QEMU, vcpus=inputs["vcpus"], cpu_signature=signature, features=features
    ):
        add(machine, handle, PageType.VMSA, VMSA_GPA, page)
    finished = machine.command("launch_finish", {"guest": handle})
    assert finished["measurement"] == parse_report(sample.read("report")).measurement


@pytest.mark.parametrize("kind", ["sev", "sev-es"])
def test_a_legacy_virtual_machine_is_measured_as_its_owner_says(kind: str) -> None:
    """Image, kernel hashes, and with SEV-ES two processors, by the firmware's own commands."""
    image = Ovmf(pages=16).build()
    firmware, kernel = parse_sev_firmware(image), hash_kernel(b"kernel", initrd=b"ramdisk", cmdline="quiet")
    vmsas = vmsa_pages(firmware, Hypervisor.QEMU, vcpus=2, cpu_signature=EPYC, features=0)
    measured = image + kernel.table() + (b"".join(vmsas) if kind == "sev-es" else b"")
    machine = amd.sev(kind)
    owner = Owner(machine)
    started = machine.command(
        "launch_start",
        {"policy": owner.policy, "certificate": owner.certificate, "session": owner.session},
    )
    handle = started["guest"]
    machine.command("activate", {"guest": handle, "asid": 1})
    for address, data in ((0, image), (0x100000, kernel.table())):
        machine.command("launch_update_data", {"guest": handle, "address": address, "data": data})
    if kind == "sev-es":
        for page in vmsas:
            machine.command("launch_update_vmsa", {"guest": handle, "vmsa": page})
    blob = machine.command("launch_measure", {"guest": handle})["measure"]
    said = {**machine.command("info", {}), "measure": blob}
    assert owner.verify(said, digest=hashlib.sha256(measured).digest()).measurement


POLICY = """
version = 1
[snp]
measurement = ["{measurement}"]
vendor_root = "any"
id_key_digest = ["{id_key}"]
author_key_digest = ["{author_key}"]
guest_svn = 3
host_data = ["{host_data}"]
min_report_version = 5
current_mitigations = [0, 1]
"""


def test_an_owners_identity_is_appraised() -> None:
    """ID block, author key, host data: what the firmware checked at launch, a policy asks for."""
    image = b"an image of an owner"
    chain = amd.snp("genoa").command("launch", {"image": image})
    block = IdBlock(launch_digest=amd.octets(chain["measurement"]), guest_svn=3, policy=0x30000)
    keys = ec_key("id key"), ec_key("author key")
    machine = amd.snp("genoa")
    launched = machine.command(
        "launch",
        {
            "image": image,
            "id_block": block.pack(),
            "id_auth": build_id_auth(block, *keys),
            "auth_key_en": True,
            "host_data": b"h" * 32,
        },
    )
    digests = [key_digest(pack_key(key.public_key())).hex() for key in keys]
    policy = Policy.parse(
        POLICY.format(
            measurement=block.launch_digest.hex(),
            id_key=digests[0],
            author_key=digests[1],
            host_data=(b"h" * 32).hex(),
        ),
        [VERIFIER],
    )
    report, _ = amd.report(machine, amd.number(launched["guest"]), REPORT_DATA)
    claims = amd.judge(report, amd.collateral(machine), amd.anchors(machine), policy=policy)
    assert (claims.policy_digest, claims.signer) == (policy.digest, bytes.fromhex(digests[0]))
