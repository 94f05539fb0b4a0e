"""SEV-SNP launch digests: known ones, a peer's, and what no platform would start."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from sevsnpmeasure import guest, vcpu_types  # type: ignore[import-untyped]
from sevsnpmeasure.sev_mode import SevMode  # type: ignore[import-untyped]
from sevsnpmeasure.vmm_types import VMMType  # type: ignore[import-untyped]
from tests.evidence import FOLDER, Evidence, samples
from tests.forge.firmware import SEV_SECTIONS, Ovmf

from enarx.attest.measure import (
    CPU_SIGNATURES,
    KernelHashes,
    Section,
    SectionKind,
    SevFirmware,
    Unmeasurable,
    Vmm,
    hash_kernel,
    parse_sev_firmware,
    sev_es_launch_digest,
    sev_launch_digest,
    snp_firmware_digest,
    snp_launch_digest,
    snp_svsm_launch_digest,
)
from enarx.attest.snp._launch import PageChain

EPYC = CPU_SIGNATURES["EPYC-v4"]
VECTORS: list[dict[str, Any]] = (
    json.loads((FOLDER / "measurement/sev/launch_digest_vectors.json").read_text())["vectors"]
    if FOLDER.is_dir()
    else []
)
PEER_VMM = {Vmm.QEMU: VMMType.QEMU, Vmm.EC2: VMMType.ec2, Vmm.GCE: VMMType.gce}


def measured(vector: dict[str, Any]) -> bytes:
    """What we compute for a vector."""
    firmware = parse_sev_firmware((FOLDER / vector["ovmf"]["path"]).read_bytes())
    kernel = None
    if vector["kernel"] is not None:
        assert vector["kernel"] == {"content": "empty"}
        assert vector["initrd"] in (None, {"content": "empty"})
        kernel = hash_kernel(b"", cmdline=vector["cmdline"] or "")
    vcpus, cpu = vector["vcpus"], vector["vcpu_sig"] or 0
    match vector["mode"]:
        case "SEV":
            return sev_launch_digest(firmware, kernel=kernel)
        case "SEV_ES":
            return sev_es_launch_digest(firmware, vcpus=vcpus, cpu_signature=cpu, kernel=kernel)
        case _:
            return snp_launch_digest(
                firmware,
                vcpus=vcpus,
                cpu_signature=cpu,
                vmm=Vmm(vector["vmm"].lower()),
                features=vector["guest_features"],
                kernel=kernel,
                firmware_digest=bytes.fromhex(vector["ovmf_hash"]) if vector["ovmf_hash"] else None,
            )


@pytest.mark.evidence
@pytest.mark.parametrize("vector", VECTORS, ids=[vector["test"] for vector in VECTORS])
def test_a_published_vector(vector: dict[str, Any]) -> None:
    if "error" in vector:
        with pytest.raises(Unmeasurable, match="no place for kernel hashes"):
            measured(vector)
    else:
        assert measured(vector).hex() == vector["launch_digest"]


@pytest.mark.evidence
def test_there_are_as_many_vectors_as_the_manifest_says() -> None:
    (sample,) = samples("measurement", "launch-digest-vectors")
    assert len(VECTORS) == sample.expected["n_vectors"]


@pytest.mark.evidence
def test_the_measurement_in_a_report_of_real_hardware() -> None:
    sample = Evidence().sample("snp/dstack-v3-with-launch-digest-inputs")
    inputs = json.loads(sample.read("launch_measurement_input"))
    firmware = SevFirmware(
        image=b"",
        gpa=0,
        sections=tuple(
            Section(gpa=it["gpa"], size=it["size"], kind=SectionKind(it["section_type"]))
            for it in inputs["ovmf_sections"]
        ),
        ap_reset=inputs["sev_es_reset_eip"],
        kernel_hashes_gpa=inputs["sev_hashes_table_gpa"],
    )
    kernel = KernelHashes(
        kernel=bytes.fromhex(inputs["kernel_hash"]),
        initrd=bytes.fromhex(inputs["initrd_hash"]),
        cmdline=hashlib.sha256(inputs["base_cmdline"].encode() + b"\0").digest(),
    )
    digest = snp_launch_digest(
        firmware,
        vcpus=inputs["vcpus"],
        cpu_signature=CPU_SIGNATURES[inputs["vcpu_type"]],
        features=inputs["guest_features"],
        kernel=kernel,
        firmware_digest=bytes.fromhex(inputs["ovmf_hash"]),
    )
    assert digest.hex() == sample.expected["fields"]["measurement"]


@pytest.mark.evidence
def test_ec2_of_before_2025_as_another_implementation_has_it() -> None:
    firmware = parse_sev_firmware(Evidence().read("measurement/sev/ovmf_AmdSev_suffix.bin"))
    kernel = hash_kernel(b"")
    digest = snp_launch_digest(firmware, vcpus=1, cpu_signature=0, vmm=Vmm.EC2_LEGACY, kernel=kernel)
    assert digest.hex().startswith("7d3756")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """An image, a kernel and an initrd for the peer, which reads files."""
    contents = {"ovmf": Ovmf(pages=6).build(), "kernel": b"kernel" * 99, "initrd": b"initrd" * 77}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return {name: str(tmp_path / name) for name in contents}


def peer(
    mode: SevMode,
    files: dict[str, str],
    *,
    vcpus: int = 1,
    cpu: int = EPYC,
    boot: tuple[bool, bool, str] = (False, False, ""),
    features: int = 1,
    vmm: Vmm = Vmm.QEMU,
    ovmf_hash: str = "",
) -> bytes:
    """What sev-snp-measure computes."""
    kernel, initrd, append = boot
    digest: bytes = guest.calc_launch_digest(
        mode,
        vcpus,
        cpu,
        files["ovmf"],
        files["kernel"] if kernel else "",
        files["initrd"] if initrd else "",
        append,
        features,
        ovmf_hash,
        vmm_type=PEER_VMM[vmm],
    )
    return digest


BOOTS = (
    (False, False, ""),
    (True, False, ""),
    (True, True, ""),
    (True, False, "quiet a=b"),
    (True, True, "x"),
)


def hashes_of(files: dict[str, str], boot: tuple[bool, bool, str]) -> KernelHashes | None:
    """The same for us."""
    kernel, initrd, append = boot
    if not kernel:
        return None
    ramdisk = Path(files["initrd"]).read_bytes() if initrd else b""
    return hash_kernel(Path(files["kernel"]).read_bytes(), initrd=ramdisk, cmdline=append)


@pytest.mark.parametrize("boot", BOOTS)
@pytest.mark.parametrize("vcpus", [1, 2, 17])
def test_sev_snp_measure_agrees(files: dict[str, str], boot: tuple[bool, bool, str], vcpus: int) -> None:
    firmware = parse_sev_firmware(Path(files["ovmf"]).read_bytes())
    kernel = hashes_of(files, boot)
    for vmm, features in itertools.product(PEER_VMM, (0x1, 0x21, 0xFFFFFFFFFFFFFFFF)):
        assert snp_launch_digest(
            firmware, vcpus=vcpus, cpu_signature=EPYC, vmm=vmm, features=features, kernel=kernel
        ) == peer(SevMode.SEV_SNP, files, vcpus=vcpus, boot=boot, features=features, vmm=vmm)
        assert sev_es_launch_digest(
            firmware, vcpus=vcpus, cpu_signature=EPYC, vmm=vmm, kernel=kernel
        ) == peer(SevMode.SEV_ES, files, vcpus=vcpus, boot=boot, vmm=vmm)
    assert sev_launch_digest(firmware, kernel=kernel) == peer(SevMode.SEV, files, boot=boot)


@pytest.mark.parametrize("kind", vcpu_types.CPU_SIGS)
def test_sev_snp_measure_agrees_on_a_processor(files: dict[str, str], kind: str) -> None:
    firmware = parse_sev_firmware(Path(files["ovmf"]).read_bytes())
    expected = peer(SevMode.SEV_SNP, files, cpu=vcpu_types.CPU_SIGS[kind])
    assert snp_launch_digest(firmware, vcpus=1, cpu_signature=CPU_SIGNATURES[kind]) == expected


def test_sev_snp_measure_agrees_on_the_firmware_digest_and_goes_on_from_it(files: dict[str, str]) -> None:
    firmware = parse_sev_firmware(Path(files["ovmf"]).read_bytes())
    digest = snp_firmware_digest(firmware)
    assert digest == guest.calc_snp_ovmf_hash(files["ovmf"])
    partial = snp_launch_digest(firmware, vcpus=2, cpu_signature=EPYC, firmware_digest=digest)
    assert partial == snp_launch_digest(firmware, vcpus=2, cpu_signature=EPYC)
    assert partial == peer(SevMode.SEV_SNP, files, vcpus=2, ovmf_hash=digest.hex())


@pytest.mark.parametrize("vcpus", [1, 4])
def test_sev_snp_measure_agrees_on_an_svsm(files: dict[str, str], tmp_path: Path, vcpus: int) -> None:
    image = Ovmf(
        pages=3, seed=9, svsm=0x1230, hashes=None, reset=None, tdx=None, sev=SEV_SECTIONS[:5]
    ).build()
    (tmp_path / "svsm").write_bytes(image)
    expected = guest.calc_launch_digest(
        SevMode.SEV_SNP_SVSM, vcpus, EPYC, files["ovmf"], "", "", "", 1, svsm_file=str(tmp_path / "svsm"),
        ovmf_vars_size=0x84000,
    )  # fmt: skip
    firmware = parse_sev_firmware(Path(files["ovmf"]).read_bytes())
    svsm = parse_sev_firmware(image, end=firmware.gpa - 0x84000)
    assert snp_svsm_launch_digest(firmware, svsm, vcpus=vcpus, cpu_signature=EPYC) == expected


def test_blank_pages_count_by_their_contents() -> None:
    chains = []
    for page in (bytes(4096), b"\xff" * 4096, b"\x01" + bytes(4095)):
        chain = PageChain()
        chain.normal(0x1000, page)
        info = (
            bytes(48)
            + hashlib.sha384(page).digest()
            + bytes.fromhex("7000010000000000")
            + (0x1000).to_bytes(8, "little")
        )
        assert chain.digest == hashlib.sha384(info).digest()
        chains.append(chain.digest)
    assert len(set(chains)) == len(chains)


@pytest.mark.parametrize(
    ("ovmf", "message"),
    [
        (Ovmf(sev=None), "lists no secrets page"),
        (Ovmf(sev=[s for s in SEV_SECTIONS if s[2] != 3]), "lists no cpuid page"),
        (Ovmf(hashes=None), "no place for kernel hashes"),
        (Ovmf(hashes=(0, 0)), "no place for kernel hashes"),
        (Ovmf(sev=SEV_SECTIONS[:5]), "no place for kernel hashes"),
        (Ovmf(hashes=(0x812000, 0x400)), "are not in the page at 0x810000"),
        (Ovmf(hashes=(0x810FFF, 0x400)), "does not fit into the page"),
    ],
)
def test_firmware_that_no_snp_guest_with_a_measured_kernel_starts_from(ovmf: Ovmf, message: str) -> None:
    firmware = parse_sev_firmware(ovmf.build())
    with pytest.raises(Unmeasurable, match=message):
        snp_launch_digest(firmware, vcpus=1, cpu_signature=EPYC, kernel=hash_kernel(b"kernel"))


def test_other_impossible_launches() -> None:
    firmware = parse_sev_firmware(Ovmf().build())
    with pytest.raises(Unmeasurable, match="vcpus is 0"):
        snp_launch_digest(firmware, vcpus=0, cpu_signature=EPYC)
    with pytest.raises(Unmeasurable, match="vcpus is 5000"):
        sev_es_launch_digest(firmware, vcpus=5000, cpu_signature=EPYC)
    with pytest.raises(Unmeasurable, match="lack SNPActive"):
        snp_launch_digest(firmware, vcpus=1, cpu_signature=EPYC, features=0x20)
    with pytest.raises(Unmeasurable, match="does not fit into 64 bits"):
        snp_launch_digest(firmware, vcpus=1, cpu_signature=EPYC, features=1 << 64 | 1)
    with pytest.raises(Unmeasurable, match="seed has 47 bytes"):
        snp_launch_digest(firmware, vcpus=1, cpu_signature=EPYC, firmware_digest=bytes(47))
    with pytest.raises(Unmeasurable, match="no svsm info entry"):
        snp_svsm_launch_digest(firmware, parse_sev_firmware(Ovmf().build()), vcpus=1, cpu_signature=EPYC)
    single = parse_sev_firmware(Ovmf(reset=None).build())
    assert snp_launch_digest(single, vcpus=1, cpu_signature=EPYC)
    with pytest.raises(Unmeasurable, match="no sev-es reset block"):
        snp_launch_digest(single, vcpus=2, cpu_signature=EPYC)
    without_image = SevFirmware(image=b"", gpa=0, sections=firmware.sections)
    with pytest.raises(Unmeasurable, match="image"):
        snp_launch_digest(without_image, vcpus=1, cpu_signature=EPYC)
    with pytest.raises(Unmeasurable, match="image itself"):
        sev_launch_digest(without_image)
    with pytest.raises(Unmeasurable, match="holds a NUL"):
        hash_kernel(b"", cmdline="a\0b")
