"""Each check that SGX and TDX share fails alone: evidence that is right in all but one thing, under a root of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from tests.forge.dcap import (
    FMSPC,
    P256,
    REPORT_DATA,
    Case,
    Forged,
    document,
    intel_name,
    module,
    pck,
    pck_ca,
    pem,
    qe_identity,
    root,
    sgx,
    sgx_extension,
    svn_level,
    tcb_info,
    tcb_level,
    tcb_signing,
    tdx,
)
from tests.forge.pki import EPOCH, NOW, Cert, ec_key

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Claims,
    CollateralMissing,
    Document,
    EvidenceRejected,
    Kind,
    MalformedCollateral,
    Outcome,
    Policy,
    PolicyDenied,
    Revocation,
    TrustAnchors,
    Verifier,
    uncovered,
)
from enarx.attest.sgx import VERIFIER as SGX
from enarx.attest.tdx import VERIFIER as TDX

STRANGER = ec_key("stranger", P256)
NO_POLICY = AuthenticityOnly()


def judge(
    case: Case,
    now: datetime = NOW,
    binding: bytes | AnyBinding = REPORT_DATA,
    policy: Policy | AuthenticityOnly = NO_POLICY,
) -> Claims:
    verifier = Verifier(tees=[SGX, TDX], anchors=case.anchors, policy=policy)
    return verifier.verify(case.quote.raw, collateral=case.collateral, binding=binding, now=now)


def chain(*certs: Cert) -> Case:
    return sgx(chain=certs)


def with_ca(**changes: Any) -> Case:
    authority = pck_ca(**changes)
    return chain(pck(authority), authority, root()).but(crls=(root().crl(), authority.crl()))


def with_info(tee: str = "SGX", *levels: dict[str, Any], **changes: Any) -> Case:
    return Case(info=tcb_info(tee, *levels, **changes))


def with_identity(*levels: dict[str, Any], **changes: Any) -> Case:
    return Case(identity=qe_identity("SGX", *levels, **changes))


def signed_by(**changes: Any) -> Case:
    return Case(signing=tcb_signing(**changes))


def written_anew(body: dict[str, Any], name: str) -> bytes:
    """Signed in Intel's form, sent in another: the signature no longer fits."""
    raw = document(name, body)
    end = raw.rindex(b',"signature"')
    return b'{"' + name.encode() + b'":' + json.dumps(body).encode() + raw[end:]


def anew(name: str) -> Case:
    info, identity = document("tcbInfo", tcb_info("SGX")), document("enclaveIdentity", qe_identity("SGX"))
    if name == "tcbInfo":
        info = written_anew(tcb_info("SGX"), name)
    else:
        identity = written_anew(qe_identity("SGX"), name)
    return Case(documents=(Document(Kind.TCB_INFO, info), Document(Kind.QE_IDENTITY, identity)))


def without(kind: Kind) -> Case:
    given = Case().collateral.documents
    return Case(documents=tuple(one for one in given if one.kind is not kind))


def signing_from_pck_ca() -> Case:
    """An authority of Intel's that must not vouch for documents does so."""
    return Case(signing=tcb_signing(pck_ca()), certificates=(pck_ca(),))


def leaf_with(extension: tuple[str, bool, bytes]) -> Case:
    leaf = pck()
    return chain(leaf.but(extensions=[*leaf.extensions, extension]), pck_ca(), root())


def p384_ca() -> Case:
    return with_ca(key=ec_key("pck ca p384"))


def crls(root_list: bytes | None = None, pck_list: bytes | None = None) -> Case:
    return Case(crls=(root_list or root().crl(), pck_list or pck_ca().crl()))


def early_root() -> Case:
    top = root(path_length=0)
    authority = pck_ca(top)
    case = chain(pck(authority), authority, top)
    return case.but(trusted=top.der, signing=tcb_signing(top))


def external(kind: int) -> Case:
    """The quote names the platform; its PCK certificate is collateral, beside one of another platform."""
    other = pck(key=STRANGER, serial=0x3001)
    return sgx(certification_type=kind, certification=bytes(36)).but(certificates=(other, pck(), pck_ca()))


def long_chain() -> Case:
    """A quote has room for three certificates; the collateral of one that only names its platform has more."""
    top = above = root(path_length=None)
    authorities = []
    for at in range(6):
        above = pck_ca(above, key=ec_key(f"authority {at}", P256), name=intel_name(f"{at}"), path_length=None)
        authorities.append(above)
    given = (pck(above), *reversed(authorities))
    return external(1).but(certificates=given, trusted=top.der, crls=())


