"""Facts about QEMU and the programs beside it."""

from __future__ import annotations

import os
import re
from typing import Final

from enarx.host.platform._facts import Fact
from enarx.host.platform._machine import Machine

_VERSION: Final = re.compile(r"version (\d+)\.(\d+)(?:\.\d+)*")


def qemu(machine: Machine, program: str, least: tuple[int, int]) -> Fact:
    """State that ``program`` is there in at least version ``least``."""
    return program_fact(machine, "QEMU", program, least)


def program_fact(machine: Machine, name: str, program: str, least: tuple[int, int]) -> Fact:
    """State the same under another name."""
    advice = f"install {program}, version {least[0]}.{least[1]} or later"
    places = (folder for folder in machine.folders if machine.opens(f"{folder}/{program}", os.O_RDONLY))
    path = next(places, None)
    if path is None:
        return Fact(name=name, passed=False, info=f"no {program}", advice=advice)
    place = f"{path}/{program}"
    found = _VERSION.search(machine.version_of(machine.path(place)))
    passed = found is not None and (int(found[1]), int(found[2])) >= least
    info = f"{place}, {found[0] if found else 'version unknown'}"
    return Fact(name=name, passed=passed, info=info, advice="" if passed else advice)
