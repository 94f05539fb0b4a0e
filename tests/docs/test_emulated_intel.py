"""What the page on emulated Intel machines tells tenants to compute is what the machines measure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.forge import intel

from enarx_emulator.intel.processor import MODELS

PAGE = Path(__file__).parents[2] / "docs/explanation/emulated-intel.md"


@pytest.mark.parametrize("image", [b"a small image", bytes(3 * 4096)])
def test_the_example_gives_both_measurements(image: bytes) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"image": image}
    exec(example, names)  # noqa: S102 -- our own page
    assert intel.launch(intel.machine("sgx"), image)[1] == names["enclave"]
    assert intel.launch(intel.machine("tdx"), image)[1] == names["domain"]


def test_the_page_names_all_models() -> None:
    text = PAGE.read_text()
    assert all(f"`{name}`" in text for name in MODELS)
