"""The ledger: every verdict lists the checks that were made, so explanations and coverage come from the same
data.

A check has a dotted name (``snp.signature``, ``dcap.tcb.status``, ``policy.snp.vmpl``) that is part of the
interface: tests assert it, scripts read it, and it does not change within a major version.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from enum import Enum
from typing import Final, NamedTuple, NoReturn

from enarx.attest.errors import CollateralMissing, EvidenceRejected

Fields = str | tuple[str, ...]
"""Names of evidence fields as ``fields()`` of the parsed evidence gives them; a parent covers its children.
"""


class Outcome(Enum):
    """What a check said."""

    PASSED = "passed"
    FAILED = "failed"
    NOTED = "noted"
    """Neither: a finding that the caller should see but that decides nothing by itself."""


class Phrase:
    """Words around values, put together only when somebody reads them: ``Phrase("at most {}", limit)``."""

    __slots__ = ("_template", "_values")

    def __init__(self, template: str, *values: object) -> None:
        self._template = template
        self._values = values

    def __str__(self) -> str:
        return self._template.format(
            *(value if type(value) is int else show(value) for value in self._values)
        )


class Check(NamedTuple):
    """One question that was put to the evidence, and the answer."""

    name: str
    outcome: Outcome
    fields: tuple[str, ...]
    expected: object
    found: object
    advice: str

    def sentence(self) -> str:
        """Say it for people: ``reported_tcb.microcode is 115, expected at least 206``."""
        subject = ", ".join(self.fields)
        return f"{subject + ' is ' if subject else ''}{show(self.found)}, expected {show(self.expected)}"


_new: Final = tuple.__new__
_PASSED: Final = Outcome.PASSED
_FAILED: Final = Outcome.FAILED


class Ledger:
    """The checks made so far. A failing check is recorded and raises; a verifier cannot forget to look at the
    answer.
    """

    __slots__ = ("_checks",)

    def __init__(self) -> None:
        self._checks: list[Check] = []

    def require(
        self, name: str, ok: bool, *, field: Fields = (), expected: object, found: object, advice: str = ""
    ) -> None:
        """Record the check. Raises ``EvidenceRejected`` unless ``ok``."""
        outcome = _PASSED if ok else _FAILED  # not by way of judge: a verdict has dozens of these
        names = (field,) if type(field) is str else field
        self._checks.append(_new(Check, (name, outcome, names, expected, found, advice)))
        if not ok:
            raise EvidenceRejected(self._checks[-1], self._checks)

    def equal(self, name: str, expected: bytes, found: bytes, *, field: Fields, advice: str = "") -> None:
        """Compare bytes in constant time and record it. Raises ``EvidenceRejected`` unless they are equal."""
        self.require(
            name,
            hmac.compare_digest(expected, found),
            field=field,
            expected=expected,
            found=found,
            advice=advice,
        )

    def note(
        self, name: str, *, field: Fields = (), expected: object, found: object, advice: str = ""
    ) -> None:
        """Record a finding that decides nothing."""
        self._checks.append(Check(name, Outcome.NOTED, _names(field), expected, found, advice))

    def judge(
        self, name: str, ok: bool, *, field: Fields = (), expected: object, found: object, advice: str = ""
    ) -> bool:
        """Record the check and give ``ok`` back without raising: only for appraisal, which collects all
        failures.
        """
        outcome = Outcome.PASSED if ok else Outcome.FAILED
        self._checks.append(Check(name, outcome, _names(field), expected, found, advice))
        return ok

    def missing(self, name: str, what: str, *, advice: str) -> NoReturn:
        """Record that ``what`` was not given. Raises ``CollateralMissing``."""
        self._checks.append(Check(name, Outcome.FAILED, (), what, None, advice))
        raise CollateralMissing(self._checks[-1], self._checks)

    def __iter__(self) -> Iterator[Check]:
        return iter(self._checks)

    def __len__(self) -> int:
        return len(self._checks)

    def checks(self) -> tuple[Check, ...]:
        """All checks so far, in the order in which they were made."""
        return tuple(self._checks)


def uncovered(fields: Iterable[str], checks: Iterable[Check]) -> tuple[str, ...]:
    """Name the evidence fields that no check looked at by value. A check of ``policy`` covers
    ``policy.debug``.

    The signature covers every byte but judges none; it names no field.
    """
    looked = {name for check in checks for name in check.fields}
    return tuple(name for name in fields if not any(prefix in looked for prefix in _prefixes(name)))


def explain(checks: Iterable[Check]) -> str:
    """Give one line a check, with advice below what failed."""
    lines: list[str] = []
    for check in checks:
        lines.append(f"{check.outcome.value:<6}  {check.name}: {check.sentence()}")
        if check.advice and check.outcome is not Outcome.PASSED:
            lines.append(f"        {check.advice}")
    return "\n".join(lines)


def show(value: object) -> str:
    """Spell a value for people: bytes in hex, times in ISO 8601, nothing as ``absent``."""
    match value:
        case None:
            return "absent"
        case bool():
            return "true" if value else "false"
        case bytes():
            return value.hex() or "empty"
        case datetime():
            return _utc(value)
        case Enum():
            return str(value.value)
        case set() | frozenset():
            return " or ".join(sorted(show(item) for item in value)) or "nothing"
        case tuple() | list():
            return ", ".join(show(item) for item in value) or "nothing"
        case _:
            return str(value)


def _utc(value: datetime) -> str:
    """A time without a zone is one of UTC; the first and the last day of the calendar may not be so elsewhere."""
    try:
        value = value.astimezone(UTC) if value.tzinfo else value
    except OverflowError:
        return value.isoformat(timespec="seconds")
    return f"{value.replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def _names(field: Fields) -> tuple[str, ...]:
    return (field,) if isinstance(field, str) else field


def _prefixes(name: str) -> Iterator[str]:
    yield name
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
