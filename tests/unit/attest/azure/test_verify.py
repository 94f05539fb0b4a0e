"""Each check of Azure's evidence fails alone: right in all but one thing, made by keys of ours."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.forge import dcap, snp, tpm
from tests.forge.azure import (
    CONFIGURATION,
    NONCE,
    USER_DATA,
    Case,
    ak_certificate,
    base64url,
    jwk,
    name,
    tdx,
    vtpm_root,
)
from tests.forge.pki import EPOCH, NOW, Cert, ec_key, rsa_key

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Cache,
    Claims,
    Collateral,
    CollateralMissing,
    Document,
    EvidenceRejected,
    Kind,
    MalformedEvidence,
    Policy,
    PolicyDenied,
    PolicyError,
    Tee,
    TrustAnchors,
    Verifier,
    uncovered,
)
from enarx.attest.azure import VERIFIER, AzureSnpDetail, AzureTdxDetail, pack_evidence
from enarx.attest.ear import ear_of
from enarx.attest.registry import BUILTIN
from enarx.tcb.errors import EnarxError, Malformed

THEIRS = rsa_key("ak of an attacker")
LOG = (0).to_bytes(4, "little") + (8).to_bytes(4, "little") + b"\x22" * 20 + bytes(4)
"""One event, which extends PCR0 of the bank of SHA-1."""


def judge(
    case: Case,
    *,
    binding: bytes | AnyBinding = NONCE,
    policy: Policy | AuthenticityOnly | None = None,
    anchors: TrustAnchors | None = None,
    raw: bytes | None = None,
) -> Claims:
    verifier = Verifier(tees=[VERIFIER], anchors=anchors or case.anchors, policy=policy or AuthenticityOnly())
    data = case.raw if raw is None else raw
    return verifier.verify(data, collateral=case.collateral, binding=binding, now=NOW)


HEALTHY = {
    "snp": Case(),
    "tdx 1.0": tdx(),
    "tdx 1.5": tdx(5, body_type=3),
    "hash of 48 bytes": Case(header={"hash_type": 2}),
    "hash of 64 bytes": Case(header={"hash_type": 3}),
    "paravisor of before user data": Case(runtime={"user-data": ...}, header={"version": 1}),
    "certificate of the key": Case(certificate=ak_certificate()),
    "certificate from collateral": Case(collateral_certificates=(ak_certificate(),)),
    "certificate with what its index has behind it": Case(
        items={"tpm-certificate": ak_certificate().der + b"\xff" * 40}
    ),
    "certificate in collateral that is not yet valid": Case(
        collateral_certificates=(ak_certificate(not_before=NOW.replace(year=2026)),)
    ),
}


@pytest.mark.parametrize("what", HEALTHY)
def test_a_healthy_machine_says_what_was_put_in(what: str) -> None:
    case = HEALTHY[what]
    claims = judge(case)
    assert claims.tee is (Tee.AZURE_SNP if case.snp else Tee.AZURE_TDX)
    assert claims.bound
    assert claims.report_data == NONCE
    assert claims.measurement == (snp.MEASUREMENT if case.snp else dcap.MRTD)
    assert claims.measurements["pcr7"] == tpm.PCRS[7]
    assert claims.root.name == "test root"
    assert isinstance(claims.detail, AzureSnpDetail if case.snp else AzureTdxDetail)
    assert claims.detail.ak_certified == (what.startswith("certificate") and "not yet" not in what)
    assert claims.detail.runtime.vm_unique_id == CONFIGURATION["vmUniqueId"]


def test_fields_are_named_as_those_of_what_is_inside() -> None:
    for case, own in ((Case(), "policy.debug"), (tdx(), "td_attributes.debug")):
        fields = VERIFIER.parse(case.raw).fields()
        assert fields["report_data"] == NONCE
        assert fields["hardware_report_data"] != NONCE
        assert {own, "vtpm.pcrs.pcr0", "runtime.vm-configuration.secure-boot", "hcl.version"} <= set(fields)
    assert "hardware_report_data" not in uncovered(fields, judge(tdx()).checks)


def test_no_other_verifier_takes_it_for_its_own() -> None:
    for data in (Case().raw, tdx().raw, Case().hcl_report, written_by_tools(Case(), "hex")):
        assert [kind for kind, verifier in BUILTIN.items() if verifier.recognise(data)] == ["azure"]


REJECTED = {
    "hardware of another key": (
        "snp.signature",
        Case(snp=snp.Case(report=snp.Report(key=ec_key("another")))),
    ),
    "quote of another key": ("dcap.signature", tdx(signer=ec_key("another", ec.SECP256R1))),
    "report that a guest asked for": (
        "azure.vmpl",
        Case(snp=snp.Case(report=snp.Report().but(vmpl=1))),
    ),
    "configuration replaced": (
        "azure.runtime_data",
        Case(swapped={"vm-configuration": {**CONFIGURATION, "console-enabled": True}}),
    ),
    "user data replaced": ("azure.runtime_data", Case(swapped={"user-data": "00" * 64})),
    "hash of other runtime data": ("azure.runtime_data", Case(report_data=b"\x11" * 32 + bytes(32))),
    "something behind the hash": (
        "azure.runtime_data",
        Case(report_data=hashlib.sha256(Case().vouched).digest() + bytes(31) + b"\x01"),
    ),
    "other TD configuration": ("azure.td_report", tdx().but(td_report_changes={"at_512": b"\x01"})),
    "other TDX module": ("azure.td_report", tdx().but(td_report_changes={"at_280": b"\x01"})),
    "other register": ("azure.td_report", tdx().but(td_report_changes={"at_911": b"\x01"})),
    "other report data in the TD report": (
        "azure.td_report",
        tdx().but(td_report_changes={"at_128": bytes(64)}),
    ),
    "service TD in the TD report alone": (
        "azure.td_report",
        tdx(5, body_type=3).but(td_report_changes={"at_912": b"\x01"}),
    ),
    "certificate of another key": ("azure.ak_certificate.key", Case(certificate=ak_certificate(THEIRS))),
    "certificate of another root": (
        "azure.ak_certificate.chain.root",
        Case(certificate=ak_certificate(issuer=None)),
    ),
    "certificate signed by another": (
        "azure.ak_certificate.chain.signature",
        Case(certificate=ak_certificate(signer=THEIRS)),
    ),
    "certificate that expired": (
        "azure.ak_certificate.chain.not_after",
        Case(certificate=ak_certificate(not_after=EPOCH.replace(month=6))),
    ),
    "certificate of an authority": (
        "azure.ak_certificate.chain.ca",
        Case(certificate=ak_certificate(ca=True, crl_sign=True)),
    ),
    "certificate that is for nothing": (
        "azure.ak_certificate.usage",
        Case(certificate=ak_certificate(ca=None)),
    ),
    "certificate that was withdrawn": (
        "azure.ak_certificate.crl.revoked",
        Case(certificate=ak_certificate(serial=77), more=Collateral(crls=(vtpm_root().crl(77),))),
    ),
    "quote of another virtual TPM": ("tpm.signature", Case(vtpm=tpm.Case(key=THEIRS))),
    "quote by SHA-1": ("tpm.hash", Case(vtpm=tpm.Case(algorithm=4))),
    "PCR changed": ("tpm.pcr_digest", Case(vtpm=tpm.Case(presented={**tpm.PCRS, 3: bytes(32)}))),
    "PCRs in another order": (
        "tpm.pcr_digest",
        Case(vtpm=tpm.Case(presented=dict(reversed(tpm.PCRS.items())))),
    ),
}


@pytest.mark.parametrize("what", REJECTED)
def test_each_check_fails_alone(what: str) -> None:
    check, case = REJECTED[what]
    with pytest.raises(EvidenceRejected) as refused:
        judge(case)
    assert refused.value.check.name == check


def test_a_key_that_was_put_into_the_virtual_tpm_is_refused_even_when_it_is_certified() -> None:
    """CVE-2025-49707: quote, runtime data and certificate agree, but the hardware never saw this key."""
    attack = Case(
        vtpm=tpm.Case(key=THEIRS), swapped={"keys": [jwk(THEIRS)]}, certificate=ak_certificate(THEIRS)
    )
    with pytest.raises(EvidenceRejected) as refused:
        judge(attack)
    assert refused.value.check.name == "azure.runtime_data"


def test_a_certified_or_enrolled_key_does_not_stand_in_for_that_of_the_hardware() -> None:
    attack = Case(vtpm=tpm.Case(key=THEIRS), collateral_certificates=(ak_certificate(THEIRS),))
    enrolled = attack.anchors.adding(tpm.spki(THEIRS), name="enrolled key")
    for anchors in (attack.anchors, enrolled):
        with pytest.raises(EvidenceRejected) as refused:
            judge(attack, anchors=anchors)
        assert refused.value.check.name == "tpm.signature"


def test_the_report_of_one_machine_with_the_quote_of_another_is_refused() -> None:
    theirs = Case(ak=THEIRS, vtpm=tpm.Case(key=THEIRS))
    judge(theirs)
    with pytest.raises(EvidenceRejected) as refused:
        judge(Case(items={"hcl-report": theirs.hcl_report}))
    assert refused.value.check.name == "tpm.signature"


def test_roots_of_hardware_and_of_keys_do_not_mix() -> None:
    """A12: a root of Azure's keys is none of AMD's, nor the reverse; without a root there is nothing."""
    case = Case(certificate=ak_certificate())
    of_keys = TrustAnchors(tuple(one for one in case.anchors.anchors if "keys" in one.name))
    of_hardware = TrustAnchors(tuple(one for one in case.anchors.anchors if "keys" not in one.name))
    for anchors, check in (
        (of_keys, "snp.chain.root"),
        (TrustAnchors.none(), "snp.chain.root"),
    ):
        with pytest.raises(EvidenceRejected) as refused:
            judge(case, anchors=anchors)
        assert refused.value.check.name == check
    with pytest.raises((EvidenceRejected, CollateralMissing)) as without:
        judge(case, anchors=of_hardware)
    assert without.value.check.name.startswith("azure.ak_certificate.chain.")


@pytest.mark.parametrize("binding", [b"", NONCE[:-1], NONCE + b"\x00", NONCE[::-1], snp.REPORT_DATA])
def test_another_challenge_is_refused(binding: bytes) -> None:
    """A1."""
    with pytest.raises(EvidenceRejected) as refused:
        judge(Case(), binding=binding)
    assert refused.value.check.name == "binding.report_data"


@pytest.mark.parametrize("make", [Case, tdx])
def test_an_event_log_is_of_the_virtual_tpm_alone(make: Any) -> None:
    log = Collateral(documents=(Document(Kind.EVENT_LOG, LOG),))
    values = tpm.Case(banks=((4, b"\x01\x00\x00"),), pcrs={0: b"\x11" * 20})
    case = make().but(vtpm=values)
    judge(case)
    with pytest.raises(EvidenceRejected) as refused:
        judge(case.but(more=log))
    assert refused.value.check.name == "tpm.event_log"


def other_key(**changes: Any) -> Case:
    return Case(runtime={"keys": [jwk(rsa_key("ak"), **changes)]})


MALFORMED = {
    "another signature": Case(header={"signature": 0x414C4349}),
    "version 3": Case(header={"version": 3}),
    "another request": Case(header={"request_type": 1}),
    "failed": Case(header={"status": 1}),
    "reserved": Case(header={"reserved": 1}),
    "size": Case(header={"report_size": 2000}),
    "size of the data": Case(header={"data_size": 20}),
    "version of the data": Case(header={"data_version": 2}),
    "VBS": Case(header={"report_type": 1}),
    "TDX that is SNP": Case(header={"report_type": 4}),
    "SNP that is TDX": tdx().but(header={"report_type": 2}),
    "hash that is none": Case(header={"hash_type": 0}),
    "hash that is not known": Case(header={"hash_type": 4}),
    "more data than there are": Case(
        header={"variable_data_size": 9999, "data_size": 10019, "report_size": 11235}
    ),
    "something behind it": Case(padding=b"\x00\x01"),
    "padding without end": Case(padding=bytes(20000)),
    "TD quote beside SNP": Case(items={"td-quote": tdx().hardware}),
    "TDX without a quote": tdx().but(items={"td-quote": ...}),
    "no TD report": tdx().but(td_report_changes={"at_0": b"\x00"}),
    "TD report of a later kind": tdx().but(td_report_changes={"at_4": b"\x01"}),
    "something behind the TD report": tdx().but(td_report_changes={"at_1100": b"\x01"}),
    "no PCRs": Case(items={"tpm-pcrs": ...}),
    "fewer PCRs": Case(items={"tpm-pcrs": bytes(32 * 7)}),
    "no report": Case(items={"hcl-report": b"HCLA"}),
    "an item more": Case(items={"hcl-report-2": b""}),
    "certificate with more behind it": Case(items={"tpm-certificate": ak_certificate().der + b"\x01\x02"}),
    "certificate without end": Case(items={"tpm-certificate": ak_certificate().der + bytes(9000)}),
    "certificate that is none": Case(items={"tpm-certificate": b"\x30\x82\xff\xff"}),
    "runtime data that are no JSON": Case(runtime_raw=b"{"),
    "runtime data that are no object": Case(runtime_raw=b"[]"),
    "runtime data with a key twice": Case(runtime_raw=Case().vouched[:-1] + b',"user-data":""}'),
    "runtime data with NaN": Case(runtime={"more": float("nan")}),
    "runtime data that nest": Case(runtime_raw=b'{"keys":' + b"[" * 9000),
    "runtime data of other letters": Case(runtime_raw=b'{"keys":"\xff"}'),
    "no keys": Case(runtime={"keys": []}),
    "keys that are none": Case(runtime={"keys": ["HCLAkPub"]}),
    "key without a name": Case(runtime={"keys": [{"kty": "RSA"}]}),
    "too many keys": Case(runtime={"keys": [jwk(rsa_key("ak"))] + [jwk(rsa_key("ek"), "k")] * 16}),
    "no attestation key": Case(runtime={"keys": [jwk(rsa_key("ak"), "HCLEkPub")]}),
    "two attestation keys": Case(runtime={"keys": [jwk(rsa_key("ak")), jwk(THEIRS)]}),
    "attestation key of another type": other_key(kty="EC"),
    "attestation key with exponent 3": other_key(e="Aw"),
    "attestation key of 1024 bits": other_key(n=base64url(b"\xff" * 128)),
    "attestation key without end": other_key(n=base64url(b"\xff" * 1024)),
    "attestation key that is no number": other_key(n="*"),
    "attestation key of other letters": other_key(n="é" * 300),
    "attestation key without a number": other_key(n=None),
    "no configuration": Case(runtime={"vm-configuration": ...}),
    "configuration that is none": Case(runtime={"vm-configuration": []}),
    "user data of 63 bytes": Case(runtime={"user-data": "00" * 63}),
    "user data that are no hex": Case(runtime={"user-data": "zz" * 64}),
    "user data that are a number": Case(runtime={"user-data": 7}),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_not_in_form_is_malformed(what: str) -> None:
    with pytest.raises(Malformed):
        judge(MALFORMED[what])


@pytest.mark.parametrize("case", [Case(certificate=ak_certificate()), tdx()], ids=["snp", "tdx"])
def test_what_is_packed_is_what_is_read(case: Case) -> None:
    names = {"hcl-report": "hcl_report", "td-quote": "td_quote", "tpm-certificate": "certificate"}
    parts = case.parts
    named = {names.get(label, label.removeprefix("tpm-")): value for label, value in parts.items()}
    assert pack_evidence(**named) == tpm.bundle(parts)


def test_a_report_of_the_paravisor_alone_is_no_evidence() -> None:
    """It may be of when the machine started, and anybody may have kept it since."""
    with pytest.raises(MalformedEvidence) as refused:
        judge(Case(), raw=Case().hcl_report)
    assert "challenge" in refused.value.hint


def spell(data: bytes, how: str) -> object:
    match how:
        case "hex":
            return data.hex()
        case "base64":
            return base64.b64encode(data).decode()
        case "base64url":
            return base64url(data)
        case _:
            return list(data)


def written_by_tools(case: Case, how: str, **changes: Any) -> bytes:
    """As the JSON of the guests' tools, in which a signature has no head."""
    parts = case.parts
    pcrs = [parts["tpm-pcrs"][at : at + 32] for at in range(0, len(parts["tpm-pcrs"]), 32)]
    quote = {
        "message": spell(parts["tpm-quote"], how),
        "signature": spell(parts["tpm-signature"][6:], how),
        "pcrs": [spell(one, how) for one in pcrs],
    }
    older = how == "numbers"
    found: dict[str, Any] = {
        "quote" if older else "tpm_quote": quote,
        "report" if older else "hcl_report": spell(parts["hcl-report"], how),
        "version": 1,
    }
    if "td-quote" in parts:
        found["td_quote"] = spell(parts["td-quote"], how)
    else:
        found["vcek"] = dcap.pem(parts["vcek"]).decode() if older else spell(parts["vcek"], how)
    return json.dumps(
        {key: value for key, value in {**found, **changes}.items() if value is not ...}
    ).encode()


