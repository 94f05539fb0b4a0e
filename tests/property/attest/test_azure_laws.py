"""Laws of Azure's evidence: parsing is total, what is read is what was written, spelling makes no difference."""

from __future__ import annotations

import json
from typing import Any

from fuzz.azure import hcl_report, one
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.forge.azure import Case, spell, tdx

from enarx.attest.azure import parse_evidence, parse_hcl_report

ON_SNP, ON_TDX = Case().raw, tdx().raw
REPORT = Case().hcl_report
SCALAR = st.none() | st.booleans() | st.integers() | st.text(max_size=12)
JSON = st.recursive(
    SCALAR | st.floats(allow_nan=True),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
CONFIGURATION = st.dictionaries(st.text(max_size=12), SCALAR, max_size=6)


@given(st.binary(max_size=2048))
def test_any_bytes_are_evidence_or_malformed(data: bytes) -> None:
    one(data)
    one(b"HCLA" + data)


@given(JSON, JSON, JSON)
def test_any_json_is_evidence_or_malformed(first: Any, second: Any, third: Any) -> None:
    one(json.dumps({"hcl_report": first, "tpm_quote": {"message": second, "pcrs": [third]}}).encode())
    one(json.dumps({"report": list(REPORT), "quote": first, "vcek": second}).encode())
    one(json.dumps({"keys": [first], "vm-configuration": second, "user-data": third}).encode())


@given(st.sampled_from((ON_SNP, ON_TDX)), st.floats(0, 1, exclude_max=True), st.binary(max_size=8))
@settings(deadline=None)
def test_evidence_with_anything_in_it_is_read_or_malformed(raw: bytes, where: float, data: bytes) -> None:
    at = int(where * len(raw))
    one(raw[:at] + data + raw[at + len(data) :])


@given(st.binary(min_size=64, max_size=64), CONFIGURATION, st.integers(0, 400))
@settings(max_examples=40, deadline=None)
def test_what_a_report_says_is_what_was_put_in(
    user_data: bytes, configuration: dict[str, Any], padding: int
) -> None:
    runtime = {"user-data": user_data.hex(), "vm-configuration": configuration}
    read = parse_hcl_report(Case(runtime=runtime, padding=bytes(padding)).hcl_report)
    assert read.runtime.user_data == user_data
    assert dict(read.runtime.vm_configuration) == configuration
    assert read.expected_report_data == read.hardware[0x50:0x90]
    assert parse_hcl_report(hcl_report(read.runtime.raw)).runtime == read.runtime


@given(st.lists(st.sampled_from(("hex", "base64", "base64url", "numbers")), min_size=4, max_size=4))
@settings(max_examples=20, deadline=None)
def test_spelling_of_bytes_makes_no_difference(spellings: list[str]) -> None:
    parts = Case().parts
    order = ("hcl-report", "tpm-quote", "tpm-signature", "tpm-pcrs")
    found = {
        label: spell(parts[label][6:] if label == "tpm-signature" else parts[label], how)
        for label, how in zip(order, spellings, strict=True)
    }
    quote = {"message": found["tpm-quote"], "signature": found["tpm-signature"], "pcrs": [found["tpm-pcrs"]]}
    document = {"hcl_report": found["hcl-report"], "tpm_quote": quote, "vcek": list(parts["vcek"])}
    assert parse_evidence(json.dumps(document).encode()) == parse_evidence(
        json.dumps({**document, "hcl_report": list(parts["hcl-report"])}).encode()
    )
    assert (
        parse_evidence(json.dumps(document).encode()).hcl.runtime
        == parse_hcl_report(parts["hcl-report"]).runtime
    )
