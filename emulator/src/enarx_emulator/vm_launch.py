"""What QEMU gives to each firmware when it launches a VM keep, as arguments of a machine's ``launch``.

The order and the contents are QEMU's: OVMF, the table of hashes of kernel, initial ramdisk and command line, what the
firmware's metadata asks for, and the state of the processors. The firmware measures all that; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from enarx.api.vm_image import VmImage
from enarx.attest._linux_boot import boot_digests, exit_digests, stub_digests
from enarx.attest.measure import (
    CPU_SIGNATURES,
    Algorithm,
    GuestFeatures,
    KernelHashes,
    SectionKind,
    SevFirmware,
    Vmm,
    hash_kernel,
    kernel_digest,
    parse_sev_firmware,
    parse_td_firmware,
    verify_id_auth,
    vmsa_pages,
)
from enarx.attest.snp._launch import VMSA_GPA, PageType
from enarx.attest.tdx._tdvf import Attribute
from enarx.tcb.wire import Value
from enarx_emulator.errors import EmulatorError

CPU: Final = "EPYC-v4"
PAGE_BYTES: Final = 4096


def launch_arguments(kind: str, image: VmImage, *, vcpus: int = 1) -> Mapping[str, Value]:
    """Give what ``launch`` of a machine of this kind takes for ``image``, started with ``vcpus`` processors.

    Raises ``EmulatorError``, ``Malformed``.
    """
    loader = _LOADERS.get(kind)
    if loader is None:
        raise EmulatorError(f"an emulated {kind} platform runs no VM keeps", hint="launch a process keep")
    return loader(image, vcpus)


def _snp(image: VmImage, vcpus: int) -> Mapping[str, Value]:
    firmware, hashes = _firmware(image), _hashes(image)
    pages: list[Value] = [[int(PageType.NORMAL), firmware.gpa, firmware.image]]
    for section in firmware.sections:
        match section.kind:
            case SectionKind.SECRETS:
                kind, data = PageType.SECRETS, bytes(PAGE_BYTES)
            case SectionKind.CPUID:
                kind, data = PageType.CPUID, bytes(PAGE_BYTES)
            case SectionKind.KERNEL_HASHES:
                kind, data = PageType.NORMAL, hashes.page((firmware.kernel_hashes_gpa or 0) - section.gpa)
            case _:
                kind, data = PageType.ZERO, bytes(section.size)
        pages.append([int(kind), section.gpa, data])
    pages += [
        [int(PageType.VMSA), VMSA_GPA, page] for page in _vmsas(firmware, vcpus, GuestFeatures.SNP_ACTIVE)
    ]
    return {"pages": pages, **_identity(image)}


def _identity(image: VmImage) -> Mapping[str, Value]:
    """The ID block that somebody signed for the image, which the firmware holds against what it has measured."""
    if image.snp_identity is None:
        return {}
    block, auth = image.snp_identity
    author_key = any(verify_id_auth(block, auth).author_key_digest)
    return {"id_block": block, "id_auth": auth, "auth_key_en": author_key}


def _sev(image: VmImage, vcpus: int) -> Mapping[str, Value]:
    firmware = _firmware(image)
    hashes: list[Value] = [firmware.kernel_hashes_gpa, _hashes(image).table()]
    vmsas: list[Value] = [*_vmsas(firmware, vcpus, 0)]
    return {"parts": [[firmware.gpa, firmware.image], hashes], "vmsas": vmsas}


def _tdx(image: VmImage, _vcpus: int) -> Mapping[str, Value]:
    """What TDVF's metadata lists; then RTMR1 and RTMR2, as the firmware and the kernel's EFI stub extend them."""
    if image.firmware is None:
        raise EmulatorError("the image has no firmware for TDX", hint="build it with firmware")
    sections: list[Value] = [
        [section.gpa, section.data.ljust(section.size, b"\0"), Attribute.MR_EXTEND in section.attributes]
        for section in parse_td_firmware(_content(image.firmware)).sections
        if Attribute.PAGE_AUG not in section.attributes
    ]
    algorithm, initrd = Algorithm.SHA384, _content(image.initrd)
    kernel = kernel_digest(
        _content(image.kernel),
        algorithm,
        patched_for=None,
        initrd_bytes=len(initrd),
        cmdline=image.cmdline,
    )
    booted = (*boot_digests(algorithm, kernel), *exit_digests(algorithm))
    loaded = stub_digests(algorithm, cmdline=image.cmdline, initrd=initrd)
    extensions: list[Value] = [
        [register, one] for register, found in ((1, booted), (2, loaded)) for one in found
    ]
    return {"sections": sections, "extensions": extensions}


def _pef(image: VmImage, _vcpus: int) -> Mapping[str, Value]:
    """The unpacked kernel, which is what is started there."""
    return {
        "image": _content(image.vmlinux),
        "initrd": _content(image.initrd),
        "bootargs": image.cmdline,
    }


def _firmware(image: VmImage) -> SevFirmware:
    if image.sev_firmware is None:
        raise EmulatorError("the image has no firmware for the SEV family", hint="build it with firmware")
    firmware = parse_sev_firmware(_content(image.sev_firmware))
    if firmware.kernel_hashes_gpa is None:
        raise EmulatorError("the image's firmware would start any kernel: it has no place for hashes")
    return firmware


def _hashes(image: VmImage) -> KernelHashes:
    return hash_kernel(_content(image.kernel), initrd=_content(image.initrd), cmdline=image.cmdline)


def _vmsas(firmware: SevFirmware, vcpus: int, features: int) -> tuple[bytes, ...]:
    signature = CPU_SIGNATURES[CPU]
    return vmsa_pages(firmware, Vmm.QEMU, vcpus=vcpus, cpu_signature=signature, features=features)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EmulatorError(
            f"the platform's copy of the image is damaged: {path.name}: {(error.strerror or '').lower()}",
            hint="start the host agent anew, which loads the image again",
        ) from None


_LOADERS: Final[Mapping[str, Callable[[VmImage, int], Mapping[str, Value]]]] = {
    "snp": _snp,
    "sev": _sev,
    "sev-es": _sev,
    "tdx": _tdx,
    "pef": _pef,
}
