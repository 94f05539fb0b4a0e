"""What a policy may ask of any platform of Intel's; ``[sgx]`` and ``[tdx]`` add their own keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from enarx.attest.checks import show
from enarx.attest.dcap._documents import TcbStatus
from enarx.attest.dcap._pck import SgxType
from enarx.attest.errors import PolicyError
from enarx.attest.policy import TeeRules
from enarx.attest.rules import AtLeast, OneOf, Rule, at_least, boolean, denied, key, octets, texts, words

_UPDATE: Final = (
    "update the BIOS, microcode and software of the platform, then fetch its PCK certificate anew"
)


@dataclass(frozen=True, slots=True)
class Within:
    """Nothing but what is listed."""

    allowed: frozenset[str]

    def admits(self, value: object) -> bool:
        """Say whether all of a set is listed."""
        return isinstance(value, frozenset) and value <= self.allowed

    def __str__(self) -> str:
        return f"none but {show(self.allowed)}"


@dataclass(frozen=True, slots=True)
class Without:
    """Nothing of what is listed."""

    denied: frozenset[str]

    def admits(self, value: object) -> bool:
        """Say whether nothing of a set is listed."""
        return isinstance(value, frozenset) and not value & self.denied

    def __str__(self) -> str:
        return f"none of {show(self.denied)}"


def within(value: object) -> Rule:
    """A list of all that may occur; empty, so that nothing may."""
    return Within(_listed(value) if value != [] else frozenset())


def without(value: object) -> Rule:
    """A non-empty list of what must not occur."""
    return Without(_listed(value))


def _listed(value: object) -> frozenset[str]:
    rule = texts(value)
    assert isinstance(rule, OneOf)  # noqa: S101 -- what texts() gives
    return rule.values


def since(value: object) -> Rule:
    """A date as TOML writes it: ``2025-03-13``."""
    if not isinstance(value, date) or isinstance(value, datetime):
        raise PolicyError(f"expected a date without quotes, found {value!r}")
    return AtLeast(datetime(value.year, value.month, value.day, tzinfo=UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class DcapRules(TeeRules):
    """The keys that SGX and TDX share."""

    tcb_status: Rule = key(
        words(TcbStatus),
        path="detail.tcb.status",
        field=(),
        default=OneOf(frozenset({TcbStatus.UP_TO_DATE})),
        advice=_UPDATE,
    )
    advisories: Rule | None = key(
        within,
        path="detail.tcb.advisories",
        field=(),
        default=None,
        advice="the platform has a weakness that is not on the list of those you live with",
    )
    denied_advisories: Rule | None = key(
        without,
        path="detail.tcb.advisories",
        field=(),
        default=None,
        any_allowed=False,
        advice=_UPDATE,
    )
    min_tcb_evaluation_data_number: Rule | None = key(
        at_least(0xFFFFFFFF),
        path="detail.platform.tcb_evaluation_data_number",
        field=(),
        default=None,
        advice="the collateral is older than the TCB recovery you ask for; fetch it anew",
    )
    min_tcb_date: Rule | None = key(
        since, path="detail.tcb.level.date", field=(), default=None, advice=_UPDATE
    )
    fmspc: Rule | None = key(
        octets(6),
        path="detail.platform.pck.fmspc",
        field="certification.data",
        default=None,
        advice="another model of platform",
    )
    sgx_type: Rule | None = key(
        words(SgxType),
        path="detail.platform.pck.sgx_type",
        field="certification.data",
        default=None,
        advice="the platform protects its memory in another way",
    )
    smt: Rule | None = key(
        boolean,
        path="detail.platform.pck.smt",
        field="certification.data",
        default=None,
        advice="a setting of the machine's BIOS; single-socket platforms do not tell",
    )
    dynamic_platform: Rule | None = key(
        boolean,
        path="detail.platform.pck.dynamic_platform",
        field="certification.data",
        default=None,
        advice="packages can be added to the platform; single-socket platforms do not tell",
    )
    cached_keys: Rule | None = key(
        boolean,
        path="detail.platform.pck.cached_keys",
        field="certification.data",
        default=None,
        advice="Intel's registration service keeps the platform's root keys; single-socket platforms do not tell",
    )
    platforms: Rule | None = key(
        octets(16),
        path="chip_id",
        field="certification.data",
        default=None,
        advice="this platform (PPID) is not on the list",
    )
    denied_platforms: Rule | None = key(
        denied(16),
        path="chip_id",
        field="certification.data",
        default=None,
        any_allowed=False,
        advice="this platform (PPID) is known to be compromised",
    )

    def lint(self) -> Iterator[str]:
        """Say what in this section contradicts itself or does nothing."""
        if self.tcb_status.admits(TcbStatus.REVOKED) and isinstance(self.tcb_status, OneOf):
            yield "tcb_status: a revoked platform is never accepted"
        beyond = any(
            self.tcb_status.admits(status) for status in TcbStatus if status is not TcbStatus.UP_TO_DATE
        )
        if beyond and self.advisories is None and self.denied_advisories is None:
            yield "tcb_status: weaknesses are accepted whatever they are; list them in advisories"
