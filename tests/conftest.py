"""What all tests share: the evidence folder beside the repository, and that nothing skips itself where it
counts.

Tests marked ``evidence`` read recorded evidence of real machines from ``../shared/evidence``. Where the
folder is absent they are deselected, with a message; under ``ENARX_CI=1`` its absence, and any skipped test,
is a failure. One exception must be said aloud: with ``ENARX_WITHOUT_KVM=1`` tests that need ``/dev/kvm`` may be
skipped, and are listed at the end.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from tests.evidence import FOLDER, Evidence

_IN_CI = os.environ.get("ENARX_CI") == "1"
_WITHOUT_KVM = os.environ.get("ENARX_WITHOUT_KVM") == "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs the evidence folder when there is none."""
    if FOLDER.is_dir():
        return
    wanting = [item for item in items if item.get_closest_marker("evidence")]
    if wanting and _IN_CI:
        raise pytest.UsageError(f"{len(wanting)} tests need the evidence folder, which is not at {FOLDER}")
    items[:] = [item for item in items if not item.get_closest_marker("evidence")]
    config.hook.pytest_deselected(items=wanting)


def pytest_report_header() -> str | None:
    """Say that evidence tests are left out."""
    return None if FOLDER.is_dir() else f"evidence: no folder at {FOLDER}, tests that need it are left out"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where every test must have run."""
    report = yield
    allowed = _WITHOUT_KVM and "needs /dev/kvm" in str(report.longrepr)
    if _IN_CI and report.skipped and not allowed and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and ENARX_CI=1 allows no skips: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def evidence() -> Evidence:
    """The evidence folder."""
    return Evidence()
