"""Event logs of a TD lead to the registers of its quote, or the pair is refused (A20; recipes of the manifest)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from tests.evidence import FOLDER, Evidence
from tests.forge.dcap import REPORT_DATA, tdx
from tests.forge.pki import NOW

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Claims,
    Collateral,
    Document,
    EvidenceRejected,
    Kind,
    Policy,
    PolicyDenied,
    TrustAnchors,
    Verifier,
)
from enarx.attest._eventlog import Algorithm, replay
from enarx.attest.tdx import VERIFIER, TdxDetail, parse_tdx_quote
from enarx.attest.tdx._log import RUNTIME_EVENT, parse_td_log
from enarx.tcb.errors import Malformed

LOGS = {
    "tdx/v4-gcp-cos113-ccel": "cc_event_log",
    "tdx/v4-dstack-eventlog": "rtmr_event_log_json",
    "tdx/v4-tappd": "cc_event_log",
}


def appraise(evidence: Evidence, name: str, *logs: bytes) -> Claims:
    sample = evidence.sample(name)
    entry = sample.entry["appraisals"][0]
    read = {role: (FOLDER / path).read_bytes() for role, path in entry["collateral"].items()}
    given = Collateral.from_pem(
        read["tcb_info_and_qe_identity_issuer_chain"] + read["pck_crl_issuer_chain"]
    ) | Collateral(
        crls=(read["pck_crl"], read["root_ca_crl"]),
        documents=(
            Document(Kind.TCB_INFO, read["tcb_info"]),
            Document(Kind.QE_IDENTITY, read["qe_identity"]),
            *(Document(Kind.EVENT_LOG, log) for log in logs),
        ),
    )
    verifier = Verifier(tees=[VERIFIER], anchors=TrustAnchors.vendor(), policy=AuthenticityOnly())
    return verifier.verify(
        sample.read("quote"),
        collateral=given,
        binding=AnyBinding(),
        now=datetime.fromisoformat(entry["verification_time"]),
    )


@pytest.mark.evidence
@pytest.mark.parametrize("name", ["tdx/v4-gcp-cos113-ccel", "tdx/v4-dstack-eventlog"])
def test_logs_of_real_machines_lead_to_their_registers(evidence: Evidence, name: str) -> None:
    claims = appraise(evidence, name, evidence.sample(name).read(LOGS[name]))
    assert isinstance(claims.detail, TdxDetail)
    assert claims.detail.explained == {0, 1, 2, 3}
    assert claims.detail.all_explained
    checks = {check.name for check in claims.checks if check.name.startswith("tdx.event_log")}
    assert {"tdx.event_log.rtmr0", "tdx.event_log.rtmr1", "tdx.event_log.rtmr2"} <= checks
    alone = appraise(evidence, name)
    assert isinstance(alone.detail, TdxDetail)
    assert not alone.detail.all_explained


@pytest.mark.evidence
def test_the_log_of_another_boot_is_refused(evidence: Evidence) -> None:
    """Its RTMR0 is that of the quote, its RTMR1 is not."""
    log = evidence.sample("tdx/v4-tappd").read("cc_event_log")
    with pytest.raises(EvidenceRejected) as refused:
        appraise(evidence, "tdx/v4-tappd", log)
    assert refused.value.check.name == "tdx.event_log.rtmr1"


@pytest.mark.evidence
def test_of_two_logs_each_must_fit(evidence: Evidence) -> None:
    name = "tdx/v4-gcp-cos113-ccel"
    logs = [evidence.sample(one).read(LOGS[one]) for one in (name, "tdx/v4-dstack-eventlog")]
    for order in (logs, logs[::-1]):
        with pytest.raises(EvidenceRejected) as refused:
            appraise(evidence, name, *order)
        assert refused.value.check.name == "tdx.event_log.rtmr0"


CHANGES: dict[str, Callable[[list[dict[str, Any]]], None]] = {
    "an event less": lambda log: log.remove(log[3]),
    "an event more": lambda log: log.append(log[-1]),
    "another order": lambda log: log.insert(1, log.pop(0)),
    "another digest": lambda log: log[0].update(digest="00" * 48),
    "another register": lambda log: log[0].update(imr=1),
    "not extended": lambda log: log[0].update(event_type=3),
}


@pytest.mark.evidence
@pytest.mark.parametrize("change", CHANGES)
def test_changed_logs_are_refused(evidence: Evidence, change: str) -> None:
    name = "tdx/v4-dstack-eventlog"
    log = json.loads(evidence.sample(name).read(LOGS[name]))
    CHANGES[change](log)
    with pytest.raises(EvidenceRejected) as refused:
        appraise(evidence, name, json.dumps(log).encode())
    assert refused.value.check.name.startswith("tdx.event_log.rtmr")


@pytest.mark.evidence
@pytest.mark.parametrize("member", ["event", "event_payload"])
def test_what_a_runtime_event_says_must_be_what_was_measured(evidence: Evidence, member: str) -> None:
    """The payload or the name alone is changed: the digests still lead to the register."""
    name = "tdx/v4-dstack-eventlog"
    log = json.loads(evidence.sample(name).read(LOGS[name]))
    event = next(one for one in log if one["event"] == "app-id")
    event[member] = "00" + event[member][2:]
    with pytest.raises(Malformed, match="does not cover"):
        appraise(evidence, name, json.dumps(log).encode())


def runtime_event(name: str = "x", payload: bytes = b"y", register: int = 3) -> dict[str, Any]:
    digest = hashlib.sha384(RUNTIME_EVENT.to_bytes(4, "little") + f":{name}:".encode() + payload)
    return {
        "imr": register,
        "event_type": RUNTIME_EVENT,
        "digest": digest.hexdigest(),
        "event": name,
        "event_payload": payload.hex(),
    }


def dumped(*events: object) -> bytes:
    return json.dumps(events).encode()


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in runtime_event().items() if key != name}


def separator() -> dict[str, Any]:
    return {**runtime_event("", bytes(4)), "event_type": 4, "digest": hashlib.sha384(bytes(4)).hexdigest()}


BAD: dict[str, bytes] = {
    "not JSON": b"[",
    "deep": b"[" * 100_000,
    "no object": dumped([1]),
    "a list of pairs": dumped(list(runtime_event().items())),
    **{f"without {name}": dumped(without(name)) for name in runtime_event()},
    "one member more": dumped({**runtime_event(), "x": 1}),
    "a member twice": dumped(runtime_event()).replace(b'"imr": 3', b'"imr": 3, "imr": 3'),
    "register 4": dumped({**runtime_event(), "imr": 4}),
    "register true": dumped({**runtime_event(), "imr": True}),
    "a negative register": dumped({**runtime_event(), "imr": -1}),
    "a type of five bytes": dumped({**runtime_event(), "event_type": 1 << 32}),
    "a short digest": dumped({**runtime_event(), "digest": "00" * 47}),
    "a digest that is no hex": dumped({**runtime_event(), "digest": "x" * 96}),
    "too many": dumped(*[runtime_event()] * 16385),
    "a separator whose digest is of other data": dumped({**runtime_event(), "event_type": 4}),
    "two separators": dumped(*[separator()] * 2),
}


def test_one_separator_is_read() -> None:
    assert len(parse_td_log(dumped(separator())).events) == 1


@pytest.mark.parametrize("why", BAD)
def test_logs_that_are_not_in_form_are_refused(why: str) -> None:
    with pytest.raises(Malformed):
        parse_td_log(BAD[why])


def judge(policy: Policy | AuthenticityOnly, *events: dict[str, Any]) -> Claims:
    registers = replay(parse_td_log(dumped(*events)), Algorithm.SHA384)
    body: dict[str, int | bytes] = {f"rtmr{at}": registers.get(at + 1, bytes(48)) for at in range(4)}
    case = tdx(body=body)
    log = Collateral(documents=(Document(Kind.EVENT_LOG, dumped(*events)),))
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=policy)
    return verifier.verify(case.quote.raw, collateral=case.collateral | log, binding=REPORT_DATA, now=NOW)


def test_a_policy_may_ask_that_logs_explain_every_register() -> None:
    policy = Policy.parse(
        'version = 1\n[tdx]\nmeasurement = "any"\nvendor_root = "any"\nevent_log = true', [VERIFIER]
    )
    assert judge(policy, runtime_event(), runtime_event(register=0)).policy_digest == policy.digest
    case = tdx()
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=policy)
    with pytest.raises(PolicyDenied) as refused:
        verifier.verify(case.quote.raw, collateral=case.collateral, binding=REPORT_DATA, now=NOW)
    assert [check.name for check in refused.value.failures] == ["policy.tdx.event_log"]


def test_a_log_for_a_register_that_is_zero_is_refused() -> None:
    case = tdx()
    assert not any(parse_tdx_quote(case.quote.raw).report.rtmr3)
    log = Collateral(documents=(Document(Kind.EVENT_LOG, dumped(runtime_event())),))
    verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=AuthenticityOnly())
    with pytest.raises(EvidenceRejected) as refused:
        verifier.verify(case.quote.raw, collateral=case.collateral | log, binding=REPORT_DATA, now=NOW)
    assert refused.value.check.name == "tdx.event_log.rtmr3"


@pytest.mark.parametrize("register", range(4))
def test_each_register_fails_alone(register: int) -> None:
    """The log explains all four, but one of the quote has another value."""
    events = [runtime_event(register=at) for at in range(4)]
    registers = replay(parse_td_log(dumped(*events)), Algorithm.SHA384)
    body: dict[str, int | bytes] = {f"rtmr{at}": registers[at + 1] for at in range(4)}
    log = Collateral(documents=(Document(Kind.EVENT_LOG, dumped(*events)),))
    for changed in (body, {**body, f"rtmr{register}": b"\x01" * 48}):
        case = tdx(body=changed)
        verifier = Verifier(tees=[VERIFIER], anchors=case.anchors, policy=AuthenticityOnly())
        given = case.collateral | log
        if changed == body:
            verifier.verify(case.quote.raw, collateral=given, binding=REPORT_DATA, now=NOW)
            continue
        with pytest.raises(EvidenceRejected) as refused:
            verifier.verify(case.quote.raw, collateral=given, binding=REPORT_DATA, now=NOW)
        assert refused.value.check.name == f"tdx.event_log.rtmr{register}"