@pytest.mark.parametrize("how", ["hex", "base64", "base64url", "numbers"])
@pytest.mark.parametrize("make", [Case, tdx])
def test_tools_may_spell_it_in_several_ways(make: Any, how: str) -> None:
    case: Case = make()
    raw = written_by_tools(case, how)
    assert judge(case, raw=raw).measurement == judge(case).measurement
    assert judge(case, raw=json.dumps({"platform": "az", "evidence": json.loads(raw)}).encode()).bound


@pytest.mark.parametrize(
    "changes",
    [
        {"report": "00"},
        {"hcl_report": ...},
        {"hcl_report": 7},
        {"hcl_report": [256]},
        {"hcl_report": [-1]},
        {"hcl_report": "é"},
        {"hcl_report": "0g="},
        {"tpm_quote": ...},
        {"tpm_quote": []},
        {"tpm_quote": {"message": "00", "signature": "00", "pcrs": "00"}},
        {"tpm_quote": {"message": "00", "signature": "00" * 70000, "pcrs": []}},
        {"td_quote": "00"},
        {"vcek": "-----BEGIN CERTIFICATE-----"},
        {"vcek": 7},
    ],
)
def test_what_tools_do_not_write_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        judge(Case(), raw=written_by_tools(Case(), "hex", **changes))


