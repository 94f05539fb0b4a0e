"""The page's table of counterparts names things that exist, and has all of the original's items."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Final

import ketuvim
from ketuvim import _ioctl, sev

PAGE: Final = Path(__file__).parents[3] / "docs" / "explanation" / "ketuvim.md"
PLACES: Final = (
    ketuvim,
    ketuvim.VirtualCpu,
    ketuvim.Kvm,
    ketuvim.MemoryFlags,
    ketuvim.MemoryRegion,
    ketuvim.Mapping,
)
MORE_PLACES: Final = (sev, sev.Started, sev.Launched, _ioctl, ketuvim.KvmUnavailable)
ELSEWHERE: Final = {"ketuvim/_numbers.py", "invalid kvm version", "enarx.attest.sev", "vm", "handle"}
"""A file, a message, another package, and fields, which a class with slots shows as well."""
ORIGINAL: Final = {
    "Kvm::open",
    "VirtualMachine::new",
    "VirtualMachine::add_region",
    "MemoryFlags",
    "VirtualCpu::new",
    "VirtualCpu::registers",
    "set_registers",
    "VirtualCpu::special_registers",
    "set_special_registers",
    "VirtualCpu::run",
    "Reason",
    "Halt",
    "Io",
    "Mmio",
    "arch::Registers",
    "SpecialRegisters",
    "arch::Segment",
    "DescriptorTable",
    "arch::SyncRegisters",
    "arch::CpuEvents",
    "arch::DebugExit",
    "arch::RunFlags",
    "run::*",
    "util::map::Map",
    "util::fd::Fd",
    "util::ioctl",
    "sev::Launch<Initialized>::new",
    "Launch<Initialized>::start",
    "Launch<Started>::update_data",
    "Launch<Started>::measure",
    "Launch<Measured>::measurement",
    "Launch<Measured>::inject",
    "Launch<Measured>::finish",
    "Handle",
    "sev::sev",
}


def rows() -> list[tuple[str, str]]:
    text = PAGE.read_text().partition("## Counterparts")[2]
    cells = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [
        (one.strip(), two.strip()) for one, two in cells if not one.strip().startswith(("original", "---"))
    ]


def exists(name: str) -> bool:
    parts = name.removeprefix("ketuvim.").split(".")
    found: object
    for place in (*PLACES, *MORE_PLACES):
        found = place
        for part in parts:
            found = getattr(found, part, None)
        if found is not None:
            return True
    try:
        found = importlib.import_module(f"ketuvim.{parts[0]}")
    except ModuleNotFoundError:
        return False
    return all((found := getattr(found, part, None)) is not None for part in parts[1:])


def test_every_counterpart_exists() -> None:
    names = {name for _, two in rows() for name in re.findall(r"`([^`]+)`", two)}
    names = {name.partition("(")[0] for name in names} - ELSEWHERE
    assert len(names) > 40
    assert {name for name in names if not exists(name)} == set()


def test_every_item_of_the_original_has_a_row() -> None:
    text = "\n".join(one for one, _ in rows())
    assert {item for item in ORIGINAL if item not in text} == set()