LATER = NOW + timedelta(days=200)
AFTER = {"issueDate": "2025-01-01T00:00:01Z", "nextUpdate": "2025-02-01T00:00:00Z"}
BEFORE = {"issueDate": "2024-11-01T00:00:00Z", "nextUpdate": "2024-12-31T23:59:59Z"}


@dataclass(frozen=True)
class Wrong:
    """One thing that is wrong, and the check that must say so."""

    check: str
    case: Callable[[], Case]
    error: type[Exception] = EvidenceRejected
    binding: bytes = REPORT_DATA


WRONG = (
    Wrong("binding.report_data", sgx, binding=bytes(64)),
    Wrong("binding.report_data", sgx, binding=REPORT_DATA[:32]),
    Wrong("dcap.vendor_id", lambda: sgx(vendor_id=bytes(16))),
    *(
        Wrong("dcap.certification.type", lambda kind=kind: sgx(certification_type=kind))  # type: ignore[misc]
        for kind in (1, 2, 3, 4, 6, 7)
    ),
    Wrong("dcap.qe.signature", lambda: external(1).but(certificates=(pck(key=STRANGER), pck_ca()))),
    Wrong("dcap.pck.issuer", lambda: external(1).but(certificates=(pck(),)), CollateralMissing),
    Wrong("dcap.pck.extension", lambda: sgx(certification=pem(root().der, pck_ca().der, pck().der))),
    Wrong("dcap.pck.extension", lambda: chain(pck(extensions=()), pck_ca(), root())),
    Wrong("dcap.pck.order", lambda: chain(pck(), tcb_signing(), root())),
    Wrong("dcap.pck.order", lambda: chain(pck(), root(), pck_ca())),
    Wrong("dcap.pck.signature", lambda: chain(pck(signer=STRANGER), pck_ca(), root())),
    Wrong("dcap.pck.signature", lambda: with_ca(signer=STRANGER)),
    Wrong("dcap.pck.root", lambda: Case(trusted=root(key=STRANGER, name=intel_name("Another")).der)),
    Wrong("dcap.pck.ca", lambda: chain(pck(ca=True, cert_sign=False, crl_sign=True), pck_ca(), root())),
    Wrong("dcap.pck.ca", lambda: with_ca(ca=False, path_length=None, cert_sign=True)),
    Wrong("dcap.pck.path_length", early_root),
    Wrong("dcap.pck.length", long_chain),
    Wrong("dcap.pck.key_usage", lambda: with_ca(cert_sign=False)),
    Wrong("dcap.pck.critical", lambda: leaf_with(("1.2.3.4", True, b"\x05\x00"))),
    Wrong("dcap.pck.not_before", lambda: chain(pck(not_before=LATER), pck_ca(), root())),
    Wrong("dcap.pck.not_after", lambda: chain(pck(not_after=NOW - timedelta(seconds=1)), pck_ca(), root())),
    Wrong("dcap.pck.not_after", lambda: with_ca(not_after=NOW - timedelta(seconds=1))),
    Wrong("dcap.pck.names", lambda: chain(pck(name=intel_name("A certificate")), pck_ca(), root())),
    Wrong("dcap.pck.names", lambda: with_ca(name=intel_name("Intel SGX TCB Signing"))),
    Wrong("dcap.pck.algorithm", p384_ca),
    Wrong("dcap.pck.algorithm", lambda: chain(pck(digest=hashes.SHA384()), pck_ca(), root())),
    Wrong("dcap.pck.root_certificate", lambda: chain(pck(), pck_ca(), root(key=STRANGER))),
    Wrong("dcap.pck.root_certificate", lambda: chain(pck(), pck_ca(), root(signer=STRANGER))),
    Wrong("dcap.pck.order", lambda: chain(pck(), pck_ca(), pck_ca())),
    Wrong("dcap.qe.signature", lambda: sgx(qe_signer=STRANGER)),
    Wrong("dcap.qe.signature", lambda: sgx(qe_signature=bytes(64))),
    Wrong("dcap.qe.report_data", lambda: sgx(qe_report_data=b"\x01" * 64)),
    Wrong("dcap.attestation_key", lambda: sgx(attestation_point=b"\x01" * 64)),
    Wrong("dcap.attestation_key", lambda: sgx(attestation_point=bytes(63) + b"\x01")),
    Wrong("dcap.signature", lambda: sgx(signer=STRANGER)),
    Wrong("dcap.signature", lambda: sgx(signature=bytes(64))),
    Wrong("dcap.signature", lambda: sgx(signature=b"\xff" * 64)),
    Wrong("dcap.signature", lambda: sgx(unsigned_change={30: 1})),
    Wrong("dcap.signature", lambda: sgx(unsigned_change={48 + 320: 1}), binding=b"\x81" + REPORT_DATA[1:]),
    Wrong("dcap.tcb_info", lambda: without(Kind.TCB_INFO), CollateralMissing),
    Wrong("dcap.tcb_info.id", lambda: with_info("TDX")),
    Wrong("dcap.tcb_info.id", lambda: tdx().but(info=tcb_info("SGX"))),
    Wrong(
        "dcap.tcb_info.id",
        lambda: tdx().but(info=tcb_info("SGX", tcb_level(tdx=None, version=2), id=None, version=2)),
    ),
    Wrong("dcap.tcb_info.fmspc", lambda: with_info(fmspc="00906ED50000")),
    Wrong("dcap.tcb_info.pce_id", lambda: with_info(pceId="0001")),
    Wrong("dcap.tcb_info.signature", lambda: Case(document_key=STRANGER)),
    Wrong("dcap.tcb_info.signature", lambda: anew("tcbInfo")),
    Wrong("dcap.tcb_info.not_before", lambda: with_info(**AFTER)),
    Wrong("dcap.tcb_info.not_after", lambda: with_info(**BEFORE)),
    Wrong("dcap.qe_identity", lambda: without(Kind.QE_IDENTITY), CollateralMissing),
    Wrong("dcap.qe_identity.id", lambda: with_identity(id="QVE")),
    Wrong("dcap.qe_identity.id", lambda: with_identity(id="TD_QE")),
    Wrong("dcap.qe_identity.id", lambda: tdx().but(identity=qe_identity("TDX", id="QE"))),
    Wrong("dcap.qe_identity.signature", lambda: Case(identity_key=STRANGER)),
    Wrong("dcap.qe_identity.signature", lambda: anew("enclaveIdentity")),
    Wrong("dcap.qe_identity.not_before", lambda: with_identity(**AFTER)),
    Wrong("dcap.qe_identity.not_after", lambda: with_identity(**BEFORE)),
    Wrong("dcap.tcb_signing.certificate", lambda: Case(signing=None), CollateralMissing),
    Wrong("dcap.tcb_signing.certificate", lambda: signed_by(name=intel_name("Other")), CollateralMissing),
    Wrong("dcap.tcb_signing.signature", lambda: signed_by(signer=STRANGER)),
    Wrong("dcap.tcb_signing.root", lambda: Case(signing=tcb_signing().but(issuer=None))),
    Wrong("dcap.tcb_signing.ca", lambda: signed_by(ca=True, cert_sign=False, crl_sign=True)),
    Wrong("dcap.tcb_signing.not_before", lambda: signed_by(not_before=LATER)),
    Wrong("dcap.tcb_signing.not_after", lambda: signed_by(not_after=NOW - timedelta(seconds=1))),
    Wrong("dcap.tcb_signing.names", signing_from_pck_ca),
    Wrong("dcap.tcb_signing.algorithm", lambda: signed_by(digest=hashes.SHA384())),
    Wrong("dcap.crl.key_usage", lambda: with_ca(crl_sign=False)),
    Wrong("dcap.crl.signature", lambda: crls(pck_list=pck_ca().crl(signer=STRANGER))),
    Wrong("dcap.crl.signature", lambda: crls(root_list=root().crl(signer=STRANGER))),
    Wrong("dcap.crl.issued", lambda: crls(pck_list=pck_ca().crl(this_update=NOW + timedelta(days=1)))),
    Wrong("dcap.crl.revoked", lambda: crls(pck_list=pck_ca().crl(0x3000))),
    Wrong("dcap.crl.revoked", lambda: crls(root_list=root().crl(7, 0x2000))),
    Wrong("dcap.crl.revoked", lambda: crls(root_list=root().crl(0x4000))),
    Wrong("dcap.qe.misc_select", lambda: sgx(qe={"misc_select": 1})),
    Wrong("dcap.qe.attributes", lambda: sgx(qe={"attributes": bytes([0x17]) + bytes(15)})),
    Wrong("dcap.qe.attributes", lambda: with_identity(attributes="15" + "00" * 15)),
    Wrong("dcap.qe.mrsigner", lambda: sgx(qe={"mrsigner": b"\x01" * 32})),
    Wrong("dcap.qe.isv_prod_id", lambda: sgx(qe={"isv_prod_id": 2})),
    Wrong(
        "dcap.qe.debug",
        lambda: sgx(qe={"attributes": bytes([0x17]) + bytes(15)}).but(
            identity=qe_identity("SGX", attributesMask="F9" + "FF" * 7 + "00" * 8)
        ),
    ),
    Wrong("dcap.qe.level", lambda: sgx(qe={"isv_svn": 3})),
    Wrong("dcap.tcb.level", lambda: with_info("SGX", tcb_level(pce_svn=14, tdx=None))),
    *(
        Wrong(
            "dcap.tcb.level",
            lambda at=at: with_info("SGX", tcb_level(sgx=bytes(at) + b"\xff" + bytes(15 - at), tdx=None)),  # type: ignore[misc]
        )
        for at in range(16)
    ),
    Wrong("dcap.tcb.revoked", lambda: with_info("SGX", tcb_level("Revoked", tdx=None))),
    Wrong("dcap.tcb.revoked", lambda: with_identity(svn_level(4, "Revoked"))),
    Wrong("dcap.trailing", lambda: sgx(trailing=bytes(70) + b"\x01")),
    Wrong("dcap.trailing", lambda: tdx(trailing=b"extra")),
)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.check)
def test_each_check_fails_alone(wrong: Wrong) -> None:
    with pytest.raises(wrong.error) as refused:
        judge(wrong.case(), binding=wrong.binding)
    assert isinstance(refused.value, EvidenceRejected | CollateralMissing)
    assert refused.value.check.name == wrong.check
    assert refused.value.check.outcome is Outcome.FAILED
    assert [check.name for check in refused.value.checks if check.outcome is Outcome.FAILED] == [wrong.check]
    assert str(refused.value).startswith(wrong.check)


