"""One tenant's judgement of one keep: evidence in, verdict out, and every verdict told and recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from enarx.attest import AuthenticityOnly, Claims, Collateral, EvidenceRejected, PolicyDenied
from enarx.attest.launch import PreBoot
from enarx.tcb.binding import Binding, Stage
from enarx.tcb.errors import EnarxError
from enarx.tcb.session import AuditRecord
from enarx.tenant.steps import Observer, Step, What, Who
from enarx.tenant.verification import Trust, summary


class KeepRejected(EnarxError):
    """The keep is not what it must be, though its evidence is genuine: another TEE, another instance, another past."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """An accepted piece of evidence, with all that it was judged by."""

    stage: Stage
    binding: Binding = field(repr=False)
    evidence: bytes = field(repr=False)
    collateral: Collateral = field(repr=False)
    now: datetime
    claims: Claims = field(repr=False)

    @property
    def facts(self) -> dict[str, str]:
        """The verdict in a few words."""
        return summary(self.claims)


class Keeper(Protocol):
    """Whoever keeps verdicts for later."""

    def verdict(
        self,
        trust: Trust,
        evidence: bytes,
        collateral: Collateral,
        binding: Binding,
        *,
        now: datetime,
        launch: PreBoot | None,
        result: Claims | EnarxError,
    ) -> None:
        """Record a decision with all that it rests on."""


@dataclass(slots=True, kw_only=True)
class Judge:
    """Judges all evidence of one keep, which must stay the same from the first to the last."""

    trust: Trust
    tee: str
    """What was asked for and said to be given."""
    collateral: Callable[[bytes], Collateral]
    """Collateral for some evidence: the host's, the vendor's, or what the tenant has."""
    clock: Callable[[], datetime]
    tell: Observer
    whole: Callable[[bytes], bytes] = bytes
    """Puts together what a keep shows and what its launch showed (pre-boot TEEs)."""
    launch: Callable[[], PreBoot | None] = lambda: None
    keeper: Keeper | None = None
    difference: Callable[[Claims], str] = lambda claims: ""
    """Names what is different of a keep whose evidence is genuine and was refused; advice, which decides nothing."""
    verdicts: list[Verdict] = field(default_factory=list)

    def judge(self, binding: Binding, shown: bytes) -> Verdict:
        """Verify, compare, appraise. Raises the errors of ``Verifier.verify``, and ``KeepRejected``."""
        now = self.clock()
        evidence, collateral = self.whole(shown), self.collateral(shown)
        launch = self.launch()
        result: Claims | EnarxError | None = None
        try:
            result = self.trust.judge(evidence, collateral, binding, now=now, launch=launch)
            self._compare(result)
        except EnarxError as error:
            if isinstance(error, PolicyDenied):
                with contextlib.suppress(EnarxError):  # what cannot be named must not hide the refusal
                    genuine = self.trust.judge(
                        evidence, collateral, binding, now=now, launch=launch, policy=AuthenticityOnly()
                    )
                    error.hint = self.difference(genuine) or error.hint
            result = error if result is None else result
            facts = {"stage": binding.stage.value, "reason": str(error), "advice": error.hint}
            if isinstance(error, EvidenceRejected):
                facts["check"] = error.check.name
            self.tell(Step(who=Who.TENANT, what=What.REJECTED, text=f"rejected: {error}", facts=facts))
            raise
        finally:
            if self.keeper is not None and result is not None:
                self.keeper.verdict(
                    self.trust, evidence, collateral, binding, now=now, launch=launch, result=result
                )
        verdict = Verdict(
            stage=binding.stage,
            binding=binding,
            evidence=evidence,
            collateral=collateral,
            now=now,
            claims=result,
        )
        self.verdicts.append(verdict)
        facts = {"stage": binding.stage.value, "instance": binding.instance.hex(), **verdict.facts}
        text = f"accepted: {facts['tee']}, {binding.stage.value}, measurement {facts['measurement'][:16]}…"
        self.tell(Step(who=Who.TENANT, what=What.ACCEPTED, text=text, facts=facts))
        return verdict

    def _compare(self, claims: Claims) -> None:
        """Hold genuine and acceptable evidence against what else we know."""
        if claims.tee.value != self.tee:
            hint = "the host gives another TEE than it says"
            raise KeepRejected(
                f"expected evidence of {self.tee}, found that of {claims.tee.value}", hint=hint
            )
        for verdict in self.verdicts:
            before = verdict.claims
            if (before.measurement, before.root, before.chip_id) != (
                claims.measurement,
                claims.root,
                claims.chip_id,
            ):
                raise KeepRejected("the keep's evidence changed from one stage to the next")


def check_keep_log(records: Sequence[AuditRecord], verdicts: Sequence[Verdict]) -> None:
    """Hold the keep's own records against what we saw of it. Raises ``KeepRejected``."""
    told = {}
    for record in records:
        if isinstance(record.facts, dict) and isinstance(record.facts.get("report_data"), bytes):
            told[record.facts["report_data"]] = record.facts
    for verdict in verdicts:
        facts = told.get(verdict.binding.report_data())
        if facts is None or facts.get("stage") != verdict.stage.value:
            raise KeepRejected("the keep's record does not tell of the evidence that it gave us")
        binding = verdict.binding
        named = (facts.get("workload", binding.workload), facts.get("configuration", binding.configuration))
        if named != (binding.workload, binding.configuration):
            raise KeepRejected("the keep's record tells of another workload")
