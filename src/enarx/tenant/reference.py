"""Reference values (RFC 9334): what evidence must show of a keep from the image that its tenant expects.

An image is an archive, from which process keeps are started, or the directory of an image of VM keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from enarx.api.keep_image import Image, read_image
from enarx.api.vm_image import VmImage, read_vm_image
from enarx.attest.claims import Tee
from enarx.attest.pef import Digests
from enarx.tcb.errors import Unavailable
from enarx.tenant.image import MEASURED, pef_digests, reference_measurement

if TYPE_CHECKING:
    from enarx.tenant.image.vm import Machine, Measurements

KeepImage = Image | VmImage


def read_keep_image(path: Path) -> KeepImage:
    """Describe the image at ``path``: an archive or a directory. Raises ``Malformed``, ``Unavailable``."""
    return read_vm_image(path) if path.is_dir() else read_image(path)


def attested_tees(image: KeepImage) -> tuple[Tee, ...]:
    """Give the TEEs on which a keep from ``image`` can show what it is. A TPM is none: it encrypts no memory."""
    if isinstance(image, Image):
        return MEASURED
    covered = {
        Tee.SNP: image.sev_firmware,
        Tee.TDX: image.firmware,
        Tee.SEV: image.sev_firmware,
        Tee.SEV_ES: image.sev_firmware,
        Tee.PEF: image.vmlinux,
    }
    return tuple(tee for tee, by in covered.items() if by is not None)


def reference_values(image: KeepImage, tee: Tee, machine: Machine | None = None) -> Mapping[str, bytes]:
    """Give each value by its key in policies and in ``Verified.measurements``, ``measurement`` first.

    ``machine`` is what a VM keep is launched on, if not the machine of this release. Raises ``Unmeasurable``,
    ``Unavailable``; ``KeyError`` for a TEE that keeps from ``image`` do not run on.
    """
    if isinstance(image, Image):
        return {"measurement": reference_measurement(image, tee)}
    if tee not in attested_tees(image):
        raise KeyError(tee)
    from enarx.tenant.image.vm import Machine

    (_, first), *others = measurements(image).of(tee, machine or Machine()).items()
    return {"measurement": first, **dict(others)}


def started_section(image: KeepImage) -> str:
    """Write the section of a policy that accepts a machine whose TPM says that it started ``image``.

    Raises ``Unavailable`` for a process keep, of whose start a TPM says nothing; ``Unmeasurable``.
    """
    if isinstance(image, Image):
        raise Unavailable(
            "a TPM says nothing of process keeps", hint="name the directory of a VM image with --image"
        )
    from enarx.tenant.image.vm import tpm_section

    return tpm_section(image)


def started_registers(image: VmImage) -> Mapping[str, Sequence[bytes]]:
    """Give what each register of a TPM may hold when ``image`` was started, by its name. Raises ``Unmeasurable``."""
    from enarx.tenant.image.vm import tpm_registers

    return tpm_registers(image)


def sealed_digests(image: KeepImage) -> Digests:
    """Give what is sealed for a PEF machine that is to run ``image``. Raises ``Unavailable``."""
    return pef_digests(image.manifest) if isinstance(image, Image) else measurements(image).pef_digests()


@lru_cache(maxsize=4)
def measurements(image: VmImage) -> Measurements:
    """Give the values of one image, each computed when it is first asked for."""
    from enarx.tenant.image.vm import Measurements

    return Measurements(image)
