"""A platform of the demo's own: what is said where it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from enarx.host.demo.emulated import emulated_platform
from enarx.host.demo.processor import open_emulated
from enarx.tcb.errors import Unavailable


def test_without_the_emulator_it_says_what_to_install() -> None:
    with pytest.raises(Unavailable, match="no program enarx-emulator-missing") as caught:
        emulated_platform("sev", program="enarx-emulator-missing").__enter__()
    assert "install the distribution enarx-emulator" in caught.value.hint


def test_a_platform_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(Unavailable, match="did not start: Invalid value for") as caught:
        emulated_platform("a-kind-that-is-none").__enter__()
    assert "--platform DIR" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_directory_without_a_platform(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no platform at"):
        open_emulated(tmp_path)
