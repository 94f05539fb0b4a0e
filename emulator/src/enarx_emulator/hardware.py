"""Whether this machine has a real TEE. Beside one, emulated evidence could be taken for real evidence by mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from enarx_emulator.errors import EmulatorError

DEVICES: Final = (
    "dev/sev",
    "dev/sev-guest",
    "dev/sgx_enclave",
    "dev/sgx/enclave",
    "dev/tdx_guest",
    "dev/tdx-guest",
    "sys/firmware/ultravisor",
)
PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "sys/module/kvm_amd/parameters/sev": ("Y", "1"),
    "sys/module/kvm_intel/parameters/tdx": ("Y", "1"),
    "sys/module/kvm_intel/parameters/sgx": ("Y", "1"),
}
"""Parameters of kernel modules, and the values with which they mean a TEE."""


def real_hardware(root: Path = Path("/")) -> list[str]:
    """Name the signs of a real TEE below ``root``."""
    found = [f"/{path}" for path in DEVICES if (root / path).exists()]
    for path, values in PARAMETERS.items():
        try:
            value = (root / path).read_text().strip()
        except OSError:
            continue
        if value in values:
            found.append(f"/{path}={value}")
    return found


def refuse_beside_real_hardware(root: Path = Path("/")) -> None:
    """Raise ``EmulatorError`` on a machine with a real TEE."""
    if found := real_hardware(root):
        hint = "use the real one, or say --beside-real-hardware if you mean it"
        raise EmulatorError(f"this machine has a real TEE: {', '.join(found)}", hint=hint)