def test_a_key_twice_in_the_json_is_malformed() -> None:
    """A9."""
    raw = written_by_tools(Case(), "hex")
    with pytest.raises(MalformedEvidence, match="twice"):
        judge(Case(), raw=raw[:-1] + b', "version": 1}')


def section(text: str, case: Case | None = None, vtpm: str = "", vm: str = "") -> list[str]:
    """The policy checks that fail."""
    case = case or Case()
    kind = "azure-snp" if case.snp else "azure-tdx"
    both = "".join(f'{name} = "any"\n' for name in ("measurement", "selection") if name not in vtpm)
    lines = [
        f'version = 1\n[{kind}]\nvendor_root = "any"\nrevocation = "any"',
        "" if "measurement" in text else 'measurement = "any"',
        text,
        f'[{kind}.vtpm]\nvendor_root = "any"\n{both}{vtpm}',
        f"[{kind}.vm]\n{vm}" if vm else "",
    ]
    try:
        judge(case, policy=Policy.parse("\n".join(lines), [VERIFIER]))
    except PolicyDenied as refused:
        return [check.name for check in refused.failures]
    return []


def written(value: bytes) -> str:
    return f'["{value.hex()}"]'


DIGEST = judge(Case()).detail.vtpm.measurement  # type: ignore[attr-defined]
VTPM = [
    ("measurement", written(DIGEST), written(bytes([1]) * 32), "measurement"),
    ("selection", "[0, 1, 2, 3, 4, 5, 6, 7]", "[0, 1]", "selection"),
    ("pcrs", f"{{ pcr3 = {written(tpm.PCRS[3])} }}", f"{{ pcr3 = {written(tpm.PCRS[4])} }}", "pcrs.pcr3"),
    ("event_log", '"any"', "[0]", "event_log"),
    ("reset_count", "[3]", "[2]", "reset_count"),
]
VM = [
    ("secure_boot", "true", "false", "secure_boot"),
    ("console_enabled", "false", "true", "console_enabled"),
    ("tpm_persisted", "false", "true", "tpm_persisted"),
    ("vm_unique_id", f'["{CONFIGURATION["vmUniqueId"]}"]', '["another"]', "vm_unique_id"),
    ("user_data", written(USER_DATA), written(bytes(64)), "user_data"),
]


