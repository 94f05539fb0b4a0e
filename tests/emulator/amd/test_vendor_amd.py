"""AMD as a vendor: what its key service answers, withdrawn authorities, and that everything says EMULATED."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from tests.evidence import Evidence
from tests.forge import amd
from tests.forge.pki import NOW

from enarx.attest import Collateral, EvidenceRejected, Revocation
from enarx.attest.chain import parse_revocation_list
from enarx.attest.sev import parse_amd_certificate, parse_certificate
from enarx.attest.snp._certs import read_endorsement
from enarx.attest.snp._report import Line, SigningKey
from enarx.attest.x509 import parse_certificate as parse_x509
from enarx_emulator.amd.chip import PRODUCTS, Fuses, pack_tcb
from enarx_emulator.amd.vendor import AmdVendor, kds_answer
from enarx_emulator.errors import EmulatorError
from enarx_emulator.seed import Seed
from enarx_emulator.state import Memory

NAMES = {"bootloader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL", "fmc": "fmcSPL"}


def made(vendor: AmdVendor, name: str = "milan") -> Fuses:
    return vendor.manufacture(PRODUCTS[name], Seed(b"one chip of these tests"))


def query(fuses: Fuses) -> dict[str, str]:
    return {NAMES[name]: str(value) for name, value in fuses.product.firmware.tcb.components().items()}


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_service_gives_certificates_of_chips(name: str) -> None:
    vendor = amd.vendor()
    fuses = made(vendor, name)
    line, tcb = fuses.product.line, fuses.product.firmware.tcb
    answer = kds_answer(vendor, f"/vcek/v1/{line.value}/{fuses.hwid.hex()}", query(fuses))
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/octet-stream")
    found = read_endorsement(parse_x509(answer.body))
    assert found is not None
    assert (found.kind, found.line, found.tcb, found.hwid) == (SigningKey.VCEK, line, tcb, fuses.hwid)


@pytest.mark.parametrize("kind", ["vcek", "vlek"])
def test_the_service_gives_chains_and_lists(kind: str) -> None:
    vendor = amd.vendor()
    chain = kds_answer(vendor, f"/{kind}/v1/Genoa/cert_chain", {})
    assert chain.headers["Content-Type"] == "application/x-pem-file"
    certificates = Collateral.from_pem(chain.body).certificates
    names = [parse_x509(der).common_name for der in certificates]
    assert names == ["SEV-Genoa" if kind == "vcek" else "SEV-VLEK-Genoa", "ARK-Genoa"]
    assert certificates == vendor.chain(Line.GENOA, SigningKey(kind))
    crl = parse_revocation_list(kds_answer(vendor, f"/{kind}/v1/Genoa/crl", {}).body)
    assert crl.issuer == parse_x509(certificates[1]).subject
    assert crl.revoked == frozenset()


def test_the_service_gives_what_sev_needs() -> None:
    vendor = amd.vendor()
    for name in PRODUCTS:
        fuses = made(vendor, name)
        cek = kds_answer(vendor, f"/cek/id/{fuses.chip_id.hex()}", {})
        assert parse_certificate(cek.body).key.public_numbers() == fuses.cek().public_key().public_numbers()
    roots = kds_answer(vendor, "/wp-content/resources/ask_ark_milan.cert", {}).body
    ask, ark = parse_amd_certificate(roots[:832]), parse_amd_certificate(roots[832:])
    assert ask.certifying_id == ark.key_id == ark.certifying_id
    assert (ask.key_id[:8], ark.key_id[:8]) == (b"EMULATED", b"EMULATED")


HWID = made(amd.vendor()).hwid.hex()


@pytest.mark.parametrize(
    ("path", "asked", "status"),
    [
        ("/", {}, 404),
        ("/vcek/v1/Naples/cert_chain", {}, 404),
        ("/vcek/v2/Milan/cert_chain", {}, 404),
        ("/vcek/v1/milan/cert_chain", {}, 404),
        ("/vcek/v1/Milan/cert_chain/", {}, 404),
        ("/vcek/v1/Milan/", {}, 404),
        (f"/vcek/v1/Milan/{HWID[:-2]}", {}, 400),
        ("/vcek/v1/Milan/" + "zz" * 64, {}, 400),
        ("/vcek/v1/Turin/" + HWID, {}, 400),
        (f"/vcek/v1/Milan/{HWID}", {"colour": "1"}, 400),
        (f"/vcek/v1/Milan/{HWID}", {"fmcSPL": "1"}, 400),
        (f"/vcek/v1/Milan/{HWID}", {"blSPL": "-1"}, 400),
        (f"/vcek/v1/Milan/{HWID}", {"blSPL": "256"}, 400),
        (f"/vcek/v1/Milan/{HWID}", {"blSPL": ""}, 400),
        ("/vcek/v1/Milan/" + "00" * 64, {}, 404),
        (f"/vcek/v1/Genoa/{HWID}", {}, 404),
        (f"/vlek/v1/Milan/{HWID}", {}, 404),
        ("/cek/id/" + "00" * 64, {}, 404),
        ("/cek/id/00", {}, 404),
        ("/wp-content/resources/ask_ark_naples.cert", {}, 404),
    ],
)
def test_requests_that_are_refused(path: str, asked: dict[str, str], status: int) -> None:
    assert kds_answer(amd.vendor(), path, asked).status == status


def test_a_withdrawn_authority_is_listed_and_replaced() -> None:
    """A15: what the old one endorsed is refused, what the new one endorses is accepted."""
    store = Memory()
    vendor = AmdVendor(store, clock=lambda: NOW, key_bits=2048)
    fuses = made(vendor)
    line, tcb = fuses.product.line, fuses.product.firmware.tcb
    old, before = vendor.chain(line), vendor.vcek(fuses, tcb)
    vendor.authority(line).revoke("ask")
    new, after = vendor.chain(line), vendor.vcek(fuses, tcb)
    assert parse_x509(new[0]).serial == parse_x509(old[0]).serial + 1
    assert parse_revocation_list(vendor.crl(line)).revoked == {parse_x509(old[0]).serial}
    again = AmdVendor(store, clock=lambda: NOW, key_bits=2048)
    assert again.chain(line) == new
    assert parse_revocation_list(again.crl(line)).revoked == {parse_x509(old[0]).serial}
    assert before != after
    with pytest.raises(EmulatorError, match="authority"):
        vendor.authority(line).revoke("ark")


def test_a_withdrawn_authority_is_refused() -> None:
    """A15."""
    machine = amd.snp("turin")
    report, _ = amd.report(machine, amd.launched(machine))
    before = amd.collateral(machine)
    amd.judge(report, before, amd.anchors(machine))
    vendor = amd.vendor()
    vendor.authority(Line.TURIN).revoke("ask")
    crl = vendor.crl(Line.TURIN)
    old = Collateral(certificates=before.certificates, crls=(crl,))
    with pytest.raises(EvidenceRejected) as refused:
        amd.judge(report, old, amd.anchors(machine))
    assert refused.value.check.name == "snp.crl.revoked"
    fuses = machine.firmware.chip.fuses
    given = (vendor.vcek(fuses, machine.firmware.chip.reported), *vendor.chain(Line.TURIN))
    new = Collateral(certificates=given, crls=(crl,))
    assert amd.judge(report, new, amd.anchors(machine)).revocation is Revocation.CHECKED


def test_every_certificate_says_emulated() -> None:
    vendor = amd.vendor()
    fuses = made(vendor)
    tcb = fuses.product.firmware.tcb
    made_here = (
        vendor.vcek(fuses, tcb),
        vendor.vlek(fuses.product, tcb),
        *vendor.chain(Line.MILAN),
        *vendor.chain(Line.MILAN, SigningKey.VLEK),
    )
    for der in made_here:
        assert b"EMULATED" in parse_x509(der).extensions["2.16.840.1.113730.1.13"].value
    assert fuses.hwid.startswith(b"EMULATED")
    assert b"EMULATED" in vendor.ask_ark(Line.MILAN)


@pytest.mark.evidence
@pytest.mark.parametrize("line", [Line.MILAN, Line.GENOA, Line.TURIN], ids=lambda line: line.value)
def test_authorities_are_like_the_real_ones(line: Line, evidence: Evidence) -> None:
    """Names, serial numbers but for replacements, extensions and usages; the location of lists leads nowhere."""
    pem = evidence.read(f"roots/amd_{line.value.lower()}_ask_ark_asvk.pem")
    vendor, comment = amd.vendor(), "2.16.840.1.113730.1.13"
    emulated = {
        one.common_name: one
        for kind in (SigningKey.VCEK, SigningKey.VLEK)
        for one in map(parse_x509, vendor.chain(line, kind))
    }
    for real in map(parse_x509, Collateral.from_pem(pem).certificates):
        ours = emulated.pop(real.common_name)
        assert (ours.subject, ours.issuer) == (real.subject, real.issuer)
        assert ours.serial >> 8 == real.serial >> 8
        assert (ours.is_ca, ours.path_length, ours.key_usage) == (True, real.path_length, real.key_usage)
        extensions = {oid: (one.critical, len(one.value)) for oid, one in ours.extensions.items()}
        assert extensions.keys() - {comment} == real.extensions.keys()
        location = "2.5.29.31"
        for oid in real.extensions.keys() - {location}:
            assert extensions[oid] == (real.extensions[oid].critical, len(real.extensions[oid].value))
        assert b"emulated.invalid" in ours.extensions[location].value
    assert emulated == {}


@pytest.mark.evidence
@pytest.mark.parametrize("name", ["genoa_2022-10-31", "milan_2022-05-09"])
def test_revocation_lists_are_like_the_real_ones(name: str, evidence: Evidence) -> None:
    real = x509.load_der_x509_crl(evidence.read(f"roots/amd_crl_{name}.der"))
    line = Line(name.partition("_")[0].capitalize())
    ours = x509.load_der_x509_crl(amd.vendor().crl(line))
    assert ours.issuer == real.issuer
    found = {one.oid.dotted_string: one.critical for one in ours.extensions}
    assert found.pop("2.16.840.1.113730.1.13") is False
    assert found == {one.oid.dotted_string: one.critical for one in real.extensions}


def test_certificates_are_valid_as_long_as_amds() -> None:
    vendor = amd.vendor()
    fuses = made(vendor)
    for der, years in (
        (vendor.vcek(fuses, fuses.product.firmware.tcb), 7),
        (vendor.vlek(fuses.product, fuses.product.firmware.tcb), 1),
        (vendor.chain(Line.MILAN)[1], 25),
    ):
        certificate = x509.load_der_x509_certificate(der)
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        assert begin < NOW < end
        assert timedelta(days=365 * years - 1) < end - begin < timedelta(days=365 * years + 2)


def test_a_chip_is_made_once_and_known_for_ever() -> None:
    vendor = amd.vendor()
    fuses = made(vendor, "turin")
    assert vendor.fuses(fuses.hwid) is not None
    again = AmdVendor(amd.store(), clock=lambda: NOW).fuses(fuses.hwid)
    assert again is not None
    tcb = fuses.product.firmware.tcb
    assert again.vcek(tcb).private_numbers() == fuses.vcek(tcb).private_numbers()
    assert vendor.fuses(bytes(8)) is None
    assert pack_tcb(tcb, Line.TURIN) == b"\1\1\1\4\0\0\0\x4c"
