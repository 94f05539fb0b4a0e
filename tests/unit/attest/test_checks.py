"""The ledger: what is recorded, how it is told, and what no check looked at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from enarx.attest import CollateralMissing, EvidenceRejected, Outcome, Revocation, explain, uncovered
from enarx.attest.checks import Ledger, Phrase, show


def test_a_check_that_fails_raises_with_all_checks_so_far() -> None:
    ledger = Ledger()
    ledger.require("x.first", True, field="a", expected=1, found=1)
    with pytest.raises(EvidenceRejected) as refused:
        ledger.require("x.second", False, field="b", expected=b"\x01", found=b"\x02", advice="do this")
    assert [check.name for check in refused.value.checks] == ["x.first", "x.second"]
    assert str(refused.value) == "x.second: b is 02, expected 01"
    assert refused.value.hint == "do this"


def test_comparing_bytes_fails_on_any_difference_and_on_length() -> None:
    for found in (b"", b"ab\x00", b"aB"):
        with pytest.raises(EvidenceRejected):
            Ledger().equal("x.y", b"ab", found, field="y")
    Ledger().equal("x.y", b"ab", b"ab", field="y")


def test_what_is_missing_is_another_error() -> None:
    with pytest.raises(CollateralMissing) as missing:
        Ledger().missing("x.crl", "the list", advice="fetch it")
    assert missing.value.check.name == "x.crl"
    assert str(missing.value) == "x.crl: absent, expected the list"


def test_coverage_names_the_fields_that_no_check_looked_at() -> None:
    ledger = Ledger()
    ledger.require("x.policy", True, field="policy", expected=1, found=1)
    ledger.note("x.note", field=("tcb.snp", "vmpl"), expected=1, found=2)
    fields = ("policy.debug", "policy.abi", "policy_other", "tcb.snp", "tcb.tee", "vmpl")
    assert uncovered(fields, ledger) == ("policy_other", "tcb.tee")


def test_explanation_has_a_line_a_check_and_advice_where_it_helps() -> None:
    ledger = Ledger()
    ledger.require("x.good", True, field="a", expected=1, found=1, advice="not shown")
    ledger.note("x.note", expected="b", found=None, advice="shown")
    assert explain(ledger).splitlines() == [
        "passed  x.good: a is 1, expected 1",
        "noted   x.note: absent, expected b",
        "        shown",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "absent"),
        (True, "true"),
        (b"", "empty"),
        (b"\x0a", "0a"),
        (datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC), "2025-01-02T03:04:05Z"),
        (datetime(2025, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2025-01-02T03:04:05Z"),
        (datetime(2025, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5))), "2025-01-01T22:04:05Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))), "0001-01-01T00:00:00+05:00"),
        (Revocation.STALE, "stale"),
        (frozenset({2, 1}), "1 or 2"),
        ((1, b"\x02"), "1, 02"),
        ((), "nothing"),
        (Phrase("at most {} of {:#x}", b"\x01", 16), "at most 01 of 0x10"),
    ],
)
def test_values_are_spelled_for_people(value: object, text: str) -> None:
    assert show(value) == text


def test_outcomes_are_the_words_of_results() -> None:
    assert [outcome.value for outcome in Outcome] == ["passed", "failed", "noted"]