@pytest.mark.parametrize("make", [Case, tdx])
@pytest.mark.parametrize(("name", "met", "broken", "check"), VTPM)
def test_each_key_of_the_virtual_tpm_decides_alone(
    make: Any, name: str, met: str, broken: str, check: str
) -> None:
    case: Case = make()
    kind = "azure-snp" if case.snp else "azure-tdx"
    assert section("", case, vtpm=f"{name} = {met}") == []
    assert section("", case, vtpm=f"{name} = {broken}") == [f"policy.{kind}.vtpm.{check}"]


@pytest.mark.parametrize("make", [Case, tdx])
@pytest.mark.parametrize(("name", "met", "broken", "check"), VM)
def test_each_key_of_the_machine_decides_alone(
    make: Any, name: str, met: str, broken: str, check: str
) -> None:
    case: Case = make()
    kind = "azure-snp" if case.snp else "azure-tdx"
    assert section("", case, vm=f"{name} = {met}") == []
    assert section("", case, vm=f"{name} = {broken}") == [f"policy.{kind}.vm.{check}"]


@pytest.mark.parametrize(
    ("case", "met", "broken", "check"),
    [
        (
            Case(),
            f"measurement = {written(snp.MEASUREMENT)}",
            f"measurement = {written(b'1' * 48)}",
            "measurement",
        ),
        (
            Case(),
            "min_reported_tcb = { snp = 24 }",
            "min_reported_tcb = { snp = 25 }",
            "min_reported_tcb.snp",
        ),
        (tdx(), f"measurement = {written(dcap.MRTD)}", f"measurement = {written(b'1' * 48)}", "measurement"),
        (
            tdx(),
            "td_attributes = { perfmon = false }",
            "td_attributes = { perfmon = true }",
            "td_attributes.perfmon",
        ),
        (Case(certificate=ak_certificate()), "ak_certified = true", "ak_certified = false", "ak_certified"),
        (tdx(), "ak_certified = false", "ak_certified = true", "ak_certified"),
    ],
)
def test_keys_of_the_hardware_decide_as_in_its_own_section(
    case: Case, met: str, broken: str, check: str
) -> None:
    kind = "azure-snp" if case.snp else "azure-tdx"
    assert section(met, case) == []
    assert section(broken, case) == [f"policy.{kind}.{check}"]


