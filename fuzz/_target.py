"""Run one target under atheris, with coverage of our own code."""

from __future__ import annotations

import importlib
import sys

import atheris  # type: ignore[import-untyped]


def fuzz(name: str) -> None:
    """Fuzz ``fuzz.NAME`` with the options of the command line; never returns."""
    with atheris.instrument_imports(include=["enarx"]):
        target = importlib.import_module(f"fuzz.{name}")
    atheris.Setup(sys.argv, target.one)
    atheris.Fuzz()
