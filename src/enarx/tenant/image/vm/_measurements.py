"""What evidence must show when a machine was started from an image: computed from its files alone.

On a PEF machine the unpacked kernel is what lies in memory, and what is started there. PCR0 and RTMR0 are not here:
they depend on the machine (``enarx.attest.measure.rtmr0``, ``enarx.attest.tpm``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from enarx.api.vm_image import VmImage
from enarx.attest.claims import Tee
from enarx.attest.measure import (
    CPU_SIGNATURES,
    KernelHashes,
    SevFirmware,
    Unmeasurable,
    expected_pcrs,
    hash_kernel,
    kernel_rtmr1,
    mrtd,
    parse_sev_firmware,
    parse_td_firmware,
    rtmr2,
    sev_es_launch_digest,
    sev_launch_digest,
    snp_firmware_digest,
    snp_launch_digest,
)
from enarx.attest.pef import Digests
from enarx.tcb.errors import Unavailable

VM_TEES: Final = (Tee.SNP, Tee.SEV_ES, Tee.SEV, Tee.TDX, Tee.PEF, Tee.TPM)
"""The kinds of evidence that a machine can give."""
PCRS: Final = (4, 9)
"""What covers kernel, initial ramdisk and command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What of a virtual machine is measured beside its image."""

    vcpus: int = 1
    vcpu_type: str = "EPYC-v4"
    """QEMU's processor model, one of ``CPU_SIGNATURES``."""
    patched_for: int | None = None
    """Bytes of memory where QEMU patches the kernel (``enarx.attest.measure.patched_kernel``)."""


class Measurements:
    """The expected values of one image, which read its files when they are first needed."""

    def __init__(self, image: VmImage) -> None:
        self._image = image

    def of(self, tee: Tee, machine: Machine) -> dict[str, bytes]:
        """Give each value by its name in the evidence, the one that identifies the launch first.

        Raises ``Unmeasurable`` when the image has no firmware for this kind, ``KeyError`` for other kinds.
        """
        match tee:
            case Tee.SEV | Tee.SEV_ES:
                return {"launch_digest": self.launch_digest(tee, machine)}
            case Tee.SNP:
                return {"measurement": self.launch_digest(tee, machine)}
            case Tee.TDX:
                return self._tdx(machine)
            case Tee.PEF:
                return {"measurement": self.pef_digests().measurement}
            case Tee.TPM:
                pcrs = self.tpm_pcrs(machine)
                return {f"pcr{index}": pcrs[index] for index in PCRS}
        raise KeyError(tee)

    def launch_digest(self, tee: Tee, machine: Machine, hashes: KernelHashes | None = None) -> bytes:
        """Give what SEV, SEV-ES or SEV-SNP measures; with ``hashes``, of other files behind the same firmware.

        Raises ``Unmeasurable``.
        """
        hashes = hashes or self._hashes
        if tee is Tee.SEV:
            return sev_launch_digest(self._sev_firmware, kernel=hashes)
        signature = _signature(machine)
        if tee is Tee.SEV_ES:
            return sev_es_launch_digest(
                self._sev_firmware, vcpus=machine.vcpus, cpu_signature=signature, kernel=hashes
            )
        return snp_launch_digest(
            self._sev_firmware,
            vcpus=machine.vcpus,
            cpu_signature=signature,
            kernel=hashes,
            firmware_digest=self._snp_firmware_digest,
        )

    def tpm_pcrs(self, machine: Machine) -> dict[int, bytes]:
        """Give all registers of a TPM that depend on the image alone (``enarx.attest.measure.expected_pcrs``)."""
        return expected_pcrs(
            self._kernel,
            initrd=self._initrd,
            cmdline=self._image.cmdline,
            patched_for=machine.patched_for,
        )

    def pef_digests(self) -> Digests:
        """Give what is sealed for a PEF machine."""
        kernel = _read(self._image.vmlinux)
        return Digests.of(kernel=kernel, initrd=self._initrd, bootargs=self._image.cmdline)

    def _tdx(self, machine: Machine) -> dict[str, bytes]:
        if self._image.firmware is None:
            raise _without_firmware()
        cmdline, initrd = self._image.cmdline, self._initrd
        return {
            "mrtd": mrtd(parse_td_firmware(_read(self._image.firmware))),
            "rtmr1": kernel_rtmr1(
                self._kernel, patched_for=machine.patched_for, initrd=initrd, cmdline=cmdline
            ),
            "rtmr2": rtmr2(cmdline=cmdline, initrd=initrd),
        }

    @cached_property
    def _kernel(self) -> bytes:
        return _read(self._image.kernel)

    @cached_property
    def _initrd(self) -> bytes:
        return _read(self._image.initrd)

    @cached_property
    def _hashes(self) -> KernelHashes:
        return hash_kernel(self._kernel, initrd=self._initrd, cmdline=self._image.cmdline)

    @cached_property
    def _sev_firmware(self) -> SevFirmware:
        if self._image.sev_firmware is None:
            raise _without_firmware()
        return parse_sev_firmware(_read(self._image.sev_firmware))

    @cached_property
    def _snp_firmware_digest(self) -> bytes:
        return snp_firmware_digest(self._sev_firmware)


def _signature(machine: Machine) -> int:
    if machine.vcpu_type not in CPU_SIGNATURES:
        raise Unmeasurable(f"processor model {machine.vcpu_type} is not one of {', '.join(CPU_SIGNATURES)}")
    return CPU_SIGNATURES[machine.vcpu_type]


def _without_firmware() -> Unmeasurable:
    return Unmeasurable(
        "the image has no firmware, so nothing covers its kernel", hint="build it with firmware"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path}: {(error.strerror or str(error)).lower()}") from None