@pytest.mark.parametrize("kind", ["azure-snp", "azure-tdx"])
def test_lint_names_a_guest_that_is_left_open(kind: str) -> None:
    base = f"version = 1\n[{kind}]\nmeasurement = {written(b'1' * 48)}\n[{kind}.vtpm]\nselection = [0]\n"
    pinned = f"measurement = {written(DIGEST)}", f'measurement = "any"\npcrs = {{ pcr0 = {written(DIGEST)} }}'
    for text in pinned:
        assert Policy.parse(base + text, [VERIFIER]).lint() == []
    (found,) = Policy.parse(base + 'measurement = "any"', [VERIFIER]).lint()
    assert found.startswith(f"{kind}.vtpm.measurement: ")


def test_secure_boot_is_asked_for_by_default() -> None:
    for off in (False, None, "true"):
        case = Case(runtime={"vm-configuration": {**CONFIGURATION, "secure-boot": off}})
        assert section("", case) == ["policy.azure-snp.vm.secure_boot"]


PARAVISOR = f"measurement = {written(snp.MEASUREMENT)}"
GUEST = f"measurement = {written(DIGEST)}"


@pytest.mark.parametrize(
    ("own", "vtpm", "known"),
    [
        (PARAVISOR, GUEST, True),
        (PARAVISOR, f'measurement = "any"\npcrs = {{ pcr4 = {written(tpm.PCRS[4])} }}', True),
        (PARAVISOR, 'measurement = "any"', False),
        ('measurement = "any"', GUEST, False),
    ],
)
def test_a_result_knows_the_executables_only_if_paravisor_and_guest_were_judged(
    own: str, vtpm: str, known: bool
) -> None:
    text = (
        f'version = 1\n[azure-snp]\nvendor_root = "any"\nrevocation = "any"\n{own}\n'
        f'[azure-snp.vtpm]\nvendor_root = "any"\nselection = "any"\n{vtpm}'
    )
    claims = judge(Case(), policy=Policy.parse(text, [VERIFIER]))
    assert ear_of(claims, now=NOW).appraisal.vector["executables"] == (3 if known else 33)