HEALTHY = (
    ("sgx v3", sgx),
    ("sgx v4", lambda: sgx(version=4)),
    ("sgx v5", lambda: sgx(version=5)),
    ("tdx v4", tdx),
    ("tdx v5, TD 1.0", lambda: tdx(5)),
    ("tdx v5, TD 1.5", lambda: tdx(5, body_type=3)),
    ("padded", lambda: sgx(trailing=bytes(400))),
    ("TCB info v2", lambda: with_info("SGX", tcb_level(tdx=None, version=2), id=None, version=2)),
    ("no authentication data", lambda: sgx(auth_data=b"")),
    (
        "one zero after the chain",
        lambda: sgx(certification=pem(*(one.der for one in Forged().chain)) + b"\0"),
    ),
    ("single-package platform", lambda: chain(pck(extension=sgx_extension(instance=None)), pck_ca(), root())),
    (
        "root of the same key with other dates",
        lambda: chain(pck(), pck_ca(), root(not_before=EPOCH + timedelta(1))),
    ),
    ("PPID", lambda: external(1)),
    ("PPID under RSA-2048", lambda: external(2)),
    ("PPID under RSA-3072", lambda: external(3)),
    ("FMSPC in lower case", lambda: with_info(fmspc=FMSPC.hex())),
    (
        "two signing certificates",
        lambda: Case(certificates=(tcb_signing(not_after=NOW - timedelta(days=1)),)),
    ),
)


