"""Reports of emulated machines through ``enarx.attest``: accepted under the emulated root, and under no other."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest
from sevsnpmeasure import gctx  # type: ignore[import-untyped]
from tests.evidence import Sample, samples
from tests.forge import amd
from tests.forge.amd import REPORT_DATA, Randomness

from enarx.attest import Collateral, EvidenceRejected, Revocation, TrustAnchors
from enarx.attest.snp import SnpDetail
from enarx.attest.snp._certs import read_endorsement
from enarx.attest.snp._launch import PageChain, PageType
from enarx.attest.snp._report import Line, SigningKey, parse_report, report_fields
from enarx.attest.x509 import parse_certificate
from enarx.cli._main import main
from enarx_emulator.amd.chip import PRODUCTS, Chip, product
from enarx_emulator.amd.guest import GuestDriver
from enarx_emulator.amd.snp import SnpFirmware
from enarx_emulator.amd.snp_machine import IMAGE_GPA

LINES = {"milan": Line.MILAN, "genoa": Line.GENOA, "turin": Line.TURIN}


def firmware(name: str = "milan", version: int | None = None) -> SnpFirmware:
    """A secure processor without a machine around it."""
    fuses = amd.vendor().manufacture(product(name), amd.setup("snp").seed)
    made = SnpFirmware(Chip(fuses), random=Randomness(), report_version=version)
    made.init()
    return made


def running(made: SnpFirmware, pages: bytes = bytes(4096)) -> int:
    """A guest with some pages."""
    handle = made.gctx_create()
    made.launch_start(handle, 0x30000)
    made.activate(handle, made.free_asid())
    for at in range(0, len(pages), 4096):
        made.launch_update(handle, PageType.NORMAL, at, pages[at : at + 4096])
    made.launch_finish(handle)
    return handle


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("provider", [False, True], ids=["vcek", "vlek"])
def test_a_report_is_accepted_under_the_emulated_root(name: str, provider: bool) -> None:
    machine = amd.snp(name)
    if provider:
        machine.command("vlek_load", {})
    report, table = amd.report(machine, amd.launched(machine))
    claims = amd.judge(report + table, amd.collateral(machine), amd.anchors(machine))
    detail = claims.detail
    assert isinstance(detail, SnpDetail)
    assert (detail.line, claims.bound, claims.debug) == (LINES[name], True, False)
    assert detail.signing_key is (SigningKey.VLEK if provider else SigningKey.VCEK)
    assert detail.csp_id == ("CN=EMULATED" if provider else None)
    assert claims.revocation is Revocation.CHECKED
    assert (claims.root.name, claims.root.is_vendor) == ("emulated", False)
    assert claims.measurement == machine.firmware.running(1).measurement


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_vendors_roots_reject_it(name: str) -> None:
    """A12, A19: the names are AMD's, the key is not."""
    machine = amd.snp(name)
    report, table = amd.report(machine, amd.launched(machine))
    with pytest.raises(EvidenceRejected) as refused:
        amd.judge(report + table, amd.collateral(machine), TrustAnchors.vendor())
    assert refused.value.check.name == "snp.chain.root"


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_certificate_table_of_the_host_is_enough(name: str) -> None:
    machine = amd.snp(name)
    report, table = amd.report(machine, amd.launched(machine))
    claims = amd.judge(report + table, Collateral.none(), amd.anchors(machine))
    assert claims.revocation is Revocation.MISSING


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("name", PRODUCTS)
def test_every_version_of_the_report_is_accepted(name: str, version: int) -> None:
    made = firmware(name, version)
    handle = running(made)
    driver = GuestDriver(firmware=made, handle=handle, key=made.running(handle).vmpcks[0])
    report = driver.report(REPORT_DATA)
    machine = amd.snp(name)
    vendor, chip = amd.vendor(), made.chip
    given = (vendor.vcek(chip.fuses, chip.reported), *vendor.chain(chip.product.line))
    claims = amd.judge(report, Collateral(certificates=given), amd.anchors(machine))
    detail = claims.detail
    assert isinstance(detail, SnpDetail)
    assert detail.report.version == version
    assert (detail.report.cpuid is None) == (version == 2)
    assert (detail.report.launch_mit_vector is None) == (version < 5)


REAL = samples("snp", "snp-report")


@pytest.mark.evidence
@pytest.mark.parametrize("sample", REAL, ids=lambda sample: sample.id)
def test_reports_have_the_fields_of_real_ones(sample: Sample) -> None:
    real = parse_report(sample.read("report"))
    line = Line(sample.expected["product_line"])
    made = firmware(line.value.lower(), real.version)
    handle = running(made)
    driver = GuestDriver(firmware=made, handle=handle, key=made.running(handle).vmpcks[0])
    emulated = parse_report(driver.report(REPORT_DATA))
    assert report_fields(emulated).keys() == report_fields(real).keys()
    assert [len(value) for value in report_fields(emulated).values() if isinstance(value, bytes)] == [
        len(value) for value in report_fields(real).values() if isinstance(value, bytes)
    ]