def test_a_debuggable_guest_is_denied_by_default() -> None:
    """A17."""
    case = Case(snp=snp.Case(report=snp.Report().but(policy=0xB001F)))
    assert section("", case) == ["policy.azure-snp.debug"]


def test_roots_of_ours_are_none_of_a_vendor_neither_for_the_hardware_nor_for_the_key() -> None:
    text = """
        version = 1
        [azure-snp]
        measurement = "any"
        revocation = "any"
        vtpm = { measurement = "any", selection = "any" }
    """
    with pytest.raises(PolicyDenied) as refused:
        judge(Case(), policy=Policy.parse(text, [VERIFIER]))
    assert [check.name for check in refused.value.failures] == [
        "policy.azure-snp.vendor_root",
        "policy.azure-snp.vtpm.vendor_root",
    ]


@pytest.mark.parametrize(
    "text",
    [
        '[azure-snp]\nmeasurement = "any"',
        '[azure-snp]\nmeasurement = "any"\nvtpm = { measurement = "any" }',
        '[azure-tdx]\nmeasurement = "any"\nvtpm = "any"',
        '[azure-tdx]\nvtpm = { measurement = "any", selection = "any" }',
        '[azure-snp]\nmeasurement = "any"\nvtpm = { measurement = "any", selection = "any" }\nvm = {}',
    ],
)
def test_paravisor_and_guest_must_both_be_written(text: str) -> None:
    """The paravisor's measurement says nothing of what it starts."""
    with pytest.raises(PolicyError):
        Policy.parse(f"version = 1\n{text}", [VERIFIER])