@pytest.mark.parametrize("make", [make for _, make in HEALTHY], ids=[name for name, _ in HEALTHY])
def test_what_is_right_is_accepted(make: Callable[[], Case]) -> None:
    case = make()
    claims = judge(case)
    assert claims.tcb_status == "UpToDate"
    assert claims.bound
    assert claims.revocation is Revocation.CHECKED
    assert claims.root.name == "test root"
    assert not claims.root.is_vendor
    assert claims.report_data == REPORT_DATA
    assert {check.outcome for check in claims.checks} <= {Outcome.PASSED, Outcome.NOTED}
    assert "report_data" not in uncovered(claims.evidence.fields(), claims.checks)


@pytest.mark.parametrize("tees", [[SGX], [TDX]])
def test_a_kind_that_is_not_enabled_is_not_judged(tees: list[Any]) -> None:
    case = tdx() if tees == [SGX] else sgx()
    verifier = Verifier(tees=tees, anchors=case.anchors, policy=AuthenticityOnly())
    with pytest.raises(Exception, match="looks like no evidence that is enabled"):
        verifier.verify(case.quote.raw, collateral=case.collateral, binding=AnyBinding(), now=NOW)


def test_no_anchor_verifies_nothing() -> None:
    """A12."""
    case = sgx()
    verifier = Verifier(tees=[SGX], anchors=TrustAnchors.none(), policy=AuthenticityOnly())
    with pytest.raises(EvidenceRejected) as refused:
        verifier.verify(case.quote.raw, collateral=case.collateral, binding=REPORT_DATA, now=NOW)
    assert refused.value.check.name == "dcap.pck.root"


