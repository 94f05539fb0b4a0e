"""What is not in the form of Azure's evidence is malformed; the tools of guests may spell it in several ways."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.forge import tpm
from tests.forge.azure import Case, ak_certificate, base64url, by_tools, judge, jwk, tdx
from tests.forge.pki import rsa_key

from enarx.attest import MalformedEvidence
from enarx.attest.azure import pack_evidence
from enarx.tcb.errors import Malformed

THEIRS = rsa_key("ak of an attacker")


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


@pytest.mark.parametrize("how", ["hex", "base64", "base64url", "numbers"])
@pytest.mark.parametrize("make", [Case, tdx])
def test_tools_may_spell_it_in_several_ways(make: Any, how: str) -> None:
    case: Case = make()
    raw = by_tools(case, how)
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
        judge(Case(), raw=by_tools(Case(), "hex", **changes))


def test_a_key_twice_in_the_json_is_malformed() -> None:
    """A9."""
    raw = by_tools(Case(), "hex")
    with pytest.raises(MalformedEvidence, match="twice"):
        judge(Case(), raw=raw[:-1] + b', "version": 1}')
