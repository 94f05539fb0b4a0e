"""Expected launch digests of legacy SEV and SEV-ES: one SHA-256 over all that is put into the guest.

Source: AMD 55766 (SEV API), LAUNCH_UPDATE_DATA and LAUNCH_UPDATE_VMSA; the order is QEMU's. ``MEASURE`` of the
platform covers this digest together with policy, API version and a nonce.
"""

from __future__ import annotations

import hashlib
from typing import Final

from enarx.attest._unmeasurable import Unmeasurable
from enarx.attest.amd._kernel_hashes import KernelHashes
from enarx.attest.amd._ovmf import SevFirmware
from enarx.attest.amd._vmsa import BSP_RESET, Vmm, vmsa_page

MAX_VCPUS: Final = 4096
"""More than any machine offers; bounds the time."""


def sev_launch_digest(firmware: SevFirmware, *, kernel: KernelHashes | None = None) -> bytes:
    """Give the 32 bytes for SEV. Raises ``Unmeasurable`` when the firmware has no place for kernel hashes."""
    return _firmware_and_kernel(firmware, kernel).digest()


def sev_es_launch_digest(
    firmware: SevFirmware,
    *,
    vcpus: int,
    cpu_signature: int,
    vmm: Vmm = Vmm.QEMU,
    features: int = 0,
    kernel: KernelHashes | None = None,
) -> bytes:
    """Give the 32 bytes for SEV-ES. ``features`` is not 0 only with VMs made by KVM_SEV_INIT2 (Linux 6.10)."""
    digest = _firmware_and_kernel(firmware, kernel)
    for page in vmsa_pages(firmware, vmm, vcpus=vcpus, cpu_signature=cpu_signature, features=features):
        digest.update(page)
    return digest.digest()


def vmsa_pages(
    firmware: SevFirmware, vmm: Vmm, *, vcpus: int, cpu_signature: int, features: int
) -> tuple[bytes, ...]:
    """Give one page a processor, the bootstrap processor first."""
    check_vcpus(vcpus)
    pages = [vmsa_page(vmm, entry=BSP_RESET, cpu_signature=cpu_signature, features=features)]
    if vcpus > 1:
        if firmware.ap_reset is None:
            raise Unmeasurable(
                f"firmware has no sev-es reset block, which {vcpus} vcpus need",
                hint="use an OVMF build with SEV-ES support, or one vcpu",
            )
        application = vmsa_page(vmm, entry=firmware.ap_reset, cpu_signature=cpu_signature, features=features)
        pages += [application] * (vcpus - 1)
    return tuple(pages)


def check_vcpus(vcpus: int) -> None:
    """Refuse a number of processors that no guest has."""
    if not 1 <= vcpus <= MAX_VCPUS:
        raise Unmeasurable(f"vcpus is {vcpus}, expected 1 to {MAX_VCPUS}")


def no_kernel_hashes() -> Unmeasurable:
    """Say that the firmware would boot whatever kernel the host gives."""
    return Unmeasurable(
        "firmware has no place for kernel hashes, so its launch cannot cover a kernel",
        hint="use OVMF's AmdSev build (OVMF.amdsev.fd)",
    )


def _firmware_and_kernel(firmware: SevFirmware, kernel: KernelHashes | None) -> hashlib._Hash:
    if not firmware.image:
        raise Unmeasurable("the firmware image itself is needed for a sev or sev-es digest")
    digest = hashlib.sha256(firmware.image)
    if kernel is not None:
        if firmware.kernel_hashes_gpa is None:
            raise no_kernel_hashes()
        digest.update(kernel.table())
    return digest
