"""What the emulated Intel says: documents of every recovery, revocation, expiry, and the answers of its service."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from tests.forge import intel

from enarx.attest import Collateral, Document, EvidenceRejected, Kind
from enarx.attest.chain import parse_revocation_list
from enarx.attest.dcap import Pck, parse_pck, parse_qe_identity, parse_tcb_info
from enarx.attest.dcap._documents import TcbStatus
from enarx.attest.x509 import parse_certificate
from enarx_emulator.answer import Answer
from enarx_emulator.errors import EmulatorError
from enarx_emulator.intel import documents
from enarx_emulator.intel._recovery import ENCLAVES, FIRST_NUMBER, Recovery
from enarx_emulator.intel.pcs import OAEP_PADDING, pcs_answer
from enarx_emulator.intel.processor import MODELS
from enarx_emulator.intel.vendor import IntelVendor
from enarx_emulator.machine import Machine
from enarx_emulator.state import Memory

MODEL = MODELS["emeraldrapids"]
SVN = MODEL.tee_tcb_svn or b""
AT = int(intel.NOW.timestamp()) - 86400
LATER = intel.NOW + timedelta(days=31)


def running(kind: str = "tdx") -> tuple[IntelVendor, Machine, bytes, Memory]:
    """A vendor, a machine of its, and a quote."""
    store = intel.vendor_store()
    machine = intel.machine(kind, product=MODEL.name, store=store)
    guest, _ = intel.launch(machine)
    return intel.vendor(store), machine, intel.quote(machine, guest), store


def status(vendor: IntelVendor, raw: bytes, kind: str = "TDX", now: datetime = intel.NOW) -> str | None:
    """What our verifier says; ``dcap_qvl`` must say the same."""
    claims = intel.verify(raw, vendor.collateral(kind, MODEL, now), now=now)
    assert intel.peer_verify(raw, vendor, kind, MODEL, now=now) == claims.tcb_status
    return claims.tcb_status


def higher(svns: bytes) -> bytes:
    """One more of the first."""
    return bytes([svns[0] + 1]) + svns[1:]


def test_a_recovery_makes_platforms_out_of_date_until_they_are_updated() -> None:
    vendor, machine, raw, store = running()
    assert status(vendor, raw) == "UpToDate"
    new = higher(MODEL.cpu_svn)
    number = vendor.recover(
        Recovery(number=0, at=AT, fmspc=MODEL.fmspc, cpu_svn=new, advisories=("INTEL-SA-99999",))
    )
    assert number == FIRST_NUMBER + 1 == vendor.newest_number
    assert status(vendor, raw) == "OutOfDate"
    saved = {**machine.save(), "cpu_svn": new}
    updated = intel.machine("tdx", store=store, saved=saved)
    assert status(vendor, intel.quote(updated, intel.launch(updated)[0])) == "UpToDate"
    info = parse_tcb_info(vendor.tcb_info("TDX", MODEL, intel.NOW))
    assert info.evaluation_number == number
    assert [level.status for level in info.levels] == [
        TcbStatus.UP_TO_DATE,
        TcbStatus.OUT_OF_DATE,
        TcbStatus.OUT_OF_DATE,
    ]
    assert info.levels[1].advisories == ("INTEL-SA-99999",)


def test_documents_of_an_older_number_do_not_know_the_recovery() -> None:
    vendor, _, _, _ = running()
    vendor.recover(Recovery(number=0, at=AT, fmspc=MODEL.fmspc, cpu_svn=higher(MODEL.cpu_svn)))
    old = parse_tcb_info(vendor.tcb_info("SGX", MODEL, intel.NOW, number=FIRST_NUMBER))
    assert len(old.levels) == 2
    assert old.evaluation_number == FIRST_NUMBER
    assert len(parse_tcb_info(vendor.tcb_info("SGX", MODEL, intel.NOW)).levels) == 3
    assert len(parse_tcb_info(vendor.tcb_info("SGX", MODELS["icelake"], intel.NOW)).levels) == 2


def test_a_recovery_of_the_module_asks_for_a_relaunch_after_the_update() -> None:
    vendor, machine, _, _ = running()
    guest, _ = intel.launch(machine, quote_version=5)
    new = higher(SVN)
    vendor.recover(Recovery(number=0, at=AT, fmspc=MODEL.fmspc, tee_tcb_svn=new))
    assert status(vendor, intel.quote(machine, guest)) == "OutOfDate"
    machine.command("update", {"tee_tcb_svn": new})
    assert status(vendor, intel.quote(machine, guest)) == "TDRelaunchAdvised"
    relaunched, _ = intel.launch(machine, quote_version=5)
    assert status(vendor, intel.quote(machine, relaunched)) == "UpToDate"


@pytest.mark.parametrize("kind", ["QE", "TD_QE"])
def test_a_recovery_of_the_quoting_enclave(kind: str) -> None:
    tee = "TDX" if kind == "TD_QE" else "SGX"
    vendor, _, raw, _ = running(tee.lower())
    vendor.recover(Recovery(number=0, at=AT, enclave=kind, isv_svn=ENCLAVES[kind][1] + 1))
    assert status(vendor, raw, tee) == "OutOfDate"
    identity = parse_qe_identity(vendor.identity(kind, intel.NOW))
    assert [level.isv_svn for level in identity.levels][:2] == [ENCLAVES[kind][1] + 1, ENCLAVES[kind][1]]
    with pytest.raises(EmulatorError, match="QVE"):
        vendor.recover(Recovery(number=0, at=AT, enclave="QX", isv_svn=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"fmspc": bytes(6)},
        {"cpu_svn": b"short"},
        {"tee_tcb_svn": b"short"},
        {"older": "Whatever"},
        {"pce_svn": 1 << 16},
        {"enclave": "QE", "isv_svn": -1},
        {"enclave": "QE", "older": "SWHardeningNeeded"},
    ],
)
def test_a_recovery_that_no_document_could_tell_of_is_refused(changes: dict[str, Any]) -> None:
    vendor = intel.vendor()
    good: dict[str, Any] = {"number": 0, "at": AT, "fmspc": MODEL.fmspc}
    with pytest.raises(EmulatorError):
        vendor.recover(Recovery(**{**good, **changes}))
    assert vendor.newest_number == FIRST_NUMBER
    for serial in (0, -1, 1 << 160):
        with pytest.raises(EmulatorError):
            vendor.revoke(serial)


def test_a_recovery_to_another_status_leaves_modules_readable() -> None:
    vendor, machine, _, _ = running()
    guest, _ = intel.launch(machine)
    change = Recovery(number=0, at=AT, fmspc=MODEL.fmspc, tee_tcb_svn=higher(SVN), older="SWHardeningNeeded")
    vendor.recover(change)
    assert status(vendor, intel.quote(machine, guest)) == "OutOfDate"


def test_a_recovery_may_revoke() -> None:
    vendor, _, raw, _ = running()
    vendor.recover(
        Recovery(number=0, at=AT, fmspc=MODEL.fmspc, cpu_svn=higher(MODEL.cpu_svn), older="Revoked")
    )
    with pytest.raises(EvidenceRejected) as refused:
        status(vendor, raw)
    assert refused.value.check.name == "dcap.tcb.revoked"


def test_what_is_revoked_stays_so() -> None:
    vendor, machine, raw, store = running()
    ppid = machine.command("info", {})["platform_id"]
    assert isinstance(ppid, bytes)
    leaf = vendor.pck(ppid, cpu_svn=MODEL.cpu_svn, pce_svn=MODEL.pce_svn)
    vendor.revoke(leaf.serial)
    for one in (vendor, intel.vendor(store)):
        with pytest.raises(EvidenceRejected) as refused:
            intel.verify(raw, one.collateral("TDX", MODEL, intel.NOW))
        assert refused.value.check.name == "dcap.crl.revoked"
        with pytest.raises(ValueError, match=r"[Rr]evoked"):
            intel.peer_verify(raw, one, "TDX", MODEL)
    other = intel.vendor()
    other.revoke(other.pck_ca(multi_package=True).serial)
    assert other.pck_ca(multi_package=True).serial in parse_revocation_list(other.root_crl(intel.NOW)).revoked
    assert leaf.serial not in parse_revocation_list(other.root_crl(intel.NOW)).revoked


def test_revocations_and_recoveries_add_up() -> None:
    vendor = intel.vendor()
    vendor.revoke(5)
    vendor.recover(Recovery(number=0, at=AT, fmspc=MODEL.fmspc, cpu_svn=higher(MODEL.cpu_svn)))
    vendor.revoke(7)
    vendor.revoke(5)
    vendor.recover(Recovery(number=0, at=AT, enclave="QE", isv_svn=20))
    assert {5, 7} <= parse_revocation_list(vendor.pck_crl(intel.NOW, multi_package=True)).revoked
    assert vendor.newest_number == FIRST_NUMBER + 2
    assert len(vendor.evaluation_dates()) == 2


def test_collateral_expires() -> None:
    vendor, _, raw, _ = running()
    collateral = vendor.collateral("TDX", MODEL, intel.NOW)
    with pytest.raises(EvidenceRejected) as refused:
        intel.verify(raw, collateral, now=LATER)
    assert refused.value.check.name == "dcap.tcb_info.not_after"
    assert status(vendor, raw, now=LATER) == "UpToDate"


def test_the_vendor_is_the_same_after_a_restart_and_differs_by_store() -> None:
    store = Memory()
    one, again, other = IntelVendor(store), IntelVendor(store), IntelVendor(Memory())
    assert one.root.der == again.root.der
    assert one.tcb_signing.serial == again.tcb_signing.serial
    assert one.root.key.public_key() != other.root.key.public_key()


def test_a_platform_that_was_not_made_here_is_certified_by_nobody() -> None:
    with pytest.raises(EmulatorError, match="no platform"):
        intel.vendor().pck(bytes(16), cpu_svn=MODEL.cpu_svn, pce_svn=13)


def test_tcb_info_of_version_2_is_read_too() -> None:
    level = documents.tcb_level(
        sgx=MODEL.cpu_svn, pce_svn=13, tdx=None, status="UpToDate", date="2024-03-13T00:00:00Z", version=2
    )
    body = documents.tcb_info(
        "SGX",
        fmspc=MODEL.fmspc,
        pce_id=bytes(2),
        evaluation_number=17,
        issued=intel.NOW,
        levels=[level],
        version=2,
    )
    vendor, _, raw, _ = running("sgx")
    collateral = vendor.collateral("SGX", MODEL, intel.NOW)
    made = vendor.sign_document("tcbInfo", body)
    assert parse_tcb_info(made).version == 2
    old = Collateral(
        certificates=collateral.certificates,
        crls=collateral.crls,
        documents=(Document(Kind.TCB_INFO, made), collateral.documents[1]),
    )
    assert intel.verify(raw, old).tcb_status == "UpToDate"


# The service


def ask(vendor: IntelVendor, path: str, **query: str) -> Answer:
    """A request."""
    return pcs_answer(vendor, path, query, now=intel.NOW)


API = "/sgx/certification/v4"
TDX_API = "/tdx/certification/v4"


def test_the_service_gives_all_that_a_quote_needs() -> None:
    vendor, _, raw, _ = running()
    fmspc = MODEL.fmspc.hex()
    info, identity = ask(vendor, f"{TDX_API}/tcb", fmspc=fmspc), ask(vendor, f"{TDX_API}/qe/identity")
    crl = ask(vendor, f"{API}/pckcrl", ca="platform", encoding="der")
    root_crl = ask(vendor, "/IntelSGXRootCA.der")
    assert {one.status for one in (info, identity, crl, root_crl)} == {200}
    chains = [
        info.headers["TCB-Info-Issuer-Chain"],
        identity.headers["SGX-Enclave-Identity-Issuer-Chain"],
        crl.headers["SGX-PCK-CRL-Issuer-Chain"],
    ]
    certificates = Collateral.from_pem("".join(unquote(one) for one in chains).encode()).certificates
    collateral = Collateral(
        certificates=certificates,
        crls=(crl.body, root_crl.body),
        documents=(Document(Kind.TCB_INFO, info.body), Document(Kind.QE_IDENTITY, identity.body)),
    )
    assert intel.verify(raw, collateral).tcb_status == "UpToDate"
    assert bytes.fromhex(ask(vendor, f"{API}/rootcacrl").body.decode()) == root_crl.body
    assert ask(vendor, f"{API}/pckcrl", ca="processor").body.startswith(b"-----BEGIN X509 CRL-----")


def test_the_service_certifies_a_platform_that_names_itself() -> None:
    vendor, machine, _, _ = running()
    ppid = machine.command("info", {})["platform_id"]
    assert isinstance(ppid, bytes)
    public = vendor.ppid_key.public_key()
    assert isinstance(public, RSAPublicKey)
    query = {
        "encrypted_ppid": public.encrypt(ppid, OAEP_PADDING).hex(),
        "cpusvn": MODEL.cpu_svn.hex(),
        "pcesvn": MODEL.pce_svn.to_bytes(2, "little").hex(),
        "pceid": "0000",
    }
    answer = ask(vendor, f"{API}/pckcert", **query)
    assert answer.headers["SGX-FMSPC"] == MODEL.fmspc.hex().upper()
    assert answer.headers["SGX-PCK-Certificate-CA-Type"] == "platform"
    assert answer.headers["SGX-TCBm"] == query["cpusvn"] + query["pcesvn"]
    (der,) = Collateral.from_pem(answer.body).certificates
    pck: Pck = parse_pck(parse_certificate(der))
    assert (pck.ppid, pck.cpu_svn, pck.pce_svn) == (ppid, MODEL.cpu_svn, MODEL.pce_svn)
    assert pck.smt is True
    for change, status_code in (
        ({"encrypted_ppid": "00" * 384}, 400),
        ({"encrypted_ppid": public.encrypt(bytes(16), OAEP_PADDING).hex()}, 404),
        ({"cpusvn": "00"}, 400),
        ({"pcesvn": "x" * 4}, 400),
        ({"pceid": "0001"}, 404),
        ({"pceid": ""}, 400),
    ):
        assert ask(vendor, f"{API}/pckcert", **{**query, **change}).status == status_code


@pytest.mark.parametrize(
    ("path", "query", "status_code"),
    [
        ("/", {}, 404),
        (f"{API}/nothing", {}, 404),
        (f"{API}/../tcb", {}, 404),
        (f"{TDX_API}/pckcrl", {"ca": "platform"}, 404),
        (f"{API}/tcb", {}, 400),
        (f"{API}/tcb", {"fmspc": "xyz"}, 400),
        (f"{API}/tcb", {"fmspc": "00606a000000"}, 404),
        (f"{TDX_API}/tcb", {"fmspc": MODELS["icelake"].fmspc.hex()}, 404),
        (f"{API}/tcb", {"fmspc": MODEL.fmspc.hex().upper()}, 200),
        (f"{API}/tcb", {"fmspc": MODEL.fmspc.hex(), "update": "early"}, 200),
        (f"{API}/tcb", {"fmspc": MODEL.fmspc.hex(), "update": "never"}, 400),
        (f"{API}/tcb", {"fmspc": MODEL.fmspc.hex(), "tcbEvaluationDataNumber": "17"}, 200),
        (f"{API}/tcb", {"fmspc": MODEL.fmspc.hex(), "tcbEvaluationDataNumber": "16"}, 410),
        (f"{API}/tcb", {"fmspc": MODEL.fmspc.hex(), "tcbEvaluationDataNumber": "18"}, 404),
        (f"{API}/tcb", {"fmspc": MODEL.fmspc.hex(), "tcbEvaluationDataNumber": "-1"}, 400),
        (f"{API}/qe/identity", {"update": "standard", "tcbEvaluationDataNumber": "17"}, 400),
        (f"{API}/qve/identity", {}, 200),
        (f"{API}/fmspcs", {}, 200),
        (f"{API}/pckcrl", {"ca": "server"}, 400),
        (f"{API}/pckcrl", {"ca": "platform", "encoding": "xml"}, 400),
    ],
)
def test_status_codes_of_the_service(path: str, query: dict[str, str], status_code: int) -> None:
    assert ask(intel.vendor(), path, **query).status == status_code


def test_the_service_lists_its_evaluation_numbers() -> None:
    vendor = intel.vendor()
    vendor.recover(Recovery(number=0, at=AT, fmspc=MODEL.fmspc, cpu_svn=higher(MODEL.cpu_svn)))
    listed = json.loads(ask(vendor, f"{TDX_API}/tcbevaluationdatanumbers").body)["tcbEvaluationDataNumbers"]
    assert [one["tcbEvaluationDataNumber"] for one in listed["tcbEvalNumbers"]] == [18, 17]
    assert listed["id"] == "TDX"