@pytest.mark.evidence
@pytest.mark.parametrize("sample", samples("snp", "snp-report", "cert-chain"), ids=lambda sample: sample.id)
def test_certificates_have_the_extensions_of_real_ones(sample: Sample) -> None:
    """All that AMD has, encoded alike, and a comment that says EMULATED."""
    real = parse_certificate(sample.read("endorsement_cert"))
    endorsement = read_endorsement(real)
    assert endorsement is not None
    machine = amd.snp(endorsement.line.value.lower())
    if endorsement.kind is SigningKey.VLEK:
        machine.command("vlek_load", {})
    emulated = parse_certificate(machine.endorsement()[1])
    comment = "2.16.840.1.113730.1.13"
    assert emulated.extensions.keys() - {comment} == real.extensions.keys()
    assert b"EMULATED" in emulated.extensions[comment].value
    assert {oid: one.critical for oid, one in real.extensions.items()} == {
        oid: one.critical for oid, one in emulated.extensions.items() if oid != comment
    }
    tags = {oid: one.value[0] for oid, one in real.extensions.items() if not oid.endswith(".4")}
    assert tags == {oid: emulated.extensions[oid].value[0] for oid in tags}
    assert (emulated.subject, emulated.issuer) == (real.subject, real.issuer)


@pytest.mark.evidence
@pytest.mark.parametrize("sample", REAL, ids=lambda sample: sample.id)
def test_inspect_shows_an_emulated_report_and_a_real_one_alike(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = sample.expected["product_line"].lower()
    made = firmware(line, parse_report(sample.read("report")).version)
    handle = running(made)
    driver = GuestDriver(firmware=made, handle=handle, key=made.running(handle).vmpcks[0])
    shown = []
    for name, report in (("real", sample.read("report")), ("emulated", driver.report(REPORT_DATA))):
        (tmp_path / name).write_bytes(report)
        assert main(["inspect", "--json", str(tmp_path / name)]) == 0
        shown.append(_names(json.loads(capsys.readouterr().out)))
    assert shown[0] == shown[1] != set()


def _names(value: object, path: str = "") -> set[str]:
    """Every path in a document."""
    match value:
        case dict():
            return {name for key, one in value.items() for name in _names(one, f"{path}.{key}")}
        case list():
            return {name for one in value for name in _names(one, f"{path}[]")}
    return {path}


def test_the_launch_digest_is_that_of_sev_snp_measure() -> None:
    """Every page type, in an order that no hypervisor uses, against another implementation."""
    normal, vmsa = hashlib.shake_128(b"pages").digest(3 * 4096), hashlib.shake_128(b"vmsa").digest(0x2F0)
    vmsa = vmsa.ljust(4096, b"\0")
    made, other = firmware(), gctx.GCTX()
    handle = made.gctx_create()
    made.launch_start(handle, 0x30000)
    made.activate(handle, 1)
    for at in range(3):
        made.launch_update(handle, PageType.NORMAL, 0x1000 * at, normal[4096 * at : 4096 * (at + 1)])
    other.update_normal_pages(0, normal)
    made.launch_update(handle, PageType.SECRETS, 0x80D000, bytes(4096))
    other.update_secrets_page(0x80D000)
    made.launch_update(handle, PageType.CPUID, 0x80E000, bytes(4096))
    other.update_cpuid_page(0x80E000)
    for at in range(0x800000, 0x804000, 4096):
        made.launch_update(handle, PageType.ZERO, at, b"\xff" * 4096)
    other.update_zero_pages(0x800000, 0x4000)
    made.launch_update(handle, PageType.UNMEASURED, 0x900000, normal[:4096])
    other._update(0x04, 0x900000, gctx.ZEROS)
    made.launch_update(handle, PageType.VMSA, other.VMSA_GPA, vmsa)
    other.update_vmsa_page(vmsa)
    made.launch_finish(handle)
    assert made.running(handle).measurement == other.ld()


def test_a_large_page_is_measured_as_its_small_ones() -> None:
    large = hashlib.shake_128(b"large").digest(2 * 1024 * 1024)
    digests = []
    for size in (4096, len(large)):
        made = firmware()
        handle = made.gctx_create()
        made.launch_start(handle, 0x30000)
        made.activate(handle, 1)
        for at in range(0, len(large), size):
            made.launch_update(handle, PageType.NORMAL, 0x200000 + at, large[at : at + size])
        made.launch_finish(handle)
        digests.append(made.running(handle).measurement)
    assert digests[0] == digests[1]


def test_the_measurement_of_a_process_keep_is_what_a_tenant_computes() -> None:
    image = hashlib.shake_128(b"keep").digest(3 * 1024 * 1024 + 17)
    machine = amd.snp()
    launched = machine.command("launch", {"image": image})
    chain = PageChain()
    chain.normal(IMAGE_GPA, image.ljust(-(-len(image) // 4096) * 4096, b"\0"))
    assert launched["measurement"] == chain.digest


def test_a_report_takes_less_than_ten_milliseconds() -> None:
    machine = amd.snp()
    handle = amd.launched(machine)
    amd.report(machine, handle)
    times = []
    for at in range(20):
        begin = time.perf_counter()
        amd.report(machine, handle, bytes((at,)) * 64)
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.010


def test_a_hundred_guests_have_reports_of_their_own() -> None:
    machine = amd.snp()
    handles = [
        amd.number(machine.command("launch", {"image": bytes((number,)) * 64})["guest"])
        for number in range(100)
    ]
    parsed = [parse_report(amd.report(machine, handle)[0]) for handle in handles]
    assert len({one.measurement for one in parsed}) == len({one.report_id for one in parsed}) == 100
    for handle in handles:
        machine.command("stop", {"guest": handle})
    assert machine.command("platform_status", {})["guest_count"] == 0


def test_the_certificate_of_another_machine_does_not_fit() -> None:
    """A13: another seed is another chip."""
    machine, other = amd.snp(), amd.snp(seed=b"another machine of tests")
    report, _ = amd.report(other, amd.launched(other))
    with pytest.raises(EvidenceRejected) as refused:
        amd.judge(report, amd.collateral(machine), amd.anchors(machine))
    assert refused.value.check.name == "snp.signature"
