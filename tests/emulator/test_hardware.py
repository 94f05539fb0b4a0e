"""The emulator knows a machine with a real TEE when it sees one, and does not start beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from enarx_emulator.errors import EmulatorError
from enarx_emulator.hardware import DEVICES, PARAMETERS, real_hardware, refuse_beside_real_hardware


def put(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_is_a_real_tee(tmp_path: Path, device: str) -> None:
    put(tmp_path, device)
    with pytest.raises(EmulatorError, match=f"/{device}") as caught:
        refuse_beside_real_hardware(tmp_path)
    assert "--beside-real-hardware" in caught.value.hint


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_a_module_that_offers_it_is_a_real_tee(tmp_path: Path, parameter: str) -> None:
    put(tmp_path, parameter, "N\n")
    refuse_beside_real_hardware(tmp_path)
    put(tmp_path, parameter, "Y\n")
    assert real_hardware(tmp_path) == [f"/{parameter}=Y"]


def test_a_machine_without_one_may_emulate_it(tmp_path: Path) -> None:
    refuse_beside_real_hardware(tmp_path)
