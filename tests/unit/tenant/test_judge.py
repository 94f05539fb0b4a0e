"""A keep's own record must tell of the evidence that we saw; a genuine keep that lies is none of ours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from enarx.attest import AuthenticityOnly, Claims, Collateral, PolicyDenied
from enarx.attest.checks import Check, Outcome
from enarx.tcb.binding import Binding, Role, Stage
from enarx.tcb.errors import Unavailable
from enarx.tcb.session import AuditLog, AuditRecord
from enarx.tcb.wire import Value
from enarx.tenant.judge import Judge, Keeper, KeepRejected, Verdict, check_keep_log
from enarx.tenant.steps import nobody
from enarx.tenant.verification import Trust


def seen(stage: Stage) -> Verdict:
    """What we accepted."""
    digest = b"w" * 32 if stage is Stage.LOCKED else b""
    binding = Binding(
        role=Role.KEEP,
        stage=stage,
        nonce=bytes(32),
        exporter=bytes(32),
        key=bytes(32),
        instance=bytes(16),
        tenant=bytes(32),
        workload=digest,
        configuration=digest,
    )
    return Verdict(
        stage=stage,
        binding=binding,
        evidence=b"",
        collateral=Collateral.none(),
        now=datetime.now(UTC),
        claims=cast("Claims", None),  # it is not looked at
    )


EMPTY, LOCKED = seen(Stage.EMPTY), seen(Stage.LOCKED)


def told(*verdicts: Verdict, **others: Value) -> list[AuditRecord]:
    """What the keep says it did."""
    log = AuditLog()
    log.append("life.boot", {"state": "empty"})
    log.append("note", "no map at all")
    for verdict in verdicts:
        facts: dict[str, Value] = {"stage": verdict.stage.value, "report_data": verdict.binding.report_data()}
        if verdict.stage is Stage.LOCKED:
            facts |= {"workload": b"w" * 32, "configuration": b"w" * 32}
        log.append("attested", {**facts, **others})
    return log.records


def test_the_same_story() -> None:
    check_keep_log(told(EMPTY, LOCKED), [EMPTY, LOCKED])
    check_keep_log(told(EMPTY, LOCKED), [LOCKED])


@pytest.mark.parametrize(
    "records", [[], told(EMPTY), told(LOCKED)], ids=["nothing", "no lock", "no challenge"]
)
def test_evidence_that_the_keep_does_not_remember(records: list[AuditRecord]) -> None:
    with pytest.raises(KeepRejected, match="does not tell"):
        check_keep_log(records, [EMPTY, LOCKED])


def test_another_stage() -> None:
    with pytest.raises(KeepRejected, match="does not tell"):
        check_keep_log(told(LOCKED, stage="empty"), [LOCKED])


@pytest.mark.parametrize("name", ["workload", "configuration"])
def test_another_workload(name: str) -> None:
    with pytest.raises(KeepRejected, match="another workload"):
        check_keep_log(told(LOCKED, **{name: b"o" * 32}), [LOCKED])


class Denied:
    """A trust to which all evidence is genuine and none acceptable, and a keeper of what was decided."""

    def __init__(self) -> None:
        self.kept: list[object] = []

    def judge(self, *_: object, policy: AuthenticityOnly | None = None, **__: object) -> Claims:
        if policy is None:
            failed = Check("policy.snp.measurement", Outcome.FAILED, (), "a", "b", "")
            raise PolicyDenied([failed], [failed])
        return cast("Claims", None)

    def verdict(self, *_: object, result: object, **__: Any) -> None:
        self.kept.append(result)


def test_a_refusal_whose_difference_cannot_be_found_is_still_that_refusal_and_kept() -> None:
    def unreadable(claims: Claims) -> str:
        raise Unavailable("the image is gone")

    denied = Denied()
    judge = Judge(
        trust=cast("Trust", denied),
        tee="snp",
        collateral=lambda evidence: Collateral.none(),
        clock=lambda: datetime.now(UTC),
        tell=nobody,
        keeper=cast("Keeper", denied),
        difference=unreadable,
    )
    with pytest.raises(PolicyDenied) as refused:
        judge.judge(EMPTY.binding, b"")
    assert denied.kept == [refused.value]
