"""The policy of a tenant who accepts a VM keep without a TEE, whose start a TPM has measured.

It is never part of a default: such a keep's memory is open to who runs the machine, and the tenant has to say that this
may be so, and whose attestation key he believes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from enarx.api.vm_image import VmImage
from enarx.tcb.tpm import PCRS as QUOTED
from enarx.tenant.image.vm._measurements import Machine, Measurements

TPM_MACHINES: Final = (Machine(), Machine(patched_for=512 << 20))
"""What a host of this release may start: with a QEMU that leaves the kernel as it is, and with an older one."""
_NOTHING: Final[Mapping[str, Iterable[bytes]]] = MappingProxyType({})


def tpm_registers(image: VmImage, machines: Iterable[Machine] = TPM_MACHINES) -> dict[str, tuple[bytes, ...]]:
    """Give what each register holds that covers ``image`` or must be empty, by its name in policies (``pcr4``).

    Several values where ``machines`` differ. Raises ``Unmeasurable``, ``Unavailable``.
    """
    measurements = Measurements(image)
    found: dict[str, dict[bytes, None]] = {}
    for machine in machines:
        for index, value in measurements.tpm_pcrs(machine).items():
            found.setdefault(f"pcr{index}", {})[value] = None
    return {name: tuple(values) for name, values in found.items()}


def tpm_section(
    image: VmImage,
    machines: Iterable[Machine] = TPM_MACHINES,
    registers: Mapping[str, Iterable[bytes]] = _NOTHING,
) -> str:
    """Write the section ``[tpm]`` that accepts exactly ``image``, by keys that are the tenant's own roots.

    ``registers``: what the files do not tell, taken from a good boot: firmware (``pcr0``) and its settings (``pcr1``,
    ``pcr7``). Raises ``Unmeasurable``, ``Unavailable``.
    """
    named = {**tpm_registers(image, machines), **{name: tuple(it) for name, it in registers.items()}}
    lines = [
        "[tpm]",
        'measurement = "any"  # of all registers together; those that count are named below',
        f"selection = {list(QUOTED)}",
        f"event_log = {list(QUOTED)}",
        "memory_protected = false  # whoever runs the machine may read the keep's memory",
        "vendor_root = false  # an attestation key that the tenant enrolled, and no cloud's TPM",
        "[tpm.pcrs]",
    ]
    for name, values in sorted(named.items()):
        shown = ", ".join(f'"{value.hex()}"' for value in values)
        lines.append(f"{name} = [{shown}]")
    return "\n".join(lines) + "\n"


def tpm_policy(
    image: VmImage,
    machines: Iterable[Machine] = TPM_MACHINES,
    registers: Mapping[str, Iterable[bytes]] = _NOTHING,
) -> str:
    """Write a whole policy with nothing but ``tpm_section``."""
    return f"version = 1\n\n{tpm_section(image, machines, registers)}"
