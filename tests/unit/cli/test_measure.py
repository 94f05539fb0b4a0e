"""``enarx measure``: the library's values for files, options as sev-snp-measure has them, errors that name the file."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.evidence import Evidence
from tests.forge.eventlog import Entry, cc_log, event_log
from tests.forge.firmware import SEV_SECTIONS, Ovmf
from tests.forge.kernel import bz_image

from enarx.attest.measure import (
    CPU_SIGNATURES,
    Algorithm,
    Vmm,
    expected_pcrs,
    hash_kernel,
    kernel_rtmr1,
    mrtd,
    parse_id_block,
    parse_sev_firmware,
    parse_td_firmware,
    rtmr0,
    rtmr2,
    sev_es_launch_digest,
    sev_launch_digest,
    snp_firmware_digest,
    snp_launch_digest,
    snp_svsm_launch_digest,
    verify_id_auth,
)
from enarx.cli._exit import ExitCode
from enarx.cli._main import main

OVMF = Ovmf().build()
KERNEL = bz_image()
FIRMWARE = parse_sev_firmware(OVMF)
EPYC = CPU_SIGNATURES["EPYC-v4"]
MILAN = CPU_SIGNATURES["EPYC-Milan"]
GIB = 1 << 30
Measure = Callable[..., str]


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, data in (("ovmf", OVMF), ("vmlinuz", KERNEL), ("initrd", b"ramdisk"), ("text", b"text")):
        Path(name).write_bytes(data)


@pytest.fixture
def measure(capsys: pytest.CaptureFixture[str]) -> Measure:
    """Run a command that must succeed; give what it printed."""

    def run(*arguments: str) -> str:
        assert main(["measure", *arguments]) == ExitCode.DONE, capsys.readouterr().err
        return capsys.readouterr().out.removesuffix("\n")

    return run


BOOT = ("--kernel", "vmlinuz", "--initrd", "initrd", "--append", "quiet")
HASHES = hash_kernel(KERNEL, initrd=b"ramdisk", cmdline="quiet")
SNP = ("snp", "--ovmf", "ovmf", "--vcpus", "2")


def test_snp(measure: Measure) -> None:
    digest = snp_launch_digest(FIRMWARE, vcpus=2, cpu_signature=EPYC)
    assert measure(*SNP, "--vcpu-type", "EPYC-v4") == digest.hex()
    assert measure(*SNP, "--vcpu-sig", hex(EPYC)) == digest.hex()
    assert (
        measure(*SNP, "--vcpu-type", "EPYC", "--output-format", "base64") == base64.b64encode(digest).decode()
    )
    milan = measure(*SNP, "--vcpu-family", "25", "--vcpu-model", "1", "--vcpu-stepping", "1")
    assert milan == snp_launch_digest(FIRMWARE, vcpus=2, cpu_signature=MILAN).hex()
    assert measure(*SNP, "--vcpu-type", "EPYC", "--guest-features", "0x21", *BOOT) == snp_launch_digest(
        FIRMWARE, vcpus=2, cpu_signature=EPYC, features=0x21, kernel=HASHES
    ).hex()  # fmt: skip


@pytest.mark.parametrize(
    ("name", "vmm"), [("ec2", Vmm.EC2), ("EC2-legacy", Vmm.EC2_LEGACY), ("gce", Vmm.GCE)]
)
def test_clouds_need_no_processor(measure: Measure, name: str, vmm: Vmm) -> None:
    expected = snp_launch_digest(FIRMWARE, vcpus=2, cpu_signature=0, vmm=vmm)
    assert measure(*SNP, "--vmm-type", name) == expected.hex()


def test_snp_from_a_firmware_digest(measure: Measure) -> None:
    digest = measure("snp-ovmf", "--ovmf", "ovmf")
    assert digest == snp_firmware_digest(FIRMWARE).hex()
    whole = measure(*SNP, "--vcpu-type", "EPYC")
    assert measure(*SNP, "--vcpu-type", "EPYC", "--snp-ovmf-hash", digest) == whole
    assert measure(*SNP, "--vcpu-type", "EPYC", "--snp-ovmf-hash", "00" * 48) != whole


def test_snp_with_an_svsm(measure: Measure) -> None:
    image = Ovmf(pages=3, svsm=0x10, hashes=None, sev=SEV_SECTIONS[:5]).build()
    Path("svsm").write_bytes(image)
    Path("vars").write_bytes(bytes(0x3000))
    svsm = parse_sev_firmware(image, end=FIRMWARE.gpa - 0x3000)
    expected = snp_svsm_launch_digest(FIRMWARE, svsm, vcpus=2, cpu_signature=EPYC).hex()
    common = (*SNP, "--vcpu-type", "EPYC", "--svsm", "svsm")
    assert measure(*common, "--vars-size", "12K") == expected == measure(*common, "--vars-file", "vars")


def test_sev_and_sev_es(measure: Measure) -> None:
    assert measure("sev", "--ovmf", "ovmf") == sev_launch_digest(FIRMWARE).hex()
    assert measure("sev", "--ovmf", "ovmf", *BOOT) == sev_launch_digest(FIRMWARE, kernel=HASHES).hex()
    es = sev_es_launch_digest(FIRMWARE, vcpus=3, cpu_signature=EPYC, kernel=HASHES)
    assert measure("sev-es", "--ovmf", "ovmf", "--vcpus", "3", "--vcpu-type", "EPYC", *BOOT) == es.hex()


def test_tdx(measure: Measure) -> None:
    firmware = parse_td_firmware(OVMF)
    assert measure("tdx", "--ovmf", "ovmf") == mrtd(firmware).hex()
    acpi = "ab" * 48
    options = ("--memory", "1G", "--patched-kernel", "--acpi", acpi, "--page-order", "per-section")
    lines = dict(line.split() for line in measure("tdx", "--ovmf", "ovmf", *BOOT, *options).splitlines())
    assert lines["rtmr0"] == rtmr0(firmware, memory_bytes=GIB, acpi=[bytes.fromhex(acpi)]).hex()
    expected = kernel_rtmr1(KERNEL, patched_for=GIB, initrd=b"ramdisk", cmdline="quiet")
    assert lines["rtmr1"] == expected.hex()
    assert lines["rtmr2"] == rtmr2(cmdline="quiet", initrd=b"ramdisk").hex()
    assert lines["mrtd"] != mrtd(firmware).hex()


def test_tpm(measure: Measure) -> None:
    pcrs = expected_pcrs(KERNEL, initrd=b"ramdisk", cmdline="quiet", algorithm=Algorithm.SHA384)
    document = json.loads(measure("tpm", *BOOT, "--algorithm", "sha384", "--json"))
    assert document["schema"] == "enarx.measurement/1"
    assert document["tee"] == "tpm"
    assert document["measurements"] == {f"pcr{index}": value.hex() for index, value in pcrs.items()}
    assert {name: entry["path"] for name, entry in document["inputs"].items()} == {
        "kernel": "vmlinuz",
        "initrd": "initrd",
    }
    assert measure("tpm", *BOOT, "--memory", "512M", "--patched-kernel") != measure("tpm", *BOOT)


def test_an_event_log(measure: Measure) -> None:
    Path("log").write_bytes(event_log([Entry(index=4, kind=4, data=bytes(4))]))
    assert measure("event-log", "log") == "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969"
    Path("ccel").write_bytes(cc_log([Entry(index=i, kind=4, data=bytes(4)) for i in (1, 2)]))
    assert [line.split()[0] for line in measure("event-log", "--cc", "ccel").splitlines()] == [
        "rtmr0",
        "rtmr1",
    ]


def test_an_id_block(measure: Measure) -> None:
    key = ec.derive_private_key(7, ec.SECP384R1())
    Path("id.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    document = json.loads(
        measure(
            "id-block", "--measurement", "ab" * 48, "--id-key", "id.pem", "--author-key", "id.pem", "--json"
        )
    )
    block, auth = (base64.b64decode(document[name]) for name in ("id-block", "id-auth"))
    assert parse_id_block(block).launch_digest == b"\xab" * 48
    assert verify_id_auth(block, auth).id_key_digest.hex() == document["id_key_digest"]


@pytest.mark.evidence
def test_an_enclave(measure: Measure, capsys: pytest.CaptureFixture[str]) -> None:
    sample = Evidence().sample("measurement/sgx-enarx-encl")
    Path("encl").write_bytes(sample.read("image"))
    Path("sig").write_bytes(sample.read("sigstruct"))
    assert measure("sgx", "--image", "encl") == sample.expected["mrenclave"]
    lines = dict(
        line.split() for line in measure("sgx", "--image", "encl", "--sigstruct", "sig").splitlines()
    )
    assert lines == {name: sample.expected[name] for name in ("mrenclave", "mrsigner")}
    assert (
        main(["measure", "sgx", "--image", "encl", "--size", "64K", "--sigstruct", "sig"]) == ExitCode.REFUSED
    )
    assert "sig: sigstruct: enclave hash is b999" in capsys.readouterr().err


TYPE = ("--vcpu-type", "EPYC")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["snp", "--ovmf", "text", "--vcpus", "1", *TYPE], ExitCode.MALFORMED, "text: firmware: size 0x4"),
        ([*SNP], ExitCode.USAGE, "--vcpu-type, --vcpu-sig or --vcpu-family is needed"),
        ([*SNP, *TYPE, "--vcpu-sig", "1"], ExitCode.USAGE, "exclude each other"),
        ([*SNP, "--vcpu-family", "25"], ExitCode.USAGE, "go together"),
        ([*SNP, *TYPE, "--initrd", "initrd"], ExitCode.USAGE, "go with --kernel"),
        ([*SNP, *TYPE, "--guest-features", "x"], ExitCode.USAGE, 'such as 33 or 0x21, found "x"'),
        (
            [*SNP, *TYPE, "--guest-features", "0x20"],
            ExitCode.REFUSED,
            "ovmf: guest features 0x20 lack SNPActive",
        ),
        ([*SNP, *TYPE, "--snp-ovmf-hash", "xy"], ExitCode.USAGE, "hexadecimal"),
        ([*SNP, *TYPE, "--snp-ovmf-hash", "00"], ExitCode.REFUSED, "seed has 1 bytes"),
        ([*SNP, *TYPE, "--vars-size", "1K"], ExitCode.USAGE, "go with --svsm"),
        ([*SNP, *TYPE, "--svsm", "ovmf"], ExitCode.USAGE, "needs one of --vars-size"),
        ([*SNP, *TYPE, "--svsm", "ovmf", *BOOT], ExitCode.USAGE, "goes with none of"),
        (["snp", "--ovmf", "nothing", "--vcpus", "1"], ExitCode.USAGE, "'nothing' does not exist"),
        (["tdx", "--ovmf", "ovmf", "--acpi", "00"], ExitCode.USAGE, "needs --memory"),
        (["tdx", "--ovmf", "ovmf", *BOOT, "--patched-kernel"], ExitCode.USAGE, "needs --memory"),
        (["tpm"], ExitCode.USAGE, "--kernel is needed"),
        (["tpm", "--kernel", "text"], ExitCode.MALFORMED, "text: pe image: does not begin with MZ"),
        (["tpm", *BOOT, "--memory", "1X"], ExitCode.USAGE, 'such as 512M or 2G, found "1X"'),
        (["sgx"], ExitCode.USAGE, "is needed"),
        (["sgx", "--sgxs", "text", "--image", "text"], ExitCode.USAGE, "exclude each other"),
        (["sgx", "--sgxs", "text"], ExitCode.MALFORMED, "text: sgxs: no ECREATE"),
        (["sgx", "--image", "text"], ExitCode.REFUSED, "text: enclave image of 0x4 bytes"),
        (["event-log", "text"], ExitCode.MALFORMED, "text: event log"),
        (
            ["id-block", "--measurement", "00", "--id-key", "text"],
            ExitCode.MALFORMED,
            "text: private key: no PEM",
        ),
    ],
)
def test_what_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: ExitCode, message: str
) -> None:
    assert main(["measure", *arguments]) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
