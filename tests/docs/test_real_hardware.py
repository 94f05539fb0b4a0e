"""What the page about real hardware shows is what machines like those that it speaks of get."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.hardware.target import TARGETS
from tests.unit.host.backends.test_hardware import BACKENDS
from tests.unit.host.platform.machines import INTEL_HOST, NOW, POWER9_HOST, SNP_HOST, Model

from enarx.cli._platform import render_text
from enarx.host.backends._machine import MachineBackend
from enarx.host.platform import judge

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "real-hardware.md").read_text()


def shown(name: str) -> Sequence[str]:
    """The lines that the page shows of what ``enarx platform info`` tells of a backend."""
    match = re.search(rf"(?m)^ *✔ Backend: {name}\n(?: +(?:✔|\.\.\.).*\n)+", PAGE)
    assert match, name
    return [line.strip() for line in match[0].splitlines()]


def in_order(wanted: Iterable[str], told: str) -> bool:
    """Whether all of ``wanted`` are lines of ``told`` in this order, and what is left out is marked."""
    lines = iter([line.strip() for line in told.splitlines()])
    return all(line in lines for line in wanted if line != "...")


@pytest.mark.parametrize(("name", "model"), [("snp", SNP_HOST), ("tdx", INTEL_HOST), ("pef", POWER9_HOST)])
def test_a_machine_that_is_set_up_is_told_what_the_page_shows(
    name: str, model: Model, tmp_path: Path
) -> None:
    report = judge(model.build(tmp_path), now=NOW, probe=lambda: "[]")
    backend = next(it for it in report.backends if it.name == name)
    assert backend.usable
    assert in_order(shown(name), render_text(replace(report, backends=[backend])))


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda it: it.protection.value)
def test_the_page_names_the_least_version_of_qemu(backend: type[MachineBackend]) -> None:
    row = next(line for line in PAGE.splitlines() if re.match(rf"\| .*`{backend.protection.value}`", line))
    assert ".".join(map(str, backend.least_qemu)) in row.split("|")[4]


def test_the_page_says_how_to_try_each_machine() -> None:
    assert all(f"`{name}`" in PAGE or f"TEE={name}" in PAGE for name in TARGETS)
    options = (Path(__file__).resolve().parents[1] / "hardware" / "conftest.py").read_text()
    named = set(re.findall(r'"(--[a-z-]+)"', options)) - {"--tee"}
    assert named
    assert all(name in PAGE for name in named)
