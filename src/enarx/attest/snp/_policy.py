"""What a policy may ask of an SNP report. Each key is one line of docs/reference/policy.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from enarx.attest.errors import PolicyError
from enarx.attest.policy import TeeRules
from enarx.attest.rules import (
    AtLeast,
    Exactly,
    OneOf,
    Rule,
    at_least,
    boolean,
    denied,
    digests,
    integers,
    key,
    octets,
    table,
    texts,
    version,
    words,
)
from enarx.attest.snp._report import Line, SigningKey

_UPDATE: Final = "update the firmware of the machine (or its BIOS), or lower the minimum if that is what you accept"


@dataclass(frozen=True, slots=True, kw_only=True)
class MinimumTcb:
    """Least security versions, component by component. ``fmc`` exists from Turin on."""

    fmc: Rule | None = key(at_least(255), path="fmc", field="fmc", default=None, advice=_UPDATE)
    bootloader: Rule | None = key(at_least(255), path="bootloader", field="bootloader", default=None, advice=_UPDATE)
    tee: Rule | None = key(at_least(255), path="tee", field="tee", default=None, advice=_UPDATE)
    snp: Rule | None = key(at_least(255), path="snp", field="snp", default=None, advice=_UPDATE)
    microcode: Rule | None = key(at_least(255), path="microcode", field="microcode", default=None, advice=_UPDATE)


def _flag(name: str, advice: str, default: Rule | None = None) -> Rule | None:
    rule: Rule | None = key(boolean, path=name, field=name, default=default, advice=advice)
    return rule
