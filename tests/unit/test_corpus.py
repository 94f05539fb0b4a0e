"""What fuzzing has found worth keeping stays harmless."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
TARGETS = sorted(path.stem for path in FUZZ.glob("*.py") if not path.stem.startswith("_"))


@pytest.mark.parametrize("name", TARGETS)
def test_target_stands_its_corpus(name: str) -> None:
    target = importlib.import_module(f"fuzz.{name}")
    seeds = sorted((FUZZ / "corpus" / name).iterdir())
    assert seeds, "a target without a corpus starts from nothing each time"
    for seed in seeds:
        target.one(seed.read_bytes())