def test_a_root_of_our_own_is_not_accepted_by_default_policies() -> None:
    """A19."""
    policy = Policy.parse('version = 1\n[sgx]\nmeasurement = "any"', [SGX])
    with pytest.raises(PolicyDenied) as refused:
        judge(sgx(), policy=policy)
    assert [check.name for check in refused.value.failures] == ["policy.sgx.vendor_root"]


def test_revocation_lists_that_are_missing_or_stale_are_left_to_policy() -> None:
    """A15: the default policy refuses both."""
    assert judge(Case(crls=())).revocation is Revocation.MISSING
    assert judge(Case(crls=(root().crl(),))).revocation is Revocation.MISSING
    assert (
        judge(crls(pck_list=pck_ca().crl(next_update=NOW - timedelta(seconds=1)))).revocation
        is Revocation.STALE
    )
    policy = Policy.parse('version = 1\n[sgx]\nmeasurement = "any"\nvendor_root = "any"', [SGX])
    for case in (Case(crls=()), crls(root_list=root().crl(next_update=NOW - timedelta(seconds=1)))):
        with pytest.raises(PolicyDenied) as refused:
            judge(case, policy=policy)
        assert [check.name for check in refused.value.failures] == ["policy.sgx.revocation"]


def documents(*bodies: tuple[str, dict[str, Any]]) -> tuple[Document, ...]:
    kinds = {"tcbInfo": Kind.TCB_INFO, "enclaveIdentity": Kind.QE_IDENTITY}
    return tuple(Document(kinds[name], document(name, body)) for name, body in bodies)


def test_of_several_documents_the_newest_that_is_in_date_decides() -> None:
    """A16: whoever picks the collateral would pick the oldest."""
    old = ("tcbInfo", tcb_info("SGX", tcbEvaluationDataNumber=16))
    new = ("tcbInfo", tcb_info("SGX", tcb_level("OutOfDate", tdx=None), tcbEvaluationDataNumber=18))
    expired = ("tcbInfo", tcb_info("SGX", tcbEvaluationDataNumber=19, **BEFORE))
    other = ("tcbInfo", tcb_info("SGX", tcbEvaluationDataNumber=20, fmspc="00906ED50000"))
    tdx_info = ("tcbInfo", tcb_info("TDX", tcbEvaluationDataNumber=20))
    identities = (("enclaveIdentity", qe_identity("TDX")), ("enclaveIdentity", qe_identity("SGX")))
    for order in ((old, new, expired, other, tdx_info), (tdx_info, other, expired, new, old)):
        claims = judge(Case(documents=documents(*order, *identities)))
        assert claims.tcb_status == "OutOfDate"
        assert claims.detail.platform.tcb_info.evaluation_number == 18  # type: ignore[attr-defined]
        assert claims.detail.platform.tcb_evaluation_data_number == 17  # type: ignore[attr-defined]


def test_clock_before_everything_was_issued_is_refused() -> None:
    """A11."""
    with pytest.raises(EvidenceRejected) as refused:
        judge(sgx(), now=datetime(2020, 1, 1, tzinfo=UTC))
    assert refused.value.check.name == "dcap.pck.not_before"


def test_a_broken_document_among_good_ones_is_refused() -> None:
    given = Case().collateral.documents
    with pytest.raises(MalformedCollateral):
        judge(Case(documents=(*given, Document(Kind.TCB_INFO, b"{}"))))


def test_advisories_of_platform_and_quoting_enclave_are_put_together() -> None:
    case = Case(
        info=tcb_info(
            "SGX", tcb_level("SWHardeningNeeded", tdx=None, advisories=["INTEL-SA-1", "INTEL-SA-2"])
        ),
        identity=qe_identity("SGX", svn_level(4, "OutOfDate", ["INTEL-SA-3"])),
    )
    claims = judge(case)
    assert claims.tcb_status == "OutOfDate"
    assert claims.detail.tcb.advisories == {"INTEL-SA-1", "INTEL-SA-2", "INTEL-SA-3"}  # type: ignore[attr-defined]


def test_the_first_level_that_fits_decides() -> None:
    lower = bytes(16)
    levels = [
        tcb_level("UpToDate", pce_svn=14, tdx=None),
        tcb_level("ConfigurationNeeded", sgx=lower, tdx=None),
        tcb_level("Revoked", sgx=lower, pce_svn=0, tdx=None),
    ]
    assert judge(with_info("SGX", *levels)).tcb_status == "ConfigurationNeeded"


def test_modules_of_tdx_say_nothing_about_enclaves() -> None:
    """A module identity in a TCB info for SGX changes nothing."""
    assert (
        judge(with_info("SGX", tdxModuleIdentities=[module("TDX_01", svn_level(9, "Revoked"))])).tcb_status
        == "UpToDate"
    )
