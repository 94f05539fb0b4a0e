"""What emulated platforms give has the fields of what real ones gave, and the same things in them."""

from __future__ import annotations

import json

import pytest
from cryptography import x509
from tests import evidence
from tests.forge import intel

from enarx.attest import Collateral
from enarx.attest.dcap import Quote, parse_pck_chain
from enarx.attest.sgx import parse_sgx_quote
from enarx.attest.tdx import parse_tdx_quote
from enarx_emulator.intel.processor import MODELS
from enarx_emulator.machine import Machine

pytestmark = pytest.mark.evidence

SAMPLES = {
    ("sgx", 3): "sgx/v3-icelake-automata-a",
    ("tdx", 4): "tdx/v4-tdxsdk",
    ("tdx", 5): "tdx/v5-go-tdx-guest",
}


def real(name: str) -> evidence.Sample:
    """A sample by its name."""
    return next(one for one in evidence.samples(name.split("/")[0]) if one.id == name)


def emulated(kind: str, version: int) -> tuple[Machine, bytes]:
    """A machine and a quote of it."""
    machine = intel.machine(kind)
    return machine, intel.quote(machine, intel.launch(machine, quote_version=version)[0])


def parse(kind: str, raw: bytes) -> tuple[Quote, dict[str, object]]:
    """The envelope and all fields."""
    quote = parse_sgx_quote(raw) if kind == "sgx" else parse_tdx_quote(raw)
    return quote.quote, dict(quote.fields())


@pytest.mark.parametrize(("kind", "version"), SAMPLES)
def test_quotes_have_the_fields_of_real_ones(kind: str, version: int) -> None:
    ours, our_fields = parse(kind, emulated(kind, version)[1])
    theirs, their_fields = parse(kind, real(SAMPLES[kind, version]).read("quote"))
    assert list(our_fields) == list(their_fields)
    assert {name: type(value) for name, value in our_fields.items()} == {
        name: type(value) for name, value in their_fields.items()
    }
    for name in ("version", "tee_type", "vendor_id", "body_type", "certification_type"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert len(ours.qe_auth_data) == len(theirs.qe_auth_data)
    assert ours.qe_report.isv_prod_id == theirs.qe_report.isv_prod_id
    assert ours.qe_report.attributes == theirs.qe_report.attributes
    assert (ours.qe_svn == 0) == (theirs.qe_svn == 0)


@pytest.mark.parametrize(("kind", "version"), SAMPLES)
def test_certificates_have_the_extensions_of_real_ones(kind: str, version: int) -> None:
    ours, _ = parse(kind, emulated(kind, version)[1])
    theirs, _ = parse(kind, real(SAMPLES[kind, version]).read("quote"))
    pair = [parse_pck_chain(one.certification_data) for one in (ours, theirs)]
    assert pair[0].pck is not None
    assert pair[1].pck is not None
    present = [
        {name for name, value in one.pck.fields().items() if value is not None} for one in pair if one.pck
    ]
    assert present[0] == present[1]
    for our_der, their_der in zip(
        *(Collateral.from_pem(one.certification_data.rstrip(b"\0")).certificates for one in (ours, theirs)),
        strict=True,
    ):
        mine, its = x509.load_der_x509_certificate(our_der), x509.load_der_x509_certificate(their_der)
        assert _common_name(mine) == _common_name(its)
        assert {one.oid: one.critical for one in mine.extensions} == {
            one.oid: one.critical for one in its.extensions
        }


def _common_name(certificate: x509.Certificate) -> str | bytes:
    return certificate.subject.get_attributes_for_oid(x509.oid.NameOID.COMMON_NAME)[0].value


def test_lists_and_documents_have_the_members_of_real_ones() -> None:
    sample = real(SAMPLES["sgx", 3])
    files: dict[str, str] = sample.entry["appraisals"][-1]["collateral"]
    vendor, model = intel.vendor(), MODELS["icelake"]
    for role, ours in (
        ("root_ca_crl", vendor.root_crl(intel.NOW)),
        ("pck_crl", vendor.pck_crl(intel.NOW, multi_package=True)),
    ):
        mine = x509.load_der_x509_crl(ours)
        its = x509.load_der_x509_crl((evidence.FOLDER / files[role]).read_bytes())
        assert {one.oid: one.critical for one in mine.extensions} == {
            one.oid: one.critical for one in its.extensions
        }
    for role, name, ours in (
        ("tcb_info", "tcbInfo", vendor.tcb_info("SGX", model, intel.NOW)),
        ("qe_identity", "enclaveIdentity", vendor.identity("QE", intel.NOW)),
    ):
        document = json.loads(ours)
        its_document = json.loads((evidence.FOLDER / files[role]).read_bytes())
        assert list(document) == list(its_document)
        assert list(document[name]) == list(its_document[name])
        old, its_old = (one[name]["tcbLevels"][-1] for one in (document, its_document))
        assert list(old) == list(its_old)
        assert list(old["tcb"]) == list(its_old["tcb"])


def test_the_same_seed_gives_the_same_evidence() -> None:
    for kind, version in SAMPLES:
        assert emulated(kind, version)[1] == emulated(kind, version)[1]
