"""Each check of an SNP verification fails alone: evidence that is right in all but one thing, signed by a
root of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.forge.pki import END, EPOCH, NOW, Cert, amd_name, ec_key, rsa_key
from tests.forge.snp import (
    HWID,
    REPORT_DATA,
    TCB,
    Case,
    Report,
    ark,
    ask,
    asvk,
    extensions,
    tcb_bytes,
    vcek,
    vek,
    vlek,
)

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Claims,
    CollateralMissing,
    EvidenceRejected,
    MalformedCollateral,
    MalformedEvidence,
    Outcome,
    Revocation,
    Verifier,
)
from enarx.attest.snp import VERIFIER
from enarx.tcb.errors import Malformed

P384_ORDER = (
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
)
P256 = ec_key("vek", ec.SECP256R1)


def judge(case: Case, now: datetime = NOW, binding: bytes | AnyBinding = REPORT_DATA) -> Claims:
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=AuthenticityOnly())
    return verifier.verify(case.report.raw, collateral=case.collateral, binding=binding, now=now)


def report(**changes: int | bytes) -> Case:
    return Case(report=Report().but(**changes))


def long_chain() -> Case:
    above = ark()
    authorities = []
    for depth in range(6):
        above = Cert(name=amd_name(f"CA-{depth}"), key=rsa_key(f"ca-{depth % 2}"), issuer=above)
        authorities.append(above)
    return Case(leaf=vcek(above), intermediates=tuple(authorities))


def with_elliptic_root() -> Case:
    root = ark().but(key=ec_key("ark"))
    between = ask(issuer=root)
    return Case(leaf=vcek(between), intermediates=(between,), root=root)


def with_critical_extension() -> Case:
    leaf = vcek()
    return Case(leaf=leaf.but(extensions=[*leaf.extensions, ("1.2.3.4", True, b"\x05\x00")]))


def with_leaf_as_ca() -> Case:
    return Case(leaf=vcek().but(ca=True, cert_sign=False))


def with_ask(**changes: object) -> Case:
    between = ask().but(**changes)
    return Case(leaf=vcek(between), intermediates=(between,))


def with_root(**changes: object) -> Case:
    root = ark().but(**changes)
    between = ask(issuer=root)
    return Case(leaf=vcek(between), intermediates=(between,), root=root)


def with_extra_intermediate() -> Case:
    upper = Cert(name=amd_name("CA-0"), key=rsa_key("ca-0"), issuer=ark(), path_length=0)
    lower = ask(issuer=upper)
    return Case(leaf=vcek(lower), intermediates=(lower, upper))


def with_forged_crl(**changes: object) -> Case:
    return Case(crls=(ark().crl(**changes),))  # type: ignore[arg-type]


TURIN = {"fmc": 1, **TCB}
SHORT_HWID = HWID[:8]


def turin(cpuid: bytes = bytes([0x1A, 0x02, 0x01]), chip: bytes = SHORT_HWID) -> Case:
    extra = extensions(product="Turin", tcb=TURIN, hwid=SHORT_HWID, structure=1)
    between = ask("Turin")
    tcb = dict.fromkeys(("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"), tcb_bytes(fmc=1))
    return Case(
        report=Report(version=5).but(cpuid=cpuid, chip_id=chip, **tcb),
        leaf=vek("VCEK", between, extra),
        intermediates=(between,),
        root=ark("Turin"),
    )


def by_vlek(**changes: int | bytes) -> Case:
    return Case(report=Report().but(key_info=4, **changes), leaf=vlek(), intermediates=(asvk(),))


@dataclass(frozen=True)
class Wrong:
    """One thing that is wrong, and the check that must say so."""

    check: str
    case: Callable[[], Case]
    now: datetime = NOW
    binding: bytes = REPORT_DATA
    error: type[Exception] = EvidenceRejected


WRONG = (
    Wrong("snp.vmpl.guest", lambda: report(vmpl=0xFFFFFFFF)),
    Wrong("snp.vmpl.guest", lambda: report(vmpl=4)),
    Wrong("snp.signing_key.signed", lambda: report(key_info=7 << 2)),
    Wrong("snp.signing_key", lambda: report(key_info=1 << 2)),
    Wrong("snp.signing_key", lambda: by_vlek().but(report=Report())),
    Wrong("snp.certificate", lambda: Case(leaf=None), error=CollateralMissing),
    Wrong("snp.chain.issuer", lambda: Case(intermediates=()), error=CollateralMissing),
    Wrong("snp.chain.signature", lambda: Case(leaf=vcek().but(signer=rsa_key("stranger")))),
    Wrong("snp.chain.signature", lambda: with_ask(signer=rsa_key("stranger"))),
    Wrong("snp.chain.root", lambda: Case(trusted=ark("Genoa").but(key=rsa_key("other root")).der)),
    Wrong("snp.chain.root", lambda: Case(trusted=ask().but(key=ec_key("vek")).der)),
    Wrong("snp.chain.length", long_chain),
    Wrong("snp.chain.ca", with_leaf_as_ca),
    Wrong("snp.chain.ca", lambda: with_ask(ca=False, path_length=None, cert_sign=True)),
    Wrong("snp.chain.ca", lambda: with_ask(ca=None, path_length=None)),
    Wrong("snp.chain.ca", lambda: with_root(ca=None)),
    Wrong("snp.chain.path_length", with_extra_intermediate),
    Wrong("snp.chain.path_length", lambda: with_root(path_length=0)),
    Wrong("snp.chain.key_usage", lambda: with_ask(cert_sign=False)),
    Wrong("snp.chain.critical", with_critical_extension),
    Wrong("snp.chain.not_before", lambda: Case(leaf=vcek().but(not_before=NOW + timedelta(seconds=1)))),
    Wrong("snp.chain.not_before", Case, now=EPOCH - timedelta(seconds=1)),
    Wrong("snp.chain.not_after", lambda: Case(leaf=vcek().but(not_after=NOW - timedelta(seconds=1)))),
    Wrong("snp.chain.not_after", lambda: with_ask(not_after=NOW - timedelta(seconds=1))),
    Wrong("snp.chain.not_after", lambda: with_root(not_after=NOW - timedelta(seconds=1))),
    Wrong("snp.chain.not_after", Case, now=END + timedelta(seconds=1)),
    Wrong("snp.chain.names", lambda: with_ask(name=amd_name("SEV-Genoa"))),
    Wrong("snp.chain.names", lambda: with_root(name=amd_name("ARK-Genoa"))),
    Wrong("snp.chain.names", lambda: Case(leaf=vek("VCEK", asvk(), extensions()), intermediates=(asvk(),))),
    Wrong("snp.chain.algorithm", with_elliptic_root),
    Wrong("snp.chain.algorithm", lambda: Case(leaf=vcek().but(pkcs1=True))),
    Wrong("snp.chain.self_signed", lambda: with_root(signer=rsa_key("stranger"))),
    Wrong("snp.crl.signature", lambda: with_forged_crl(signer=rsa_key("stranger"))),
    Wrong("snp.crl.revoked", lambda: Case(crls=(ark().crl(0x10001),))),
    Wrong("snp.crl.issued", lambda: with_forged_crl(this_update=NOW + timedelta(days=1))),
    Wrong("snp.crl.key_usage", lambda: with_root(crl_sign=False).but(crls=(ark().crl(),))),
    Wrong("snp.certificate.key", lambda: Case(leaf=vcek().but(key=ec_key("vek", ec.SECP256R1)))),
    Wrong("snp.certificate.key", lambda: Case(leaf=vcek().but(key=rsa_key("vek")))),
    Wrong("snp.certificate.key", lambda: Case(leaf=vcek().but(key=P256), report=Report(key=P256))),
    Wrong("snp.signature.range", lambda: report(signature_r=0)),
    Wrong("snp.signature.range", lambda: report(signature_s=0)),
    Wrong("snp.signature.range", lambda: report(signature_r=P384_ORDER)),
    Wrong("snp.signature.range", lambda: report(signature_s=2**384 - 1)),
    Wrong("snp.signature", lambda: Case(report=Report(key=ec_key("another chip")))),
    Wrong("snp.signature", lambda: report(signature_r=1, signature_s=1)),
    Wrong("snp.cpuid", lambda: report(cpuid=bytes([0x19, 0x11, 0x01]))),
    Wrong("snp.cpuid", lambda: report(cpuid=bytes([0x19, 0xFF, 0x00]))),
    Wrong("snp.cpuid", lambda: turin(cpuid=bytes([0x19, 0x01, 0x01]))),
    Wrong("snp.reported_tcb", lambda: report(reported_tcb=tcb_bytes(bootloader=3))),
    Wrong("snp.reported_tcb", lambda: report(reported_tcb=tcb_bytes(tee=0))),
    Wrong("snp.reported_tcb", lambda: report(reported_tcb=tcb_bytes(snp=23))),
    Wrong("snp.reported_tcb", lambda: report(reported_tcb=tcb_bytes(microcode=212))),
    Wrong("snp.reported_tcb", lambda: report(reported_tcb=tcb_bytes(bootloader=1, tee=4))),
    Wrong("snp.chip_id", lambda: report(chip_id=HWID[:-1] + b"\x00")),
    Wrong("snp.chip_id", lambda: turin(chip=SHORT_HWID + b"\x01")),
    Wrong("snp.reported_tcb.order", lambda: report(committed_tcb=tcb_bytes(microcode=212))),
    Wrong("snp.committed_tcb.order", lambda: report(committed_tcb=tcb_bytes(snp=25))),
    Wrong("snp.launch_tcb.order", lambda: report(launch_tcb=tcb_bytes(microcode=214))),
    Wrong("snp.version.order", lambda: report(committed_version=bytes([30, 55, 1]))),
    Wrong("snp.policy.reserved", lambda: report(policy=0x1001F)),
    Wrong("snp.policy.reserved", lambda: report(policy=0x30000 | 1 << 26)),
    Wrong("snp.policy.abi", lambda: report(policy=0x30000 | 1 << 8 | 56)),
    Wrong("snp.author_key", lambda: report(author_key_digest=b"\x01" * 48)),
    Wrong("binding.report_data", Case, binding=REPORT_DATA[:-1] + b"\x00"),
    Wrong("binding.report_data", Case, binding=REPORT_DATA[:32]),
    Wrong("binding.report_data", Case, binding=b""),
)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.check)
def test_one_wrong_thing_fails_the_check_that_is_about_it(wrong: Wrong) -> None:
    with pytest.raises(wrong.error) as refused:
        judge(wrong.case(), now=wrong.now, binding=wrong.binding)
    assert isinstance(refused.value, EvidenceRejected | CollateralMissing)
    assert refused.value.check.name == wrong.check
    assert refused.value.check is refused.value.checks[-1]
    assert all(check.outcome is not Outcome.FAILED for check in refused.value.checks[:-1])


GOOD: dict[str, Callable[[], Case]] = {
    "milan v2": lambda: Case(report=Report(version=2)),
    "milan v3": Case,
    "milan v4": lambda: Case(report=Report(version=4)),
    "milan v5": lambda: Case(report=Report(version=5)),
    "turin": turin,
    "vlek without chip": lambda: by_vlek(chip_id=bytes(64)),
    "vlek with chip": by_vlek,
    "chip hidden": lambda: report(chip_id=bytes(64)),
    "hardware id wrapped in DER": lambda: Case(leaf=vcek(hwid=bytes([4, 64]) + HWID)),
    "all three privilege levels": lambda: report(vmpl=3),
    "author key": lambda: report(key_info=1, author_key_digest=b"\x01" * 48, id_key_digest=b"\x02" * 48),
    "revocation list": lambda: Case(crls=(ark().crl(0x20001),)),
    "several leaves": lambda: Case(intermediates=(ask(), vcek(tcb={**TCB, "snp": 9}), vlek(), asvk())),
    "several authorities of one name": lambda: Case(
        intermediates=(ask().but(key=rsa_key("old ask")), ask(), ark().but(key=rsa_key("old ark")))
    ),
}


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD)
def test_evidence_without_a_mistake_is_verified(case: Callable[[], Case]) -> None:
    claims = judge(case())
    assert claims.root.name == "test root"
    assert not claims.root.is_vendor
    assert claims.bound
    assert claims.policy_digest is None
    assert all(check.outcome is not Outcome.FAILED for check in claims.checks)


def test_every_check_that_is_made_has_a_case_in_which_it_fails() -> None:
    made = {check.name for case in GOOD.values() for check in judge(case()).checks}
    notes = {"snp.crl.missing", "snp.crl.stale", "snp.platform_info.unknown"}
    assert made - notes <= {wrong.check for wrong in WRONG}


def test_hardware_id_that_begins_like_der_is_taken_as_it_is() -> None:
    for first in (b"\x02\x3e", b"\x04\x3e"):
        hwid = first + HWID[2:]
        assert judge(Case(report=Report().but(chip_id=hwid), leaf=vcek(hwid=hwid))).chip_id == hwid


def test_stale_and_missing_revocation_lists_are_noted_for_the_policy() -> None:
    stale = Case(crls=(ark().crl(next_update=NOW - timedelta(seconds=1)),))
    for case, answer, note in (
        (stale, Revocation.STALE, "snp.crl.stale"),
        (Case(), Revocation.MISSING, "snp.crl.missing"),
    ):
        claims = judge(case)
        assert claims.revocation is answer
        assert [check.outcome for check in claims.checks if check.name == note] == [Outcome.NOTED]


def test_the_newest_of_several_lists_decides_about_staleness_and_any_about_revocation() -> None:
    old = ark().crl(this_update=NOW - timedelta(days=90), next_update=NOW - timedelta(days=60))
    assert judge(Case(crls=(old, ark().crl()))).revocation is Revocation.CHECKED
    withdrawn = ark().crl(0x10001, this_update=NOW - timedelta(days=90), next_update=NOW - timedelta(days=60))
    with pytest.raises(EvidenceRejected) as refused:
        judge(Case(crls=(withdrawn, ark().crl())))
    assert refused.value.check.name == "snp.crl.revoked"


def test_unknown_platform_bit_is_noted_and_not_refused() -> None:
    claims = judge(report(platform_info=0x67))
    assert [check.found for check in claims.checks if check.name == "snp.platform_info.unknown"] == ["0x40"]


def test_certificates_attached_to_the_report_serve_but_are_not_trusted() -> None:
    def entry(guid: bytes, offset: int, der: bytes) -> bytes:
        return guid + offset.to_bytes(4, "little") + len(der).to_bytes(4, "little")

    vcek_guid = bytes.fromhex("8d75da6364e66445adc5f4b93be8accd")
    ask_guid = bytes.fromhex("79b3b74aacbb e44fa02f05aef327c782".replace(" ", ""))
    leaf, between = vcek().der, ask().der
    table = entry(vcek_guid, 72, leaf) + entry(ask_guid, 72 + len(leaf), between) + bytes(24) + leaf + between
    case = Case(leaf=None, intermediates=())
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=AuthenticityOnly())
    extended = case.report.raw + table
    verifier.verify(extended, collateral=case.collateral, binding=REPORT_DATA, now=NOW)
    for broken in (
        extended[:-1],
        extended[: -len(between)],
        case.report.raw + entry(vcek_guid, 0, leaf) + bytes(24),
    ):
        with pytest.raises(MalformedEvidence):
            verifier.verify(broken, collateral=case.collateral, binding=REPORT_DATA, now=NOW)


BAD_CERTIFICATES = {
    "no product": lambda: vek("VCEK", ask(), {k: v for k, v in extensions().items() if k != "2"}),
    "unknown product": lambda: vcek(product="Napoli"),
    "no microcode": lambda: vcek(tcb={"bootloader": 4, "tee": 1, "snp": 24}),
    "component above a byte": lambda: vek("VCEK", ask(), {**extensions(), "3.3": bytes([2, 2, 1, 0])}),
    "negative component": lambda: vek("VCEK", ask(), {**extensions(), "3.3": bytes([2, 1, 0x80])}),
    "component not in shortest form": lambda: vek(
        "VCEK", ask(), {**extensions(), "3.3": bytes([2, 2, 0, 24])}
    ),
    "spare component in use": lambda: vek("VCEK", ask(), {**extensions(), "3.5": bytes([2, 1, 1])}),
    "unknown component": lambda: vek("VCEK", ask(), {**extensions(), "3.10": bytes([2, 1, 0])}),
    "FMC on Milan": lambda: vcek(tcb=TURIN),
    "structure of Turin on Milan": lambda: vcek(structure=1),
    "hardware id and provider": lambda: vcek(csp_id="CN=example.test"),
    "neither": lambda: vcek(hwid=None),
    "short hardware id": lambda: vcek(hwid=HWID[:63]),
    "wrapped hardware id of another size": lambda: vcek(hwid=bytes([4, 8]) + HWID[:8]),
}


@pytest.mark.parametrize("leaf", BAD_CERTIFICATES.values(), ids=BAD_CERTIFICATES)
def test_certificate_that_amd_would_not_make_is_malformed(leaf: Callable[[], Cert]) -> None:
    with pytest.raises(MalformedCollateral):
        judge(Case(leaf=leaf()))


def test_reserved_bytes_of_a_tcb_version_must_be_zero() -> None:
    with pytest.raises(Malformed, match="TCB_VERSION: reserved bytes"):
        judge(report(launch_tcb=bytes([4, 1, 0, 1, 0, 0, 24, 213])))


def test_now_must_say_its_time_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        judge(Case(), now=datetime(2025, 1, 1))  # noqa: DTZ001 -- that is the mistake


def test_time_is_compared_across_time_zones() -> None:
    assert judge(Case(), now=NOW.astimezone(UTC)).bound
