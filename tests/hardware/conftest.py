"""Tests for machines that have a TEE: ``pytest tests/hardware --tee=snp``, docs/how-to/real-hardware.md.

The ordinary run leaves this folder out. ``--emulated STATE`` runs the same tests on an emulated platform, whose agent
is the only thing that differs: so the tests themselves can be tried where there is no TEE.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hardware.target import TARGETS, Agent, Target, Timings, vm_image
from tests.integration.conftest import example, guest  # noqa: F401 (fixtures of tests here, too)

TIMINGS = pytest.StashKey[Timings]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hardware", "machines that have a TEE (tests/hardware)")
    group.addoption("--tee", choices=sorted(TARGETS), help="the TEE of this machine that is tried")
    group.addoption(
        "--emulated",
        type=Path,
        metavar="STATE",
        help="try a running emulated platform instead, by its state directory",
    )
    group.addoption(
        "--vm-image",
        type=Path,
        metavar="DIR",
        help="the image of VM keeps; default: one is built from this checkout",
    )
    group.addoption(
        "--trust-root",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="trust this root, too; on a PEF machine its public key",
    )
    group.addoption(
        "--collateral",
        metavar="vendor|host|PATH",
        help="where evidence is verified with; default: what the vendor serves for snp and tdx, else the host",
    )
    group.addoption(
        "--policy",
        type=Path,
        metavar="FILE",
        help="accept by this policy, where firmware of the machine is older than the default allows",
    )
    group.addoption(
        "--amd-certificates",
        type=Path,
        metavar="FILE",
        help="CEK, ASK and ARK of this chip in a row, for sev and sev-es",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "tees(*names): makes sense on these TEEs only")
    config.stash[TIMINGS] = Timings()


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Collect nothing here unless a TEE is named."""
    return True if config.getoption("--tee", default=None) is None else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the TEE does not have; say so by deselecting, since nothing is skipped."""
    tee = config.getoption("--tee", default=None)
    wrong = [item for item in items if (only := item.get_closest_marker("tees")) and tee not in only.args]
    items[:] = [item for item in items if item not in wrong]
    config.hook.pytest_deselected(items=wrong)


def pytest_report_header(config: pytest.Config) -> str | None:
    tee, emulated = config.getoption("--tee", default=None), config.getoption("--emulated", default=None)
    return (
        None if tee is None else f"tee: {tee}, {f'EMULATED at {emulated}' if emulated else 'of this machine'}"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how long everything took."""
    lines = config.stash[TIMINGS].lines()
    if lines:
        terminalreporter.section("seconds since each deployment was begun")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def timings(pytestconfig: pytest.Config) -> Timings:
    """Where tests write down how long things take."""
    return pytestconfig.stash[TIMINGS]


@pytest.fixture(scope="session")
def target(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Target:
    """The machine that is tried, and what its tenant expects."""
    option = pytestconfig.getoption
    return Target(
        kind=TARGETS[option("--tee")],
        emulated=option("--emulated"),
        image=vm_image(option("--vm-image")),
        folder=tmp_path_factory.mktemp("target"),
        roots=tuple(option("--trust-root")),
        collateral_from=option("--collateral"),
        policy=option("--policy"),
        amd_certificates=option("--amd-certificates"),
    )


@pytest.fixture(scope="session")
def agent(target: Target) -> Iterator[Agent]:
    """The host agent of this machine, which launches the image."""
    with Agent(target, target.image.kernel.parent) as running:
        yield running