def test_a_policy_for_the_bare_hardware_is_none_for_a_machine_of_azure() -> None:
    text = 'version = 1\n[snp]\nmeasurement = "any"\nvendor_root = "any"\nrevocation = "any"'
    with pytest.raises(PolicyDenied) as refused:
        judge(Case(), policy=Policy.parse(text, BUILTIN.values()))
    assert [check.name for check in refused.value.failures] == ["policy.tee"]


@pytest.mark.parametrize("make", [Case, tdx])
def test_no_signed_byte_can_change(make: Any) -> None:
    """Of the collection: all but the envelope's media types, and what no signature is over."""
    case: Case = make()
    parts, collateral = case.parts, case.collateral
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=AuthenticityOnly(), cache=Cache())
    size = int.from_bytes(parts["hcl-report"][8:12], "little")
    of_snp, of_td = range(0x2A0), (0, *range(128, 192), *range(264, 384), *range(512, 912))
    signed = {
        "hcl-report": (*(32 + at for at in (of_snp if case.snp else of_td)), *range(1236, size)),
        "tpm-quote": range(len(parts["tpm-quote"])),
        "tpm-signature": range(len(parts["tpm-signature"])),
        "tpm-pcrs": range(len(parts["tpm-pcrs"])),
        "td-quote": range(48, 632),
    }
    for label, spots in signed.items():
        for at in spots if label in parts else ():
            flipped = bytearray(parts[label])
            flipped[at] ^= 1 << at % 8
            with pytest.raises(EnarxError):
                verifier.verify(
                    tpm.bundle({**parts, label: bytes(flipped)}),
                    collateral=collateral,
                    binding=NONCE,
                    now=NOW,
                )


def test_certificates_of_other_names_are_left_alone() -> None:
    """Collateral is a bag: what is of another machine is not looked at."""
    stranger = Cert(name=name("somebody else"), key=THEIRS, pkcs1=True)
    case = Case(collateral_certificates=(stranger, ak_certificate(THEIRS)))
    claims = judge(case)
    assert isinstance(claims.detail, AzureSnpDetail)
    assert not claims.detail.ak_certified
